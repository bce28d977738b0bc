"""Prometheus metrics of the middleware, in the default registry, so that vLLM's ``/metrics`` shows
them, and a span for each request where vLLM's tracing is on."""

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from ssjf.serving.openai import IncomingRequest

SPAN = "ssjf.prioritise"
CONTEXT = ("traceparent", "tracestate")  # W3C headers
SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
LOG_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


class Metrics:
    """Counters, gauges and histograms; made once in a process (see ``metrics``)."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        def by(name: str, words: str, *labels: str) -> Any:
            return Counter(f"ssjf_{name}", words, labels)

        def seconds(name: str, words: str) -> Any:
            return Histogram(f"ssjf_{name}_seconds", words, buckets=SECONDS)

        self.predictions = by("predictions", "Requests whose length was predicted in time.")
        self.unpredicted = by("unpredicted", "Requests without a prediction, by reason.", "reason")
        share = "Share of the last 100 requests not predicted for lack of time or a failure."
        self.unpredicted_share = Gauge("ssjf_unpredicted_share", share)
        self.prediction_seconds = seconds("prediction", "Seconds to a prediction, with its queue.")
        self.overhead_seconds = seconds("overhead", "Seconds from a request's last byte to vLLM.")
        ratio = "|log(predicted / generated)| of finished requests."
        self.log_ratio = Histogram("ssjf_prediction_log_ratio", ratio, buckets=LOG_RATIOS)
        overtaking = "Requests whose response began before that of one that had arrived earlier."
        self.overtaking = by("requests_overtaking", overtaking)
        self._policy = Gauge("ssjf_policy", "1 for the order in use.", ["policy", "why"])
        self._labels: tuple[str, ...] = ()
        self.headstart_seconds = Gauge(
            "ssjf_headstart_seconds", "What e times shorter is worth, under a contract."
        )
        room = "The share of what is left of the tail's wait that it is worth besides."
        self.room_share = Gauge("ssjf_room_share", room)
        gain = "By how many percent that lowers the mean JCT of FCFS, replayed."
        self.contract_gain = Gauge("ssjf_contract_gain_percent", gain)
        tail = "The tail of the JCT over that of FCFS, replayed."
        self.contract_tail = Gauge("ssjf_contract_tail_ratio", tail, ["quantile"])
        resent = "Requests sent again by `ssjf route`: no answer had begun when their server left."
        self.resent = by("resent", resent)
        tokens = "What is predicted of the requests under way, together."
        self.in_flight_tokens = Gauge("ssjf_in_flight_predicted_tokens", tokens)
        self.learned = by("learned", "Finished requests that were learned from.")
        self.not_learned = by("not_learned", "Predicted requests not learned from.", "reason")
        self.failures = by("predictor_failures", "Calls of the predictor that failed.")
        self.saves = by("state_saves", "Saves of the state, by outcome.", "outcome")

    def say_policy(self, name: str, why: str) -> None:
        """Show the order in use from now on, and why."""
        if self._labels:  # with several server processes, labels once shown never vanish
            self._policy.labels(*self._labels).set(0)
        self._policy.clear()
        self._labels = name, why
        self._policy.labels(name, why).set(1)


@cache
def metrics() -> Metrics:
    """Return the metrics of this process."""
    return Metrics()


def trace(request: IncomingRequest, began_ns: int, attributes: Mapping[str, Any]) -> None:
    """Record a span up to now with these attributes, the parent of vLLM's own of the request.

    Does nothing unless vLLM has set OpenTelemetry up (--otlp-traces-endpoint) and the trace is to
    be recorded.
    """
    if "opentelemetry.sdk.trace" not in sys.modules:
        return
    from opentelemetry import trace as telemetry
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers = {name: request.header(name.encode()) for name in CONTEXT}
    given = {name: value.decode("latin-1") for name, value in headers.items() if value is not None}
    propagator = TraceContextTextMapPropagator()
    span = telemetry.get_tracer("ssjf").start_span(
        SPAN, propagator.extract(given), attributes=attributes, start_time=began_ns
    )
    if span.is_recording():
        ours: dict[str, str] = {}
        propagator.inject(ours, telemetry.set_span_in_context(span))
        request.set_headers({name.encode(): value.encode() for name, value in ours.items()})
        span.end()
