"""Calls in a thread of their own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

MAX_QUEUE = 4096


class Worker:
    """Makes calls one by one, in the order in which they come.

    Its thread is a daemon's, unlike that of an executor: a call that hangs keeps no process from
    its end. It starts on first use: a process that is forked before has one of its own.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._calls: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]]
        self._calls = SimpleQueue()

    def submit(self, function: Callable[..., Any], *given: Any) -> Future[Any] | None:
        """A call that will be made, or None where too many wait."""
        if self._calls.qsize() >= MAX_QUEUE:
            return None
        call: Future[Any] = Future()
        self._calls.put((call, function, given))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return call

    def _run(self) -> None:
        while True:
            self._make(*self._calls.get())

    def _make(
        self, call: Future[Any], function: Callable[..., Any], given: tuple[Any, ...]
    ) -> None:
        if not call.set_running_or_notify_cancel():
            return
        try:
            result = function(*given)
        except BaseException as error:  # even SystemExit of a library must not end the thread
            call.set_exception(error)
        else:
            call.set_result(result)
