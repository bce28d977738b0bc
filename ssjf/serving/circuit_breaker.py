"""How long something that keeps failing is left alone."""

import time

FAILURES_IN_A_ROW = 3
FIRST_SECONDS, LONGEST_SECONDS = 0.1, 30.0


class Pause:
    """After three failures in a row a pause of 0.1 s, twice as long after each more, up to 30 s."""

    def __init__(self) -> None:
        self._failures, self._until = 0, 0.0

    def __bool__(self) -> bool:
        return time.monotonic() < self._until

    def failed(self, fatally: bool = False) -> float:
        """Count a failure; the seconds of the pause that begins, 0 for none yet."""
        self._failures = max(self._failures + 1, FAILURES_IN_A_ROW if fatally else 0)
        more = self._failures - FAILURES_IN_A_ROW
        if more < 0:
            return 0.0
        seconds = min(FIRST_SECONDS * 2.0 ** min(more, 30), LONGEST_SECONDS)
        self._until = time.monotonic() + seconds
        return seconds

    def succeeded(self) -> None:
        """Failures are counted from the beginning."""
        self._failures = 0
