"""What a data set holds, in numbers: rows, lengths, splits of texts, arrivals of traces."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError, unknown
from ssjf.request import FloatArray, IntArray, Requests
from ssjf.workload import datasets
from ssjf.workload.catalogue import DATASETS, TEXTS
from ssjf.workload.splits import SPLITS
from ssjf.workload.tables import TEXT_SUFFIXES, open_table
from ssjf.workload.texts import Texts, load_texts
from ssjf.workload.traces import load_trace

QUANTILES = {"p1": 0.01, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99,
             "max": 1.0}  # fmt: skip


def describe(name_or_file: str, **reading: str | None) -> dict[str, Any]:
    """The numbers of a data set by name, or of a file of texts or a trace.

    ``reading`` are the options of load_texts: tokenizer, label, format. A file with a column
    ``arrived_at`` is a trace. Raises InputError for what is neither a known name nor a file.
    """
    trace = name_or_file in DATASETS or (
        name_or_file not in TEXTS and _is_trace(Path(name_or_file))
    )
    if not trace:
        return describe_texts(load_texts(name_or_file, **reading))
    if given := [option for option, value in reading.items() if value is not None]:
        raise InputError(f"{name_or_file} holds no texts; leave out {', '.join(given)}")
    if name_or_file in DATASETS:
        return describe_requests(datasets.load(name_or_file))
    return describe_requests(load_trace(name_or_file))


def describe_texts(texts: Texts) -> dict[str, Any]:
    """Rows, distinct prompts (with their history), turns, models, and by split the lengths."""
    splits = texts.splits()
    return {
        "kind": "texts",
        "rows": len(texts),
        "distinct_prompts": len(texts.distinct()),
        "splits": {name: int((splits == name).sum()) for name in SPLITS},
        "turns": {"first": int((texts.turn == 1).sum()), "later": int((texts.turn > 1).sum()),
                  "most": int(texts.turn.max(initial=0))},
        "models": dict(Counter(texts.model or []).most_common()),
        "extra": sorted(texts.extra),
        "output_tokens": {"all": quantiles(texts.output_tokens)}
        | {name: quantiles(texts.output_tokens[splits == name]) for name in SPLITS},
    }  # fmt: skip


def describe_requests(requests: Requests) -> dict[str, Any]:
    """Rows, lengths and arrivals: span (s), rate (1/s), coefficient of variation of the gaps."""
    prompts = requests.prompt_tokens
    return {
        "kind": "requests",
        "rows": len(requests),
        "arrivals": _arrivals(requests.arrived_at),
        # Data without its prompts says 1 for every one, which is no length.
        "prompt_tokens": quantiles(prompts) if prompts.max() > 1 else None,
        "output_tokens": {"all": quantiles(requests.output_tokens)},
        "predictions": sorted(requests.predictions),
    }


def quantiles(lengths: IntArray) -> dict[str, int]:
    """p1 … max, each a length that occurs; nothing where there are no lengths."""
    if not len(lengths):
        return {}
    values = np.quantile(lengths, [*QUANTILES.values()], method="inverted_cdf")
    return dict(zip(QUANTILES, values.tolist(), strict=True))


def _arrivals(arrived_at: FloatArray) -> dict[str, float] | None:
    """None where the data has no times: all arrive at once."""
    span = float(np.ptp(arrived_at))
    if not span:
        return None
    gaps = np.diff(arrived_at)
    cv = float(gaps.std() / gaps.mean())
    return {"span_s": span, "rate_per_s": len(gaps) / span, "gap_cv": cv}


def _is_trace(path: Path) -> bool:
    if path.suffix.lower() not in TEXT_SUFFIXES and not path.exists():
        raise unknown("data set", str(path), [*TEXTS, *DATASETS])
    return "arrived_at" in open_table(path)[0]
