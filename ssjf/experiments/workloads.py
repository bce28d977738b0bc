"""The workload of a run in its specification: one table per kind of workload."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ssjf.experiments.tables import Count, Pool, Positive, Seeds, Table


class Workload(Table):
    """Keys of all workloads: a name for tables, and a round of conversation."""

    label: str | None = None
    round: Count | None = None

    def draw_options(self) -> dict[str, Any]:
        """The keys that identify the stored draw, without names and replay scales."""
        return {k: v for k, v in self.as_json().items() if k not in ("label", "round", "scales")}


class Repeated(Workload):
    """Several runs per seed, drawn from one random stream."""

    runs: Count
    seeds: Seeds


class RateSweep(Repeated):
    """The SSJF authors' Poisson counts per second, over the rate (1/s)."""

    draw: Literal["rate-sweep"]
    rates: list[Positive]
    keep: list[Positive]
    jobs: Count


class CvSweep(Repeated):
    """The SSJF authors' Gamma gaps, over their coefficient of variation."""

    draw: Literal["cv-sweep"]
    rate: Positive
    cvs: list[Positive]
    keep: list[Positive]
    jobs: Count
    after_rates: list[Positive] | None = None


class JobsSweep(Repeated):
    """The SSJF authors' Poisson counts per second, over the number of jobs."""

    draw: Literal["jobs-sweep"]
    rate: Positive
    jobs: list[Count]
    keep: list[Count]


class PredictedSweep(Repeated):
    """The rate sweep over a pool of requests that proxies predicted."""

    draw: Literal["predicted-sweep"]
    pool: Pool
    rates: list[Positive]
    keep: list[Positive]
    jobs: Count


class TraceWindows(Workload):
    """Windows of consecutive arrivals of a trace, each at several scales."""

    draw: Literal["trace-windows"]
    trace: str
    windows: Count
    jobs: Count
    seed: int
    scales: list[Positive]


class LlmBoxes(Repeated):
    """Lengths drawn from the box-plot statistics of one LLM."""

    draw: Literal["llm-boxes"]
    llm: str
    rate: Positive
    jobs: Count


Sweep = Annotated[
    RateSweep | CvSweep | JobsSweep | PredictedSweep | TraceWindows | LlmBoxes,
    Field(discriminator="draw"),
]


class Arrivals(Table):
    """Gaps other than Poisson's: Gamma (``cv``), or those of a trace.

    window: number of the trace's gaps to repeat. rates: pairs of a share of the requests and the
    factor by which these arrive faster.
    """

    cv: Positive | None = None
    trace: str | None = None
    window: Count | None = None
    rates: list[tuple[Positive, Positive]] | None = None


class OpenLoop(Workload):
    """Requests of a pool (or synthetic ones) arriving at a utilisation.

    rho_of: ``saturation`` defines ρ relative to the saturation rate of the simulated server.
    """

    draw: Literal["pool", "synthetic"]
    pool: Pool | None = None
    requests: Count | None = None
    requests_per_slot: Count | None = None
    prompt_tokens: Count | None = None
    rho_of: Literal["saturation"] | None = None
    arrivals: Arrivals = Arrivals()
    seeds: Seeds


class ArenaLoop(OpenLoop):
    """The same, with its predictor."""

    predictor: str


class DataPool(Table):
    """Predictions by the label of their data set."""

    of: list[str]
    label: str


class Prompted(Workload):
    """Requests with the lengths of real prompts, at one a second."""

    draw: Literal["prompted"]
    pool: DataPool
    requests: Count
    seeds: Seeds


class Texts(Workload):
    """A text data set to train on, or the proxies trained by the experiment ``of``.

    answers: an experiment whose answer lengths replace those of the data set. judged: another data
    set to be judged on, by its test split and lengths. llm: the LLM whose answers are judged; it is
    the only one trained on, or the only one left out if ``judged`` is another data set.
    """

    draw: Literal["texts"]
    data: str
    answers: str | None = None
    judged: str | None = None
    llm: str | None = None
    folds: Count | None = None
    fold: Annotated[int, Field(ge=0)] | None = None
    of: str | None = None
    prompts: Count | None = None


class Asked(Workload):
    """A shard of a data set's first messages, each answered ``samples`` times."""

    draw: Literal["asked"]
    data: str
    column: str | None = None
    splits: list[Literal["train", "val", "test"]] | None = None
    first: Annotated[int, Field(ge=0)] = 0
    prompts: Count
    samples: Count = 1


class NaturalLoop(Workload):
    """Distinct prompts of a pool, with their texts from a data set."""

    draw: Literal["natural"]
    data: str
    column: str | None = None
    pool: Pool
    requests: Count
    seeds: Seeds


class Chats(Workload):
    """Prompts of a pool, sent all at once, or by ``users`` who each wait for their answer."""

    draw: Literal["chats"]
    data: str
    column: str | None = None
    pool: Pool
    requests: Count
    users: Count | None = None


class Bursts(Table):
    """Bursts of requests with log-uniform prompt and output lengths between two ends (tokens)."""

    per_slot: Count
    prompt_tokens: Annotated[list[Count], Field(min_length=2, max_length=2)]
    output_tokens: Annotated[list[Count], Field(min_length=2, max_length=2)]
    seeds: Seeds


class HttpLoad(Workload):
    """Prompts sent to a server: at a rate (1/s), some at a time, or all at once."""

    data: str
    column: str
    requests: Count
    rate: Positive | None = None
    concurrency: Count | None = None
    output_tokens: Count | None = None


class Backlog(Workload):
    """Bursts of simultaneous requests for log-normal answers of at most ``most`` tokens."""

    requests: Count
    bursts: Count
    mean: Positive
    sigma: Positive
    most: Count


class Soak(Workload):
    """Requests over ``connections``, each sent once the previous one is answered; every one of the
    ``faults`` is injected for an equal share of them."""

    requests: Count
    connections: Count
    samples: Count
    output_tokens: Count
    faults: list[
        Literal["none", "failing", "killed", "delayed", "wrong", "disk full", "terminated",
                "engine killed"]
    ]  # fmt: skip
