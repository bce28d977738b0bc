"""A real model under load: real prompts, answers that the model ends, time counted in steps.

Time is counted in steps because ρ near 1 would differ from run to run on a shared machine; CPU and
wall-clock seconds of every time stamp are recorded too. The lengths are known beforehand (greedy
answers of the experiments ``answers-*``), which makes a real oracle possible.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ssjf.analysis.answers import per_run
from ssjf.errors import InputError
from ssjf.experiments.draws import draw
from ssjf.experiments.runs.answers import digest, prompts_of
from ssjf.experiments.runs.steady import STREAMS, order_name, server_on
from ssjf.experiments.runs.vllm import engine, with_hardware
from ssjf.experiments.specs import NaturalRun
from ssjf.harness.engine import Prompts
from ssjf.proxy import predict
from ssjf.request import Completions, FloatArray, Requests
from ssjf.scheduler import policy
from ssjf.simulator.profile import Profile
from ssjf.simulator.simulate import simulate

STEPS = Profile("steps", step_seconds=1.0)
"""A profile for simulations whose time is counted in steps."""
STAMPS = ("scheduled_at", "first_token_at", "finished_at")


def rows(spec: NaturalRun) -> pd.DataFrame:
    """Make a row per request (times in steps), or with ``detail`` runs a row per repetition with
    the metrics of ``analysis.answers.per_run``.

    Columns: x (ρ), output_tokens, arrived_at and ``STAMPS``; on vLLM also these in CPU (``cpu_``)
    and wall-clock seconds (``wall_``), prompt_hash, known_tokens (of the known greedy answer) and
    answer, a hash of its tokens.
    """
    on_vllm = spec.engine == "vllm-natural"
    table = pd.concat([*_repetitions(spec, on_vllm)], ignore_index=True)
    if spec.detail == "runs":
        table = per_run(table.assign(series=spec.series), ["x"]).drop(columns="series")
    return with_hardware(spec.deployment, table) if on_vllm else table


def _repetitions(spec: NaturalRun, on_vllm: bool) -> Iterator[pd.DataFrame]:
    for seed in spec.workload.seeds:
        chosen, requests = arriving(spec, seed)
        rng = np.random.default_rng([seed, STREAMS["predictor"]])
        predicted = predict(spec.predictor, requests, rng) if spec.predictor else None
        keys = {"x": np.float32(spec.rho), "seed": np.int32(seed), "run": np.int32(0)}
        server = server_on(spec.deployment, spec.slots)
        order = order_name(spec, requests, STEPS, server, predicted)
        if on_vllm:
            done, more = _served(spec, order, chosen, requests, predicted)
        else:
            done, more = simulate(requests, policy(order), STEPS, server, predicted), {}
        stamps = {name: getattr(done, name) for name in STAMPS}
        lengths = done.requests.output_tokens.astype(np.int32)
        given = {"output_tokens": lengths, "arrived_at": requests.arrived_at}
        yield pd.DataFrame(keys | given | stamps | more)


def arriving(spec: NaturalRun, seed: int) -> tuple[np.ndarray, Requests]:
    """Draw the prompt hashes and requests of one repetition, with arrivals in steps.

    ρ is the arrival rate times the mean output tokens over the slots, per step.
    """
    workload = spec.workload
    pool = draw(workload.pool.as_json())
    rng = np.random.default_rng([seed, STREAMS["lengths"]])
    if workload.requests > len(pool):
        raise InputError(f"{workload.requests} requests are asked for; the pool has {len(pool)}")
    part = pool.iloc[rng.choice(len(pool), workload.requests, replace=False)]
    rate = spec.rho * spec.slots / float(pool["output_tokens"].mean())
    gaps = np.random.default_rng([seed, STREAMS["arrivals"]]).exponential(1 / rate, len(part))
    columns = {name: part[name].to_numpy(np.float64) for name in part.select_dtypes("number")}
    lengths = part["output_tokens"].to_numpy(np.int64)
    # In steps the prompt length does not matter as long as the prompt fits into one
    requests = Requests(np.cumsum(gaps), np.ones(len(part), np.int64), lengths, columns)
    return part["prompt_hash"].to_numpy(), requests


def _served(
    spec: NaturalRun,
    order: str,
    chosen: np.ndarray,
    requests: Requests,
    predicted: FloatArray | None,
) -> tuple[Completions, dict[str, Any]]:
    """Serve one repetition on vLLM; return also the time stamps in seconds."""
    texts = prompts_of(spec.workload, chosen)
    prompts = Prompts(texts, spec.decoding.as_json(), [0] * len(texts))
    server = server_on(spec.deployment, spec.slots)
    live = engine(spec.deployment)
    done, steps, more = live.serve(
        requests, order, server, predicted, clock="steps", prompts=prompts
    )
    stamps = {"arrived_at": requests.arrived_at} | {name: getattr(done, name) for name in STAMPS}
    columns: dict[str, Any] = {}
    for clock in ("cpu", "wall"):
        to_seconds = _seconds(steps, f"{clock}_seconds")
        columns |= {f"{clock}_{name}": np.float32(to_seconds(at)) for name, at in stamps.items()}
    answers = np.split(more["tokens"], np.cumsum(done.requests.output_tokens)[:-1])
    known = requests.output_tokens.astype(np.int32)
    columns |= {"prompt_hash": chosen, "known_tokens": known}
    return done, columns | {"answer": [digest(each) for each in answers]}


def _seconds(steps: dict[str, np.ndarray], column: str) -> Any:
    """Make a function from steps to seconds; idle time takes none."""
    known = np.stack([steps["started_at"], steps["ended_at"]], axis=1).ravel()
    ends = np.cumsum(steps[column])
    seconds = np.stack([ends - steps[column], ends], axis=1).ravel()
    return lambda at: np.interp(at, known, seconds)
