"""``ssjf demo``: a real model served first come, first served, and then the shortest first."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # it takes long to import
    import pandas as pd

SLOTS, ROWS = 4, 40
DECODING = {"most_tokens": 192, "temperature": 0.0, "repetition_penalty": 1.1}
METRICS = {"jct_mean": "mean JCT (s)", "jct_p99": "p99 (s)", "jct_max": "max (s)",
           "ttft_mean": "mean TTFT (s)"}  # fmt: skip


@click.command()
@click.option("--out", type=click.Path(path_type=Path),
              help="Folder of what it makes.  [default: results/scratch/demo]")  # fmt: skip
@click.option("--requests", default=ROWS, show_default=True, type=click.IntRange(4, 200))
@click.option("--prompts", "source", metavar="FILE",
              help="A file with a column prompt, instead of made-up ones.")  # fmt: skip
@click.option("--model", default="smollm2", show_default=True, help="smollm2, or a model's folder.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def demo(out: Path | None, requests: int, source: str | None, model: str, seed: int) -> None:
    """See it work: real prompts, a real model, FCFS against the shortest first.

    Gets the model (93 MB), serves it with `ssjf serve` on this machine, sends the same prompts at
    once in both orders, and draws who waited for whom. Needs `make vllm`; takes minutes.
    """
    import pandas as pd

    from ssjf.cli.proxy import read_prompts
    from ssjf.experiments import paths
    from ssjf.experiments.runs.chats import chosen_prompts, demo_deployment, serving
    from ssjf.harness.chat_client import chats

    prompts = chosen_prompts(None if source is None else read_prompts(source), requests, seed)
    parts = []
    with closing(serving(demo_deployment(model), SLOTS, click.echo)) as server:
        for policy, priorities in (("fcfs", [0] * requests), ("ssjf", None)):
            part = chats(server, prompts, DECODING, priorities, words=policy)
            parts.append(part.assign(policy=policy))
    rows = pd.concat(parts, ignore_index=True)
    out = out or paths.results() / "scratch" / "demo"
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "requests.csv", index=False)
    _draw(rows, out / "gantt.png")
    table = summary(rows)
    click.echo(table.to_string())
    click.echo(sentence(table, rows))
    click.echo(f"{out / 'gantt.png'} shows it; {out / 'requests.csv'} has every request")


def summary(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return a row per policy: JCT and TTFT (s), tokens, makespan (s)."""
    from ssjf.analysis.answers import per_run

    table = per_run(rows.assign(series=rows["policy"], seed=0, run=0), []).set_index("series")
    by_policy = rows.groupby("policy")
    return table[[*METRICS]].rename(columns=METRICS).assign(**{
        "tokens": by_policy["output_tokens"].sum(), "makespan (s)": by_policy["finished_at"].max(),
    }).round(2)  # fmt: skip


def sentence(table: "pd.DataFrame", rows: "pd.DataFrame") -> str:
    """Describe the gain by JCT over makespan, so that the machine's changing speed cancels out."""
    shares = table["mean JCT (s)"] / table["makespan (s)"]
    change = 100 * (shares["ssjf"] / shares["fcfs"] - 1)
    answers = [part["answer"].tolist() for _, part in rows.groupby("policy", sort=False)]
    same = sum(one == other for one, other in zip(*answers, strict=True))
    return (f"The shortest first: mean JCT {change:+.0f} % at equal speed (one burst); "
            f"{same} of {len(answers[0])} answers word for word the same.")  # fmt: skip


def _draw(rows: "pd.DataFrame", path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    from ssjf.report import drawing, style

    style.use()
    orders = [*rows.groupby("policy", sort=False)]
    fig, axes = plt.subplots(1, len(orders), figsize=(9, 4), sharex=True, sharey=True)
    for ax, (policy, part) in zip(axes, orders, strict=True):
        color = style.look(str(policy))["color"]
        drawing.gantt(ax, part["arrived_at"], part["scheduled_at"], part["finished_at"], color)
        jct = (part["finished_at"] - part["arrived_at"]).mean()
        ax.set(title=f"{str(policy).upper()}: mean JCT {jct:.1f} s", xlabel="time (s)")
    axes[0].set(ylabel="request, in order of arrival")
    fig.savefig(path, dpi=160, bbox_inches="tight")
