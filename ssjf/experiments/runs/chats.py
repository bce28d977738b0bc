"""Chats with a real model over HTTP: one server, asked in turn in FCFS, SSJF and SJF order.

`ssjf serve` trusts the client's priority here, so that the order is a header and nothing else
differs: two servers on one machine differ more in speed than two orders.
"""

import atexit
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ssjf.errors import InputError
from ssjf.experiments.draws import draw
from ssjf.experiments.runs import server
from ssjf.experiments.runs.answers import prompts_of
from ssjf.experiments.runs.steady import STREAMS
from ssjf.experiments.specs import ChatRun
from ssjf.harness.bench_client import counters
from ssjf.harness.chat_client import chats
from ssjf.harness.deployment import Deployment, deployment
from ssjf.harness.server import LiveServer
from ssjf.serving.options import ServeOptions

_ASKS = (
    "What is the capital city of {}?", "Name three people who are known for {}.",
    "Did the Romans know {}? Answer yes or no.", "Translate '{}' into French.",
    "Define {} in one sentence.", "Give a synonym for {}.",
    "Write a haiku about {}.", "List ten facts about {}.",
    "Explain {} to a child.", "Summarise the history of {} in a paragraph.",
    "Write a detailed essay about {}, with an introduction and a conclusion.",
    "Write a short story about {}.",
    "Compare {} with what came before it, and say who gained from the change.",
    "Write an email to a colleague who asks for advice about {}.",
    "Write a Python program about {}, and explain how it works.",
    "Plan a lesson of one hour about {}, minute by minute.",
)  # fmt: skip
_SUBJECTS = (
    "bread", "the bicycle", "chess", "the moon", "opera", "vaccines", "tea", "lighthouses",
    "money", "bees", "railways", "the violin", "glass", "the calendar", "maps", "football",
)  # fmt: skip
WARMING = {"most_tokens": 16, "temperature": 0.0, "repetition_penalty": 1.0}
PURE = ServeOptions(policy="ssjf", learn="none", client_priority="trust")
"""Options of `ssjf serve` for comparing orders: by prediction alone, without learning."""


def rows(spec: ChatRun) -> pd.DataFrame:
    """Make a row per chat: see ``chat_client.chats``; x is the number of users, 0 for a burst."""
    workload = spec.workload
    pool = draw(workload.pool.as_json())
    rng = np.random.default_rng([spec.seed, STREAMS["lengths"]])
    chosen = pool.iloc[rng.choice(len(pool), workload.requests, replace=False)]
    prompts = prompts_of(workload, chosen["prompt_hash"])
    known = chosen["output_tokens"].to_numpy(np.int64)
    priorities = {"fcfs": np.zeros(len(known), np.int64), "sjf": known, "ssjf": None}[spec.order]
    live = _live(spec.deployment, spec.slots)
    before = counters(live)
    table = chats(live, prompts, spec.decoding.as_json(), priorities, workload.users)
    predicted = counters(live)["predictions_total"] - before["predictions_total"]
    table = table.assign(
        prompt_hash=chosen["prompt_hash"].to_numpy(), x=np.float32(workload.users or 0),
        seed=np.int32(spec.seed), run=np.int32(0), known_tokens=known.astype(np.int32),
        predicted=np.float32(predicted),
    )  # fmt: skip
    table.attrs["environment"] = server.environment_of(deployment(spec.deployment))
    return table


@cache
def _live(deployment_name: str, slots: int) -> LiveServer:
    live = serving(deployment(deployment_name), slots)
    atexit.register(live.close)
    return live


def serving(
    has: Deployment, slots: int, tell: Callable[[str], None] = lambda words: None
) -> LiveServer:
    """Start and warm up `ssjf serve` with a deployment's real model, ordering by prediction alone.

    ``tell`` receives progress messages. InputError if the deployment has no real model.
    """
    if has.model is None:
        raise InputError(f"deployment {has.name} has no real model")
    live = server.live_server(has, slots, PURE)
    tell(f"starting ssjf serve {live.model}")
    live.start()
    try:
        # The first answers include one-time costs of the server
        chats(live, ["Name three colours."] * 2 * slots, WARMING, words="warming up")
    except BaseException:
        live.close()
        raise
    return live


def made_up_prompts() -> list[str]:
    """Synthetic prompts: instructions for short and for long answers."""
    return [ask.format(subject) for ask, subject in product(_ASKS, _SUBJECTS)]


def chosen_prompts(known: list[str] | None, n: int, seed: int) -> list[str]:
    """Draw n different prompts of those given, or of synthetic ones; InputError if there are fewer,
    or if one is empty."""
    known = made_up_prompts() if known is None else [*dict.fromkeys(known)]
    if empty := [i for i, prompt in enumerate(known) if not prompt.strip()]:
        raise InputError(f"prompt {empty[0] + 1} is empty")
    if n > len(known):
        raise InputError(f"{n} requests are asked for; there are {len(known)} different prompts")
    rng = np.random.default_rng([seed, STREAMS["lengths"]])
    return [known[i] for i in rng.choice(len(known), n, replace=False)]


def demo_deployment(model: str) -> Deployment:
    """The deployment of `ssjf demo`: a known model, or the user's model folder."""
    has = deployment("cpu-smollm2")
    if model == has.model:
        return has
    if not (Path(model) / "config.json").is_file():
        raise InputError(f"model {model!r} is neither smollm2 nor a folder with a config.json")
    return has.replace(model=model)
