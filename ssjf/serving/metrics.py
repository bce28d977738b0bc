"""Metrics of the middleware, in Prometheus' default registry: vLLM's ``/metrics`` shows them.

Without the package prometheus_client nothing is counted, and nothing fails.
"""

from functools import cache
from typing import Any

SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
LOG_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


class Metrics:
    """Counters and histograms by name; made once in a process (see ``metrics``)."""

    def __init__(self, counter: Any, histogram: Any) -> None:
        def by(name: str, words: str, *labels: str) -> Any:
            return counter(f"ssjf_{name}", words, labels)

        def seconds(name: str, words: str) -> Any:
            return histogram(f"ssjf_{name}_seconds", words, buckets=SECONDS)

        self.predictions = by("predictions", "Requests whose length was predicted in time.")
        self.unpredicted = by("unpredicted", "Requests without a prediction, by reason.", "reason")
        self.prediction_seconds = seconds("prediction", "Seconds to a prediction, with its queue.")
        self.overhead_seconds = seconds("overhead", "Seconds from a request's last byte to vLLM.")
        ratio = "|log(predicted / generated)| of finished requests."
        self.log_ratio = histogram("ssjf_prediction_log_ratio", ratio, buckets=LOG_RATIOS)
        overtaking = "Requests whose response began before that of one that had arrived earlier."
        self.overtaking = by("requests_overtaking", overtaking)
        self.learned = by("learned", "Finished requests that were learned from.")
        self.not_learned = by("not_learned", "Predicted requests not learned from.", "reason")
        self.failures = by("predictor_failures", "Calls of the predictor that failed.")
        self.saves = by("state_saves", "Saves of the state, by outcome.", "outcome")


@cache
def metrics() -> Metrics:
    """The metrics of this process."""
    try:
        from prometheus_client import Counter, Histogram
    except ImportError:
        return Metrics(_NoMetric, _NoMetric)
    return Metrics(Counter, Histogram)


class _NoMetric:
    """Takes the place of every metric: a call of any method does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self
