"""Specifications of runs: one class per kind of run, which ``engine`` names.

A specification is checked when it is read; its canonical JSON names the run (see ``store``).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from ssjf.config import validated
from ssjf.errors import unknown
from ssjf.experiments import workloads

from ssjf.experiments.tables import (  # isort: skip
    Count, Decoding, Number, PolicyName, Positive, Predictor, RouterName, ServerTable, Table,
    checked_by,
)  # fmt: skip
from ssjf.simulator.contract import Contract
from ssjf.simulator.published import Quirks
from ssjf.simulator.server import Memory

Share = Annotated[Number, Field(ge=0, lt=1)]
Seconds = Annotated[Number, Field(ge=0)]
Utilisation = Annotated[Number, Field(gt=0, le=2)]


class Run(Table):
    """Fields that every run has.

    protocol: what its figures may be compared with. detail: what a row stands for. series: its name
    in figures.
    """

    experiment: str
    protocol: Literal["published", "steady-state", "both", "measured", "prediction"]
    detail: Literal["runs", "requests", "predictions", "measurements"]
    engine: str
    series: str
    workload: Any


class Queued(Run):
    """A run in which a policy orders requests; a prediction takes ``predictor_seconds``."""

    policy: PolicyName
    predictor: Predictor | None = None
    predictor_seconds: Seconds = 0.0
    columns: list[str] | None = None
    warmup_fraction: Share = 0.0


class PublishedRun(Queued):
    """The SSJF authors' simulation; ``expected``: the predicted tokens that its guard reads."""

    engine: Literal["published"]
    workload: workloads.Sweep
    mode: Literal["none", "dynamic", "continuous"]
    slots: Count | None = None
    expected: Predictor | None = None
    quirks_off: Annotated[list[str], checked_by(Quirks().without)] = Field(default_factory=list)


class Tuned(Queued):
    """A run whose policy may take its parameters from FCFS on the same traffic.

    times: DUE's weight, in FCFS's mean waits. share: the share of the room that HEADROOM uses.
    longest: HEADSTART caps predictions at this quantile of them.
    """

    times: Positive | None = None
    share: Share | None = None
    longest: Share | None = None


class SteadyRun(Tuned):
    """A simulated open loop at utilisation ``rho``; ``deployment``: where vLLM runs the same."""

    engine: Literal["simulator"]
    workload: workloads.OpenLoop
    profile: str
    slots: Count
    rho: Utilisation
    server: ServerTable = ServerTable()
    deployment: str | None = None
    slowdown_quantiles: bool = False


class ArenaRun(SteadyRun):
    """One policy at several numbers of slots and loads.

    contract: the tail that the contract tuner keeps; the tuner then chooses the order.
    """

    engine: Literal["arena"]  # type: ignore[assignment]
    workload: workloads.ArenaLoop
    batch_slots: list[Count]
    loads: list[Utilisation]
    arrivals: Literal["poisson", "bursts", "azure", "overload"]
    contract: Annotated[str, checked_by(Contract.of)] | None = None
    slots: Count = 1
    rho: Utilisation = 0.5


class ClusterRun(SteadyRun):
    """One policy inside all replicas, under several routers, at several loads."""

    engine: Literal["cluster"]  # type: ignore[assignment]
    workload: workloads.ArenaLoop
    replicas: list[Count]
    loads: list[Utilisation]
    routers: list[RouterName]
    rho: Utilisation = 0.5


class VllmRun(SteadyRun):
    """The same open loop on vLLM; ``keeps``: the deployment's fields for preempted KV."""

    engine: Literal["vllm", "vllm-anatomy", "vllm-swap"]  # type: ignore[assignment]
    keeps: dict[str, int | str] = Field(default_factory=dict)


class StepsRun(Run):
    """Bursts on vLLM at several numbers of slots, with a record of every step."""

    engine: Literal["vllm-steps"]
    workload: workloads.Bursts
    deployment: str
    slots: list[Count]


