"""Calls in a thread of their own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

MAX_QUEUE = 4096


class Worker:
    """Makes calls one by one, in the order in which they come.

    Its thread is a daemon, unlike an executor's: a call that hangs keeps no process from its end.
    It starts on first use: a process that is forked before has one of its own.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def submit(self, function: Callable[[], Any]) -> Future[Any] | None:
        """A call that will be made, or None where too many wait."""
        if self._calls.qsize() >= MAX_QUEUE:
            return None
        call: Future[Any] = Future()
        self._calls.put((call, function))
        if self._thread.ident is None:
            self._thread.start()
        return call

    def _run(self) -> None:
        while True:
            call, function = self._calls.get()
            if call.set_running_or_notify_cancel():
                try:
                    call.set_result(function())
                except BaseException as error:  # even SystemExit must not end the thread
                    call.set_exception(error)
