"""An interactive queue: choose arrivals, load, slots and a policy, and see which requests wait.

The iteration-level simulator serves synthetic requests; no data is needed.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssjf import scheduler as policies
from ssjf.analysis import metrics
from ssjf.errors import InputError
from ssjf.proxy import predict
from ssjf.report import drawing, style
from ssjf.request import Completions
from ssjf.simulator.profile import profile
from ssjf.simulator.server import Server
from ssjf.simulator.simulate import simulate
from ssjf.workload import synthetic

MOST_REQUESTS = 200  # more bars cannot be distinguished
PROFILE = "ssjf-paper"
TOKEN_BUDGET = 1_000_000  # no limit: the profile's prefill costs nothing
SHOWN = {
    "jct_mean": "mean JCT (s)",
    "jct_p99": "p99 JCT (s)",
    "jct_max": "largest JCT (s)",
    "slowdown_mean": "mean slowdown",
    "queue_depth_mean": "mean queue depth",
}


CONTROLS: dict[str, tuple[Any, ...]] = {  # text, and lowest, highest, step, or the choices
    "process": ("arrivals", synthetic.PROCESSES),
    "cv": ("CV of gaps", 0.5, 6.0, 0.5),
    "rho": ("load ρ", 0.1, 1.5, 0.05),
    "slots": ("slots", 1, 16, 1),
    "policy": ("policy", policies.known_policies()),
    "noise": ("noise σ", 0.0, 3.0, 0.1),
    "seed": ("seed", 0, 50, 1),
    "requests": ("requests", 10, MOST_REQUESTS, 10),
    "follow": ("follow", 0, MOST_REQUESTS - 1, 1),
}


class Played(NamedTuple):
    """One workload served by FCFS and by a policy, with metrics and the request to follow."""

    policy: str
    runs: Mapping[str, Completions]
    measured: dict[str, dict[str, float]]
    follow: int


def play(
    process: str = "poisson",
    cv: float = 1.0,
    rho: float = 0.9,
    slots: int = 2,
    policy: str = "ssjf",
    noise: float = 0.5,
    seed: int = 0,
    requests: int = 80,
    follow: int = 0,
) -> Played:
    """Serve ``requests`` (at most 200) at utilisation ``rho`` by FCFS and by a policy.

    ``cv`` is the coefficient of variation of Gamma gaps; predictions are the true lengths
    times exp(``noise`` z), z standard normal; ``follow`` is the request to highlight, counted from
    0 by arrival (at most the last one). Raises InputError for values out of range.
    """
    if not 1 <= requests <= MOST_REQUESTS:
        raise InputError(f"requests is {requests}; it must be from 1 to {MOST_REQUESTS}")
    if follow < 0:
        raise InputError(f"follow is {follow}; it must be 0 or more")
    rng = np.random.default_rng(seed)
    drawn = synthetic.requests(requests, rng)
    model, server = profile(PROFILE), Server(slots=slots, token_budget=TOKEN_BUDGET)
    alone = model.alone_seconds(drawn.prompt_tokens, drawn.output_tokens)
    rate = synthetic.rate_for(rho, float(alone.mean()), slots)
    drawn = drawn.arriving(synthetic.arrivals(process, requests, rate, rng, cv))
    predicted = predict(f"noise:{noise}", drawn, rng)
    runs = {
        name: simulate(drawn, policies.policy(name), model, server, predicted)
        for name in ("fcfs", policy)
    }
    measured = {name: metrics.summarise(run, alone) for name, run in runs.items()}
    return Played(policy, runs, measured, min(follow, requests - 1))


def summary(played: Played) -> str:
    """One line: mean and p99 JCT and queue depth of the policy, and its gain over FCFS."""
    ours, fcfs = played.measured[played.policy], played.measured["fcfs"]
    gain = 100 * (1 - ours["jct_mean"] / fcfs["jct_mean"])
    return (
        f"{style.look(played.policy)['label']} (FCFS): "
        f"mean JCT {ours['jct_mean']:.1f} s ({fcfs['jct_mean']:.1f} s), gain {gain:.1f} %; "
        f"p99 JCT {ours['jct_p99']:.1f} s ({fcfs['jct_p99']:.1f} s); "
        f"mean queue depth {ours['queue_depth_mean']:.1f} ({fcfs['queue_depth_mean']:.1f})"
    )


def table(**scene: Any) -> pd.DataFrame:
    """Run ``play`` and tabulate FCFS and the policy: JCT (s), slowdown, queue depth."""
    measured = pd.DataFrame.from_dict(play(**scene).measured, "index")[list(SHOWN)]
    named = measured.rename(columns=SHOWN, index=lambda name: style.look(name)["label"])
    return named.rename_axis("policy").reset_index()


def draw(**scene: Any) -> Figure:
    """Run ``play`` and draw a Gantt chart per policy and the distributions of the JCT."""
    return _picture(play(**scene))


def _picture(played: Played) -> Figure:
    """Draw without pyplot, so that a notebook shows the figure once, where it is returned."""
    fig = Figure(figsize=(drawing.WIDTH_INCHES, 5.6), layout="constrained")
    axes = fig.subplot_mosaic([[*played.runs], ["shares", "bars"]])
    for place, (name, run) in enumerate(played.runs.items()):
        look = style.look(name)
        jct = run.finished_at - run.requests.arrived_at
        _gantt(axes[name], run, played.follow, look)
        axes[name].sharex(axes["fcfs"])
        line = {"color": look["color"], "linestyle": look["linestyle"]}
        axes["shares"].ecdf(jct, **line, label=look["label"])
        heights = [played.measured[name][metric] for metric in ("jct_mean", "jct_p99")]
        at = np.arange(2) + (place - (len(played.runs) - 1) / 2) * 0.4
        bars = axes["bars"].bar(at, heights, width=0.38, color=look["color"])
        axes["bars"].bar_label(bars, fmt="{:.1f}", fontsize=8)
    axes["fcfs"].set_ylabel("request, by arrival")
    axes["shares"].set(xlabel="JCT (s)", ylabel="share of requests\nfinished within")
    axes["shares"].set(xlim=(0, None), ylim=(0, 1.02))
    axes["shares"].legend(loc="lower right")
    axes["bars"].set(ylabel="JCT (s)", ymargin=0.12)
    axes["bars"].set_xticks([0, 1], ["mean", "p99"])
    axes["bars"].grid(visible=False, axis="x")
    fig.suptitle(summary(played), fontsize=9)
    return fig


def _gantt(ax: Axes, run: Completions, follow: int, look: dict[str, str]) -> None:
    """Draw all requests and highlight one, with its length and JCT."""
    arrived, finished = run.requests.arrived_at, run.finished_at
    drawing.gantt(ax, arrived, run.scheduled_at, finished, look["color"])
    ends = arrived[follow], run.scheduled_at[follow], finished[follow]
    ax.plot(ends, [follow] * 3, color="#CC0000", lw=1, marker="|", ms=9, zorder=5)
    tokens = run.requests.output_tokens[follow]
    words = f"request {follow}: {tokens} tokens, JCT {ends[2] - ends[0]:.1f} s"
    ax.set(title=look["label"], xlabel="time (s)")
    ax.text(0.98, 0.97, words, color="#CC0000", fontsize=8, ha="right", va="top",
            transform=ax.transAxes)  # fmt: skip


def explore(**scene: Any) -> Any:
    """Show sliders and a picture that follows them, in a notebook (needs ipywidgets).

    ``scene`` holds the first values of parameters of ``play``.
    """
    import ipywidgets as widgets

    start = inspect.signature(play).bind(**scene)
    start.apply_defaults()
    controls: dict[str, Any] = {}
    for name, value in start.arguments.items():
        text, *limits = CONTROLS[name]
        given = {"value": value, "description": text}
        if isinstance(limits[0], tuple):
            controls[name] = widgets.Dropdown(options=limits[0], **given)
        else:
            kind = widgets.IntSlider if isinstance(limits[2], int) else widgets.FloatSlider
            span = dict(zip(("min", "max", "step"), limits, strict=True))
            controls[name] = kind(**given, **span, continuous_update=False)
    shown = widgets.interactive_output(_show, controls)
    layout = widgets.Layout(grid_template_columns="repeat(2, 340px)")
    return widgets.VBox([widgets.GridBox(list(controls.values()), layout=layout), shown])


def _show(**scene: Any) -> None:
    from IPython.display import display

    played = play(**scene)
    print(summary(played))
    display(_picture(played))