class AliseRun(Queued):
    """ALISE and its baselines: latency at several loads, or the highest rate within bounds."""

    engine: Literal["alise-curve", "alise-limit"]
    workload: workloads.Prompted
    shape: str
    device: str
    loads: list[Positive] = Field(default_factory=list)
    bounds: list[Positive] = Field(default_factory=list)
    keeps_up: bool = False
    kv_share: Positive = 1.0
    link_share: Positive = 1.0
    memory: Annotated[dict[str, Any], checked_by(lambda options: Memory(**options))] = Field(
        default_factory=dict
    )


class TrainingRun(Run):
    """Training a proxy; ``config`` is merged into the configuration of ``proxy``.

    predicts: judge this instead of training: a proxy's name, or ``column:NAME`` of the data set.
    quantiles: also keep the predicted quantiles.
    """

    engine: Literal["training"]
    workload: workloads.Texts
    proxy: dict[str, Any]
    config: dict[str, Any] = Field(default_factory=dict)
    predicts: str | None = None
    quantiles: bool = True
    seed: Annotated[int, Field(ge=0)] = 0


class CostRun(Run):
    """Time that a trained proxy takes: by prompt size and batch, or per real prompt."""

    engine: Literal["cost", "latency"]
    workload: workloads.Texts


class AnswersRun(Run):
    """Answers of a deployment's real model, which the model ends."""

    engine: Literal["answers"]
    workload: workloads.Asked
    deployment: str
    decoding: Decoding


class NaturalRun(Tuned):
    """An open loop of real prompts, timed in steps, on vLLM or simulated; see ``SteadyRun``."""

    engine: Literal["vllm-natural", "natural"]
    workload: workloads.NaturalLoop
    deployment: str
    decoding: Decoding
    slots: Count
    rho: Utilisation


class ChatRun(Run):
    """Chats with a real model over HTTP on one server; a header sets the ``order``."""

    engine: Literal["serve-chats"]
    workload: workloads.Chats
    deployment: str
    decoding: Decoding
    slots: Count
    order: Literal["fcfs", "ssjf", "sjf"]
    seed: Annotated[int, Field(ge=0)]


class ServerRun(Run):
    """Requests over HTTP; ``serve``: the options of ``ssjf serve`` (None: ``vllm serve``)."""

    engine: Literal["serve-load"]
    workload: workloads.HttpLoad
    deployment: str
    slots: Count
    seed: Annotated[int, Field(ge=0)]
    serve: dict[str, Number | str] | None = None


class SoakRun(ServerRun):
    """Requests over HTTP while faults are injected one after the other."""

    engine: Literal["soak"]  # type: ignore[assignment]
    workload: workloads.Soak  # type: ignore[assignment]


class ReplicasRun(ServerRun):
    """Bursts to replicas on Ray Serve in several ``orders``, measured and simulated."""

    engine: Literal["serve-replicas"]  # type: ignore[assignment]
    workload: workloads.Backlog  # type: ignore[assignment]
    profile: str
    replicas: Count
    router: RouterName
    predictor: Predictor
    orders: list[PolicyName]


_CLASSES: tuple[type[Run], ...] = (
    PublishedRun, SteadyRun, ArenaRun, ClusterRun, VllmRun, StepsRun, AliseRun, TrainingRun,
    CostRun, AnswersRun, NaturalRun, ChatRun, ServerRun, SoakRun, ReplicasRun,
)  # fmt: skip
KINDS = {engine: kind for kind in _CLASSES
         for engine in get_args(kind.model_fields["engine"].annotation)}  # fmt: skip
"""The class of each engine."""


def spec_of(values: Mapping[str, Any], where: str) -> Run:
    """Make the specification from a table; InputError names ``where`` and the key."""
    engine = values.get("engine")
    if engine not in KINDS:
        raise unknown(f"engine of {where}:", engine, KINDS)
    return validated(KINDS[engine], values, where)
