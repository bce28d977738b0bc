"""Quality by data set and by band of length, and what no predictor can pass.

``runs`` are rows per prompt of experiment datasets (column workload) or proxies; ``again`` those
of experiment second-answers.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssjf.analysis.predictions import judged
from ssjf.experiments.draws import draw
from ssjf.report import style
from ssjf.report.plots.common import facets, with_bars
from ssjf.report.plots.heads import POOL
from ssjf.request import PAPER_THRESHOLDS

DATA = {
    "alpaca-davinci": "Alpaca, text-davinci-003",
    "halueval": "HaluEval, gpt-3.5-turbo",
    "codealpaca": "Code Alpaca, text-davinci-003",
    "sharegpt": "ShareGPT, ChatGPT",
    "moss": "MOSS, gpt-3.5-turbo",
}
METRICS = ("spearman", "kendall_tau_b", "pairs_2x", "accuracy", "mae")
RANKS = ("spearman", "kendall_tau_b", "pairs_2x", "accuracy", "within_one_class")
AUTHORS_ROWS = 20_000  # of their 85,482 test rows: the intervals are narrow enough


def datasets_quality(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per data set and proxy: test prompts, and measures with their intervals."""
    parts = []
    for label, title in DATA.items():
        part = runs[runs["workload"] == label]
        table = with_bars(judged(part, metrics=METRICS), METRICS)
        table.insert(0, "data", title)
        table.insert(1, "test prompts", len(part) // part["series"].nunique())
        parts.append(table)
    found = pd.concat(parts, ignore_index=True)
    names = found["series"].map(lambda series: style.proxy_look(series)["label"])
    return found.assign(series=names).rename(columns={"series": "proxy"})


def bands_quality(runs: pd.DataFrame, series: list[str]) -> pd.DataFrame:
    """Per class of true length: share predicted rightly, off by one, and the error in tokens."""
    found = []
    for name in series:
        part = runs[runs["series"] == name]
        for k, rows in part.groupby("true_class"):
            missed = rows["predicted_tokens"] - rows["output_tokens"]
            away = (rows["predicted_class"] - rows["true_class"]).abs()
            found.append(
                {
                    "proxy": style.proxy_look(name)["label"],
                    "class": int(k) + 1,
                    "true lengths (tokens)": f"{rows['output_tokens'].min()} to "
                    f"{rows['output_tokens'].max()}",
                    "n": len(rows),
                    "MAE (tokens)": float(missed.abs().mean()),
                    "mean error (tokens)": float(missed.mean()),
                    "in the right class": float((away == 0).mean()),
                    "within one class": float((away <= 1).mean()),
                }
            )
    return pd.DataFrame(found)


def ceilings(runs: pd.DataFrame) -> pd.DataFrame:
    """What other answers predict, and what the authors' published predictors do on their data."""
    one = runs[runs["series"] == runs["series"].iloc[0]]
    edges = one.groupby("true_class")["output_tokens"].min().to_numpy()[1:]
    draws = [name for name in one if str(name).startswith("draw_")]
    said = {
        "Vicuna-7B: a second answer": one["draw_1"],
        "Vicuna-7B: mean of three more answers": one[draws].mean(axis=1),
    }
    parts = [_as(one, guess, edges, name) for name, guess in said.items()]
    parts += [_authors(column, name) for column, name in AUTHORS.items()]
    return with_bars(judged(pd.concat(parts), metrics=RANKS), RANKS).rename(
        columns={"series": "predictor"}
    )


AUTHORS = {
    "cls5": "the SSJF authors' 5-class BERT (LMSYS-Chat-1M)",
    "cls3": "the SSJF authors' 3-class BERT (LMSYS-Chat-1M)",
}


def _as(rows: pd.DataFrame, guess: pd.Series, edges: np.ndarray, name: str) -> pd.DataFrame:
    classes = np.searchsorted(edges, guess, side="right")
    kept = rows[["conversation", "output_tokens", "true_class"]]
    return kept.assign(series=name, predicted_tokens=guess, predicted_class=classes)


def _authors(column: str, name: str) -> pd.DataFrame:
    """Their class ids, decoded to the mean true length of each."""
    rows = draw(POOL).iloc[:AUTHORS_ROWS]
    thresholds = PAPER_THRESHOLDS if column == "cls5" else PAPER_THRESHOLDS[1::2]
    true = np.searchsorted(thresholds, rows["output_tokens"], side="right")
    means = rows.groupby(column)["output_tokens"].mean()
    return pd.DataFrame(
        {
            "series": name,
            "conversation": np.arange(len(rows)).astype(str),
            "output_tokens": rows["output_tokens"],
            "true_class": true,
            "predicted_class": rows[column],
            "predicted_tokens": rows[column].map(means),
        }
    )


def datasets(runs: pd.DataFrame) -> Figure:
    """Kendall's tau-b of every proxy on every data set."""
    with style.context():
        fig, axes = facets(1, 1, 3.4)
        ax = axes[0, 0]
        for place, series in enumerate(runs["series"].unique()):
            look = style.proxy_look(series)
            for row, label in enumerate(DATA):
                part = runs[(runs["series"] == series) & (runs["workload"] == label)]
                found = judged(part, metrics=["kendall_tau_b"]).iloc[0]
                bars = np.abs([[found["value"] - found["low"]], [found["high"] - found["value"]]])
                ax.errorbar(found["value"], row + 0.12 * (place - 1.5), xerr=bars,
                            color=look["color"], marker=look["marker"], linestyle="none",
                            label=look["label"] if row == 0 else None)  # fmt: skip
        ax.set_yticks(range(len(DATA)), DATA.values())
        ax.invert_yaxis()
        ax.set_xlabel("Kendall's τ-b with the true length, test split")
        fig.legend(loc="outside upper center", ncols=4)
    return fig
