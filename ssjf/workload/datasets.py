"""Named data sets, of requests and of texts: how to get them, and what they hold in numbers."""

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError, unknown
from ssjf.files import cache_folder, sha256
from ssjf.request import FloatArray, IntArray, Requests
from ssjf.workload.catalogue import (
    DATASETS,
    TEXTS,
    Source,
    check,
    check_all,
    find,
    find_form,
    known,
    search,
)
from ssjf.workload.tables import TEXT_SUFFIXES, open_table
from ssjf.workload.texts import SPLITS, Texts, load_texts
from ssjf.workload.traces import load_trace

TIMEOUT_SECONDS = 30
QUANTILES = {"p1": 0.01, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99,
             "max": 1.0}  # fmt: skip


def load(name: str) -> Requests:
    """The requests of a data set, its files checked against their known checksums."""
    if name in TEXTS:
        raise InputError(f"data set {name} holds texts, no requests; read it with load_texts")
    form, paths = find_form(name)
    check_all(name, form, paths)
    assert form.loader is not None  # requests have one
    return form.loader(*paths)


def get(name: str, force: bool = False) -> list[Path]:
    """Download a data set into the cache, where it is not there yet or by ``force``.

    Of texts without one published file it is where they are, or InputError says how to get them.
    """
    dataset = known(name)
    if dataset.downloads:
        return [_fetch(name, source, force) for source in dataset.downloads]
    if force:
        raise InputError(f"text data set {name} has no file to download; {dataset.how}")
    return find(name)


def _fetch(name: str, source: Source, force: bool) -> Path:
    target = cache_folder() / source.name
    if force or not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:
                os.replace(_download(source, Path(folder), target), target)
        except OSError as error:
            raise InputError(f"cannot write {target} ({error.strerror})") from None
    check(name, target, source.sha256)
    return target


def _download(source: Source, folder: Path, target: Path) -> Path:
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("ERROR")
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS, progressbar=sys.stderr.isatty())
    try:
        path = Path(pooch.retrieve(source.url, None, source.name, folder, downloader=downloader))
    except RequestException as error:
        raise InputError(
            f"cannot download {source.url} ({error}); "
            f"put the file by hand into {target.parent} as {source.name}"
        ) from None
    received = sha256(path)
    if source.sha256 not in (None, received):
        raise InputError(
            f"{source.url} gave a file with sha256 {received}, which must be {source.sha256}; "
            f"nothing was kept"
        )
    return path


def describe_all() -> list[dict[str, object]]:
    """One record per data set: name, kind, licence, note, path (None if not here) and url."""
    records = []
    for each in (*DATASETS.values(), *TEXTS.values()):
        here = search(each)
        record = {key: getattr(each, key) for key in ("name", "kind", "licence", "note")}
        records.append(record | {"path": here[1][0] if here else None, "url": each.url})
    return records


def describe(name_or_file: str, **reading: str | None) -> dict[str, Any]:
    """The numbers of a data set by name, or of a file of texts or a trace.

    ``reading`` are the options of load_texts: tokenizer, label, format. A file with a column
    ``arrived_at`` is a trace. Raises InputError for what is neither a known name nor a file.
    """
    if name_or_file in TEXTS or not (name_or_file in DATASETS or _is_trace(Path(name_or_file))):
        return _describe_texts(load_texts(name_or_file, **reading))
    if given := [option for option, value in reading.items() if value is not None]:
        raise InputError(f"{name_or_file} holds no texts; leave out {', '.join(given)}")
    read = load if name_or_file in DATASETS else load_trace
    return _describe_requests(read(name_or_file))


def _is_trace(path: Path) -> bool:
    if path.suffix.lower() not in TEXT_SUFFIXES and not path.exists():
        raise unknown("data set", str(path), [*TEXTS, *DATASETS])
    return "arrived_at" in open_table(path)[0]


def _describe_texts(texts: Texts) -> dict[str, Any]:
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


def _describe_requests(requests: Requests) -> dict[str, Any]:
    """Rows, lengths and arrivals: span (s), rate (1/s), coefficient of variation of the gaps."""
    prompts = requests.prompt_tokens
    return {
        "kind": "requests",
        "rows": len(requests),
        "arrivals": _arrivals(requests.arrived_at),
        # Data without its prompts has 1 for every one, which is no length.
        "prompt_tokens": quantiles(prompts) if prompts.max() > 1 else None,
        "output_tokens": {"all": quantiles(requests.output_tokens)},
        "predictions": sorted(requests.predictions),
    }


def _arrivals(arrived_at: FloatArray) -> dict[str, float] | None:
    """None where the data has no times: all arrive at once."""
    span = float(np.ptp(arrived_at))
    if not span:
        return None
    gaps = np.diff(arrived_at)
    return {
        "span_s": span,
        "rate_per_s": len(gaps) / span,
        "gap_cv": float(gaps.std() / gaps.mean()),
    }


def quantiles(lengths: IntArray) -> dict[str, int]:
    """p1 … max, each a length that occurs; nothing where there are no lengths."""
    if not len(lengths):
        return {}
    values = np.quantile(lengths, [*QUANTILES.values()], method="inverted_cdf")
    return dict(zip(QUANTILES, values.tolist(), strict=True))
