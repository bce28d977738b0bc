"""Clocks that a run is measured by: each counts seconds since its start, or steps."""

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """The time of one run."""

    def now(self) -> float: ...
    def wait_until(self, then: float) -> None: ...
    def step(self) -> None: ...


class WallSeconds:
    """Real time."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self.start

    def wait_until(self, then: float) -> None:
        time.sleep(max(0.0, then - self.now()))

    def step(self) -> None:
        """Time passes by itself."""


class CpuSeconds:
    """The processor's time of this thread, in which the engine runs; idle time is jumped over.

    Where other processes share the machine, real time measures them as well.
    """

    def __init__(self) -> None:
        self.start = time.thread_time()

    def now(self) -> float:
        return time.thread_time() - self.start

    def wait_until(self, then: float) -> None:
        self.start -= max(0.0, then - self.now())

    def step(self) -> None:
        """Time passes by itself."""


class Steps:
    """Every step takes 1."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wait_until(self, then: float) -> None:
        self.time = max(self.time, then)

    def step(self) -> None:
        self.time += 1


CLOCKS: dict[str, Callable[[], Clock]] = {"wall": WallSeconds, "cpu": CpuSeconds, "steps": Steps}
