"""Make calls in a thread of their own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

MAX_QUEUE = 4096
MOST_CHARACTERS = 2**26  # of all that wait together


class Worker:
    """Makes calls one by one, in order.

    Its thread is a daemon, unlike an executor's: a call that hangs does not keep the process alive.
    It starts on first use, and again if it was killed, as in a process that is forked later.
    """

    def __init__(self, name: str, most: int = MAX_QUEUE) -> None:
        self._name, self._most = name, most
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any], int]] = SimpleQueue()
        self._sizes = [0, 0]  # characters that came and left: one thread writes each
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[[], Any], size: int = 0) -> Future[Any] | None:
        """Queue a call on ``size`` characters; None if too many wait."""
        came, left = self._sizes
        if self._calls.qsize() >= self._most or came - left + size > MOST_CHARACTERS:
            return None
        call: Future[Any] = Future()
        starts = self._thread is None or not self._thread.is_alive()
        if starts:  # a killed thread never counted what it had taken as left
            waiting = [self._calls.get_nowait() for _ in range(self._calls.qsize())]
            self._sizes = [sum(size for *_, size in waiting), 0]
            for entry in waiting:
                self._calls.put(entry)
        self._sizes[0] += size
        self._calls.put((call, function, size))
        if starts:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return call

    def _run(self) -> None:
        while True:
            call, function, size = self._calls.get()
            self._sizes[1] += size
            if call.set_running_or_notify_cancel():
                try:
                    call.set_result(function())
                except Exception as error:
                    call.set_exception(error)
                except BaseException as error:  # SystemExit must not end the caller
                    call.set_exception(RuntimeError(type(error).__name__))
