"""The commands of runs, notebooks, claims and the report."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import click

from ssjf.cli.common import print_json, print_table
from ssjf.errors import InputError, unknown

VERDICT = ["claim_id", "unit", "paper_value", "value", "low", "high", "verdict"]


@click.command()
@click.argument("experiment")
@click.option("--jobs", default=2, show_default=True, help="Worker processes.")
@click.option("--seeds", type=int, help="Repeat with so many seeds (default: the experiment's).")
@click.option("--again", is_flag=True, help="Simulate the stored runs again and compare.")
@click.option("--profile", help="Of an experiment on vLLM: cpu-tiny, cpu-mid, gpu-1b, gpu-8b, ….")
@click.option("--ray", is_flag=False, flag_value="", metavar="[ADDRESS]",
              help="On a Ray cluster: $RAY_ADDRESS, or a local one of --jobs cores.")  # fmt: skip
def run(experiment: str, jobs: int, seeds: int | None, again: bool, profile: str | None,
        ray: str | None) -> None:  # fmt: skip
    """Do the missing runs of EXPERIMENT; finished ones are kept.

    `all` is every simulation, `trainings` every training of a proxy, `measurements` every run on
    vLLM.
    """
    from ssjf.experiments import runner

    for name, value in (("jobs", jobs), ("seeds", 1 if seeds is None else seeds)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if again:
        if profile is not None:
            raise InputError("--again simulates; --profile is for runs that are measured")
        if ray is not None:
            raise InputError("--again compares on this machine; --ray is for missing runs")
        different = runner.simulate_again(experiment, jobs, seeds)
        click.echo(f"{experiment}: {len(different)} runs differ from the stored ones")
        sys.exit(1 if different else 0)
    done = runner.run(experiment, jobs, seeds, deployment=profile, ray=ray)
    click.echo(f"{experiment}: {len(done)} runs made, the others were there")


@click.command()
@click.option("--policies", default="", metavar="NAMES", help="To enter, yours as module:function.")
@click.option("--workload", default="", help="Only this one (a part of its name).")
@click.option("--arrivals", default="", help="Only poisson, bursts, azure or overload.")
@click.option("--seeds", type=click.IntRange(1, 3), help="Only the first so many of 3.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1),
              help="Worker processes.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True)
def arena(policies: str, workload: str, arrivals: str, seeds: int | None, jobs: int,
          as_json: bool) -> None:  # fmt: skip
    """The board: every order on the same traffic, by the tail it keeps and the mean it gains.

    Policies are entered (about half a minute each) and stand beside the orders whose runs are
    stored. Percent, against FCFS; share is of SSJF's gain.
    """
    import pandas as pd

    from ssjf.analysis.arena import board, cells
    from ssjf.experiments import runner
    from ssjf.experiments.runs.arena import entries, standing

    names = [name.strip() for name in policies.split(",") if name.strip()]
    chosen = entries(names, workload, arrivals, seeds)
    runs = standing(workload, arrivals, seeds)
    if names:
        runs = pd.concat([runs, runner.enter(chosen, jobs)], ignore_index=True)
    table = board(cells(runs)).round(1)
    if as_json:
        print_json(json.loads(table.to_json(orient="records")))
        return
    print_table(table)
    if names:
        click.echo(f"their points: ssjf notebook 60_arena -p 'entered={json.dumps(names)}'")


@click.command("list")
@click.argument("what", required=False)
def list_names(what: str | None) -> None:
    """The known experiments, policies, predictors, profiles, notebooks, claims and data sets."""
    kinds = _names()
    if what is not None and what not in kinds:
        raise unknown("kind", what, kinds)
    for kind in [what] if what else kinds:
        names = kinds[kind]() or ["(none here: run ssjf in its repository)"]
        click.echo(f"{kind}:\n  " + "\n  ".join(names))


def _names() -> dict[str, Callable[[], list[str]]]:
    from ssjf.experiments import grid, paths
    from ssjf.proxy import known_predictors
    from ssjf.report import claims
    from ssjf.scheduler import known_policies
    from ssjf.scheduler.routers import known_routers
    from ssjf.simulator.profile import builtin_profiles
    from ssjf.workload.catalogue import DATASETS, TEXTS

    return {
        "experiments": lambda: [f"{e.name}: {e.title}" for e in grid.experiments().values()],
        "policies": lambda: [*known_policies(), "module:function"],
        "routers": lambda: [*known_routers()],
        "predictors": lambda: [*known_predictors()],
        "profiles": lambda: [*builtin_profiles()],
        "notebooks": lambda: sorted(path.stem for path in paths.notebooks().glob("*.ipynb")),
        "claims": lambda: [*claims.claims()] if paths.papers().is_dir() else [],
        "datasets": lambda: [*DATASETS, *TEXTS],
    }


@click.command()
@click.argument("claim_ids", nargs=-1)
@click.option("--json", "as_json", is_flag=True)
def check(claim_ids: tuple[str, ...], as_json: bool) -> None:
    """A verdict for every claim of the papers (or those named); writes results/claims.csv."""
    from ssjf.report import claims

    verdicts = claims.check(list(claim_ids))
    if not claim_ids:
        claims.write(verdicts)
    if as_json:
        print_json(json.loads(verdicts.to_json(orient="records")))
    else:
        print_table(verdicts[VERDICT])


@click.command()
@click.argument("name")
@click.option("-p", "--parameter", "given", multiple=True, metavar="KEY=VALUE")
@click.option("--out", type=click.Path(path_type=Path), help="Where its figures go.")
def notebook(name: str, given: tuple[str, ...], out: Path | None) -> None:
    """Run one notebook strictly.

    With other parameters than the defaults, its figures and tables go to results/scratch (or
    --out) and leave the cited ones alone.
    """
    from ssjf.experiments import paths
    from ssjf.report import notebooks

    moved = {}
    if out is not None:  # it still reads where it did
        moved = {"SSJF_RAW": str(paths.raw().resolve()), "SSJF_RESULTS": str(out.resolve())}
    with patch.dict(os.environ, moved):
        done = notebooks.run(name, notebooks.parse(given))
    click.echo(f"{done.name}: {done.seconds:.1f} s, {done.output_path}")


@click.command()
@click.option("--jobs", default=2, show_default=True, help="Notebooks at a time.")
@click.option("--pages-only", is_flag=True, help="From notebooks and verdicts as they are.")
@click.option("--repository", metavar="URL", help="Notebooks are launched from it (GitHub).")
def report(jobs: int, pages_only: bool, repository: str | None) -> None:
    """Level A: run every notebook, judge every claim, write the report."""
    from ssjf.report import claims, notebooks, page, readme, site

    site.launchers(repository or "", "")  # reports a bad address before the notebooks run
    if pages_only:
        click.echo(f"report: {page.build(address=repository)}")
        return
    notebooks.run_all(jobs=jobs)
    verdicts = claims.check()
    claims.write(verdicts)
    readme.write(verdicts)
    index = page.build(verdicts, address=repository)
    print_table(verdicts[VERDICT])
    click.echo(readme.summary(verdicts))
    click.echo(f"report: {index}")
