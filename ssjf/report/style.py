"""One look for every figure: text legible in print, and one fixed appearance per policy.

The first colours are Okabe and Ito's, which colour-blind readers can distinguish; marker and line
style differ as well, so that figures can be printed in black and white.
"""

import zlib
from typing import Any

import matplotlib as mpl
import pandas as pd

RC: dict[Any, Any] = {
    "figure.figsize": (6.4, 3.6),
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "savefig.facecolor": "white",
    "svg.hashsalt": "ssjf",
    "pdf.fonttype": 42,
}

# policy: colour, marker, line style, label
_LOOKS = {
    "fcfs": ("#0072B2", "o", "-", "FCFS"),
    "sjf": ("#000000", "s", "--", "SJF (oracle)"),
    "ssjf": ("#D55E00", "^", "-", "SSJF"),
    "ssjf-cls3": ("#E69F00", "v", "-.", "SSJF (3-class)"),
    "ssjf-cls5": ("#CC79A7", "D", ":", "SSJF (5-class)"),
    "hrrn": ("#009E73", "P", "--", "HRRN"),
    "ssjf-aged": ("#56B4E9", "X", "-.", "SSJF, aged"),
    "ssjf-bounded": ("#999999", "d", "-", "SSJF, bounded"),
    "ssjf-light": ("#332288", "p", "-", "SSJF (light proxy)"),
    "ssjf-light-aged": ("#882255", ">", "-.", "SSJF (light proxy), aged"),
    "ssjf-own": ("#117744", "h", "-", "SSJF (light, its own lengths)"),
    "ssjf-encoder": ("#AA4499", "D", "-.", "SSJF (MiniLM, its own lengths)"),
    "headstart": ("#004488", "o", "-", "HEADSTART (ours)"),
    "headroom": ("#117788", "^", "-", "HEADROOM (ours)"),
    "due": ("#BB5566", "D", "--", "DUE (ours)"),
    "tuner-static": ("#DDAA33", "*", "-", "contract tuner (ours)"),
    "gamma-boost": ("#999933", "s", ":", "γ-boost"),
    "tie": ("#228833", "v", "-.", "TIE's wait decay"),
    "clairvoyant": ("#BB2299", "<", ":", "after Clairvoyant"),
    "ltr": ("#EE8866", ">", "-.", "after LTR"),
    "trail": ("#663333", "P", "--", "TRAIL, limit 0.8"),
    "trail:0.2": ("#AA5544", "X", ":", "TRAIL, limit 0.2"),
    "trail-first": ("#996666", "P", ":", "TRAIL as SGLang reads it"),
    "ssjf-shuffled": ("#99582A", "x", "-", "SSJF (shuffled predictions)"),
    "headstart-shuffled": ("#7788BB", "x", "-", "HEADSTART (shuffled predictions)"),
    "headroom-shuffled": ("#55AABB", "x", "-", "HEADROOM (shuffled predictions)"),
    "tuner-static-shuffled": ("#AA8833", "x", "-", "contract tuner (shuffled predictions)"),
    "orca": ("#BBAA22", "v", ":", "ORCA-like (reserves the maximum)"),
    "orca-true": ("#7A6A00", "^", "-.", "ORCA, true lengths"),
    "alise": ("#EE3377", "H", "-", "ALISE (ours)"),
    "srpt": ("#555555", "8", ":", "SRPT (oracle), swapping"),
    "classes": ("#117733", "<", "-", "SSJF (true class)"),
    "shuffled": ("#661100", "x", "-", "SSJF (shuffled lengths)"),
    "tau": ("#AA3377", "*", "-", "SSJF (length with noise, by τ)"),
    "noise": ("#4477AA", "h", "--", "SSJF (length with noise, by σ)"),
}
# FCFS as a system of its own: the policy's look, another label
_LABELS = {"vllm": ("fcfs", "vLLM (FCFS, recompute)")}
# Proxies are labelled beside their points as well: colour, marker, label
_PROXIES = {
    "constant": ("#BBBBBB", "o", "constant"),
    "prompt-length": ("#88CCEE", "s", "prompt length"),
    "tfidf-ridge": ("#44AA99", "^", "TF-IDF + ridge"),
    "light": ("#332288", "p", "light"),
    "encoder-frozen": ("#DDAADD", "v", "MiniLM, frozen"),
    "encoder": ("#AA4499", "D", "MiniLM, tuned"),
    "retrieval": ("#999933", "P", "retrieval, MiniLM"),
    "retrieval-tuned": ("#6B4C1E", "X", "retrieval, tuned MiniLM"),
    "shipped": ("#CC3311", "h", "light proxy trained on Vicuna's lengths"),
    "shipped-mixture": ("#EE7733", "H", "the shipped proxy, of a mixture"),
    "refit-20": ("#99DDFF", "8", "shipped, refitted to 20 answers"),
    "refit-100": ("#77AADD", "x", "shipped, refitted to 100 answers"),
    "refit-1000": ("#225588", "+", "shipped, refitted to 1,000 answers"),
    "vicuna-length": ("#CC6677", "<", "Vicuna's answer to the same prompt"),
    "greedy-answer": ("#DDCC77", ">", "its greedy answer"),
    "second-draw": ("#777777", "d", "a second answer"),
    "other-draws": ("#222222", "*", "mean of three more answers"),
}
_HEAD = ("#CC6677", "h")  # heads of one encoder share a look and differ by label

