"""What the middleware counts, in Prometheus' default registry: vLLM's ``/metrics`` shows it.

Without the package prometheus_client nothing is counted, and nothing fails.
"""

from functools import cache
from typing import Any

SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
LOG_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


class Metrics:
    """Counters and histograms by name; made once in a process (see ``metrics``)."""

    def __init__(self, counter: Any, histogram: Any) -> None:
        self.predictions = counter(
            "ssjf_predictions", "Requests whose length was predicted in time."
        )
        self.unpredicted = counter(
            "ssjf_unpredicted", "Requests ordered without a prediction, by reason.", ["reason"]
        )
        self.prediction_seconds = histogram(
            "ssjf_prediction_seconds", "Seconds in the predictor's queue and in the predictor.",
            buckets=SECONDS,
        )  # fmt: skip
        self.overhead_seconds = histogram(
            "ssjf_overhead_seconds", "Seconds from a request's last byte until vLLM has it.",
            buckets=SECONDS,
        )  # fmt: skip
        self.log_ratio = histogram(
            "ssjf_prediction_log_ratio", "|log(predicted / generated)| of finished requests.",
            buckets=LOG_RATIOS,
        )  # fmt: skip
        self.overtaking = counter(
            "ssjf_requests_overtaking",
            "Requests whose response began before that of one that had arrived earlier.",
        )
        self.learned = counter("ssjf_learned", "Finished requests that were learned from.")
        self.not_learned = counter(
            "ssjf_not_learned", "Predicted requests that teach nothing, by reason.", ["reason"]
        )
        self.failures = counter("ssjf_predictor_failures", "Calls of the predictor that failed.")
        self.restarts = counter("ssjf_predictor_restarts", "Times its thread was started again.")
        self.saves = counter("ssjf_state_saves", "Saves of the state, by outcome.", ["outcome"])


@cache
def metrics() -> Metrics:
    """The metrics of this process."""
    try:
        from prometheus_client import Counter, Histogram
    except ImportError:
        return Metrics(_Silent, _Silent)
    return Metrics(Counter, Histogram)


class _Silent:
    """Takes the place of every metric, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def labels(self, *_: Any) -> "_Silent":
        """Itself."""
        return self

    def inc(self) -> None:
        """Nothing."""

    def observe(self, value: float) -> None:
        """Nothing."""
