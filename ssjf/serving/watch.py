"""Tell the operator when predictions are missing and the order is no longer by length."""

import logging
import time
from collections import Counter, deque

from ssjf.serving.metrics import metrics

LAST = 100  # requests, the most recent
MOST, FEW = 5, 2  # of them without a prediction: warn above the first, calm at the second
QUIET_SECONDS = 60.0  # between two warnings
LOG = logging.getLogger(__name__)


class Watch:
    """The share of recent requests not predicted for lack of time or a failure: a gauge, and a
    warning each time that it gets too large, but at most one a minute."""

    def __init__(self) -> None:
        self._reasons: deque[str] = deque(maxlen=LAST)
        self._warned, self._warned_at = False, -QUIET_SECONDS

    def note(self, reason: str) -> None:
        """Note why a request was not predicted, "" if it was."""
        self._reasons.append(reason)
        missing = Counter(filter(None, self._reasons))
        share = missing.total() / len(self._reasons)
        metrics().unpredicted_share.set(share)
        if missing.total() <= FEW:
            self._warned = False
        elif missing.total() > MOST and not self._warned:
            if time.monotonic() - self._warned_at < QUIET_SECONDS:
                return
            self._warned, self._warned_at = True, time.monotonic()
            ((reason, _),) = missing.most_common(1)
            LOG.warning(
                "%.0f %% of the last %d requests were not predicted (mostly: %s) and so not "
                "ordered by length; %s", 100 * share, len(self._reasons), reason, _advice(reason),
            )  # fmt: skip


def _advice(reason: str) -> str:
    if reason not in ("deadline", "queue_full"):
        return "the proxy fails, as logged before: choose another --proxy"
    return (
        "raise --deadline-ms or leave it out, or give the server another core; "
        "ssjf serve MODEL --check says what this machine can predict"
    )