# For policies without a fixed look: dark enough on white, unlike those above.
_SPARE_COLOURS = ("#44AA99", "#6B4C1E", "#7A9A01")
_SPARE_MARKERS = ("<", ">", "p", "h", "*", "8")
_SPARE_LINES = ("-", "--", "-.", ":")
_DASHES = {"-": "", "--": (3.7, 1.6), "-.": (6.4, 1.6, 1, 1.6), ":": (1, 1.65)}  # as seaborn has it


def look(series: str) -> dict[str, str]:
    """Colour, marker, linestyle and label of a series, as keywords for ``Axes.plot``.

    A series is a policy, a proxy (``proxy:NAME`` or its name) or a head of one (``head:NAME``).
    All values of a policy with a value (``ssjf-aged:5``, ``tau:0.3``) look alike. A series
    without a fixed look gets one that depends on its name alone.
    """
    kind, _, name = series.partition(":")
    if series in _LABELS:
        other, label = _LABELS[series]
        return look(other) | {"label": label}
    if kind == "head":
        colour, marker, line, label = *_HEAD, "-", name
    elif kind == "proxy" or series in _PROXIES:
        colour, marker, label = _PROXIES.get(name or series, (*_HEAD, name))
        line = "-"
    else:
        colour, marker, line, label = _LOOKS.get(series) or _LOOKS.get(kind) or _spare(series)
    return {"color": colour, "marker": marker, "linestyle": line, "label": label}


def looks(frame: pd.DataFrame, column: str = "policy") -> dict[str, Any]:
    """Hue, style, palette, markers and dashes by the policies named in a column, for seaborn.

    ``sns.lineplot(…, **report.looks(frame))``; names are labels, as ``report.named`` gives them.
    """
    fixed = (*_LOOKS, *_LABELS, *_PROXIES)
    by_label = {look(series)["label"]: look(series) for series in fixed}
    names = frame[column].unique()
    chosen = {name: by_label.get(name) or look(name) for name in names}
    return {
        "hue": column,
        "style": column,
        "palette": {name: each["color"] for name, each in chosen.items()},
        "markers": {name: each["marker"] for name, each in chosen.items()},
        "dashes": {name: _DASHES[each["linestyle"]] for name, each in chosen.items()},
    }


def use() -> None:
    """Set the package's look for all later figures (``report.Notebook`` calls it)."""
    mpl.rcParams.update(RC)


def _spare(policy: str) -> tuple[str, str, str, str]:
    number = zlib.crc32(policy.encode())  # hash() differs from process to process
    number, colour = divmod(number, len(_SPARE_COLOURS))
    number, marker = divmod(number, len(_SPARE_MARKERS))
    line = _SPARE_LINES[number % len(_SPARE_LINES)]
    return _SPARE_COLOURS[colour], _SPARE_MARKERS[marker], line, policy
