"""A queue to play with: pick arrivals, load, slots and a policy, and see who waits for whom.

All is served by the iteration-level simulator from synthetic lengths; no data is needed.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
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

MOST_REQUESTS = 200  # more bars than that cannot be told apart
PROFILE = "ssjf-paper"
TOKEN_BUDGET = 1_000_000  # no limit: the profile's prefill costs nothing
SHOWN = {
    "jct_mean": "mean JCT (s)",
    "jct_p99": "p99 JCT (s)",
    "jct_max": "largest JCT (s)",
    "slowdown_mean": "mean slowdown",
    "queue_depth_mean": "mean queue depth",
}


class Played(NamedTuple):
    """One workload served twice, by FCFS and by the policy chosen; metrics of either."""

    policy: str
    runs: Mapping[str, Completions]
    measured: dict[str, dict[str, float]]


def play(
    process: str = "poisson",
    cv: float = 1.0,
    rho: float = 0.9,
    slots: int = 2,
    policy: str = "ssjf",
    noise: float = 0.5,
    seed: int = 0,
    requests: int = 80,
) -> Played:
    """Serve ``requests`` (at most 200) at utilisation ``rho`` by FCFS and by a policy.

    ``cv`` is the coefficient of variation of Gamma gaps; predictions are the true lengths
    times exp(``noise`` z), z standard normal. Raises InputError for what is out of range.
    """
    if not 1 <= requests <= MOST_REQUESTS:
        raise InputError(f"requests is {requests}; it must be from 1 to {MOST_REQUESTS}")
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
    return Played(policy, runs, {n: metrics.summarise(run, alone) for n, run in runs.items()})


def summary(played: Played) -> str:
    """Mean and p99 JCT and queue depth of the policy, and its gain over FCFS, in one line."""
    ours, fcfs = played.measured[played.policy], played.measured["fcfs"]
    gain = 100 * (1 - ours["jct_mean"] / fcfs["jct_mean"])
    return (
        f"{style.look(played.policy)['label']} (FCFS): "
        f"mean JCT {ours['jct_mean']:.1f} s ({fcfs['jct_mean']:.1f} s), gain {gain:.1f} %; "
        f"p99 JCT {ours['jct_p99']:.1f} s ({fcfs['jct_p99']:.1f} s); "
        f"mean queue depth {ours['queue_depth_mean']:.1f} ({fcfs['queue_depth_mean']:.1f})"
    )


def table(**scene: Any) -> pd.DataFrame:
    """``play`` in numbers: FCFS and the policy in rows; JCT (s), slowdown and queue depth."""
    measured = pd.DataFrame.from_dict(play(**scene).measured, "index")[list(SHOWN)]
    named = measured.rename(columns=SHOWN, index=lambda name: style.look(name)["label"])
    return named.rename_axis("policy").reset_index()


def draw(**scene: Any) -> Figure:
    """``play`` as a picture: a Gantt chart per policy and the JCTs' distributions."""
    return _picture(play(**scene))


def _picture(played: Played) -> Figure:
    """Not pyplot's figure: a notebook shows it once, where it is named."""
    fig = Figure(figsize=(drawing.WIDTH_INCHES, 5.4), layout="constrained")
    axes = fig.subplot_mosaic([[*played.runs], ["shares", "shares"]])
    shares = axes["shares"]
    for name, run in played.runs.items():
        look, arrived = style.look(name), run.requests.arrived_at
        drawing.gantt(axes[name], arrived, run.scheduled_at, run.finished_at, look["color"])
        axes[name].set(title=look["label"], xlabel="time (s)")
        axes[name].sharex(axes["fcfs"])
        line = {"color": look["color"], "linestyle": look["linestyle"], "label": look["label"]}
        shares.ecdf(run.finished_at - arrived, **line)
    axes["fcfs"].set_ylabel("request, by arrival")
    shares.set(xlabel="JCT (s)", ylabel="share of requests\nfinished within")
    shares.set(xlim=(0, None), ylim=(0, 1.02))
    shares.legend(loc="lower right")
    fig.suptitle(summary(played), fontsize=9)
    return fig


def explore(**scene: Any) -> Any:
    """Controls and a picture that follows them, for a notebook (needs ipywidgets).

    ``scene`` holds parameters of ``play`` to begin with.
    """
    import ipywidgets as widgets

    start = inspect.signature(play).bind(**scene)
    start.apply_defaults()
    controls = _controls(widgets, start.arguments)
    shown = widgets.interactive_output(_show, controls)
    layout = widgets.Layout(grid_template_columns="repeat(2, 340px)")
    return widgets.VBox([widgets.GridBox(list(controls.values()), layout=layout), shown])


def _show(**scene: Any) -> None:
    from IPython.display import display

    played = play(**scene)
    print(summary(played))
    display(_picture(played))


def _controls(widgets: Any, start: dict[str, Any]) -> dict[str, Any]:
    sliders = {  # lowest, highest, step, text
        "cv": (0.5, 6.0, 0.5, "CV of gaps"),
        "rho": (0.1, 1.5, 0.05, "load ρ"),
        "slots": (1, 16, 1, "slots"),
        "noise": (0.0, 3.0, 0.1, "noise σ"),
        "seed": (0, 50, 1, "seed"),
        "requests": (10, MOST_REQUESTS, 10, "requests"),
    }
    choices = {
        "process": (synthetic.PROCESSES, "arrivals"),
        "policy": (policies.known_policies(), "policy"),
    }
    made = {name: _slider(widgets, start[name], *slider) for name, slider in sliders.items()}
    for name, (options, text) in choices.items():
        made[name] = widgets.Dropdown(options=options, value=start[name], description=text)
    return {name: made[name] for name in start}


def _slider(widgets: Any, value: float, low: float, high: float, step: float, text: str) -> Any:
    kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return kind(
        value=value, min=low, max=high, step=step, description=text, continuous_update=False
    )
