"""Models on devices, by arithmetic: what ALISE's experiments are simulated on."""

import pandas as pd

from ssjf.errors import InputError
from ssjf.simulator.shapes import DEVICES, GIB, SHAPES, deployed


def machines_table() -> pd.DataFrame:
    """A row per model and device on which it fits; where it does not, the columns are empty."""
    return pd.DataFrame([_row(model, on) for on in DEVICES for model in SHAPES])


def _row(model: str, on: str) -> dict[str, object]:
    of, where = SHAPES[model], DEVICES[on]
    row: dict[str, object] = {
        "device": on,
        "model": model,
        "parameters (10⁹)": of.parameters / 1e9,
        "weights (GB)": of.weight_bytes / 1e9,
        "KV per token (kB)": of.kv_bytes_per_token / 1e3,
    }
    try:
        profile, server, memory = deployed(model, on)
    except InputError:
        return row
    return row | {
        "KV memory (tokens)": server.kv_tokens,
        "step, weights read (ms)": 1e3 * profile.step_seconds,
        "step, per 1,000 tokens of context (ms)": 1e6 * profile.per_context_token_seconds,
        "prefill of 1,000 tokens (ms)": 1e6 * profile.per_prefill_token_seconds,
        "link (GB/s)": where.link_bytes_per_second / 1e9,
        "swapping 1,000 tokens, 8 bits (ms)": _swap_ms(memory),
        "host memory (GiB)": memory.host_tokens * of.kv_bytes_per_token / GIB,
    }


def _swap_ms(memory) -> float:
    """Half of the bytes over the link, and the quantisation."""
    half = memory.bytes_per_token / 2 / memory.out_bytes_per_second
    return 1e6 * (half + memory.quantise_seconds_per_token)
