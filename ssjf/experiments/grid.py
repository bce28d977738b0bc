"""Experiments: tables of TOML files in ``grids/`` that expand to specifications."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from ssjf.config import read_toml
from ssjf.errors import InputError, unknown
from ssjf.experiments import store
from ssjf.experiments.specs import Run, spec_of

KEYS = ("title", "protocol", "workload", "series")
"""Keys of every experiment's table, besides ``grid`` and settings shared by all its runs."""
NAMED_BY_ENGINE = ("all", "trainings", "measurements", "answers")
"""Names of groups of runs across experiments (``runner.GROUPS``)."""
WORKLOAD_KEYS = {"label": "workload", "round": "round"}
"""Keys of a workload that only name it, and the columns that they become."""


@dataclass(frozen=True)
class Experiment:
    """One table of a grid file: its title, and the settings that its runs share and sweep.

    ``where`` names file and table in an error.
    """

    name: str
    where: str
    title: str
    protocol: str
    common: Mapping[str, Any]
    workload: Mapping[str, Any]
    series: Sequence[Mapping[str, Any]]
    grid: Mapping[str, list[Any]]

    def specs(self, seeds: int | None = None, deployment: str | None = None) -> list[Run]:
        """One specification per run: every series at every point of the grid.

        Parameters
        ----------
        seeds: number of seeds per run, instead of the experiment's own.
        deployment: deployment to use instead of the experiment's own; a profile changes with it.

        Raises
        ------
        InputError: for a key or value that is not allowed, naming file, experiment and key.
        """
        chosen: dict[str, Any] = {}
        if deployment is not None:
            if "deployment" not in self.common:
                raise InputError(
                    f"experiment {self.name} is not run on vLLM; it takes no deployment"
                )
            named = self.common.keys() & {"deployment", "profile"}
            chosen = dict.fromkeys(named, deployment)
        shared = {"experiment": self.name, "protocol": self.protocol}
        specs = []
        for point in itertools.product(*self.grid.values()):
            at = dict(zip(self.grid, point, strict=True))
            workload = self._with_seeds({**self.workload, **at.pop("workload", {})}, seeds)
            for series in self.series:
                values = {"workload": workload, **self.common, **at, **series}
                specs.append(spec_of(shared | values | chosen, self.where))
        return specs

    def _with_seeds(self, workload: dict[str, Any], seeds: int | None) -> dict[str, Any]:
        """Expand ``seeds = {first, count}`` of a workload to a list."""
        given = workload.get("seeds")
        if not isinstance(given, dict):
            return workload
        if given.keys() != {"first", "count"}:
            raise InputError(
                f"{self.where}: seeds are {given}; they must be a list, or first and count"
            )
        count = given["count"] if seeds is None else seeds
        return workload | {"seeds": list(range(given["first"], given["first"] + count))}


@cache
def experiments() -> dict[str, Experiment]:
    """The experiments of the package, by name."""
    folder = Path(str(resources.files("ssjf.experiments"))) / "grids"
    tables = (each for file in sorted(folder.glob("*.toml")) for each in read(file))
    return {each.name: each for each in sorted(tables, key=lambda each: each.name)}


def read(path: Path) -> list[Experiment]:
    """Read the experiments of a TOML file and check each of their runs.

    Raises
    ------
    InputError: for a missing or forbidden key or value, naming file, experiment and key.
    """
    experiments = []
    for name, table in read_toml("grid", path).items():
        where = f"{path.name}, experiment {name}"
        for key in KEYS:
            if not isinstance(table, dict) or key not in table:
                raise InputError(f"{where}: {key} is missing")
        named = {key: table[key] for key in KEYS}
        common = {key: value for key, value in table.items() if key not in (*KEYS, "grid")}
        each = Experiment(name, where, common=common, grid=table.get("grid", {}), **named)
        each.specs()
        experiments.append(each)
    return experiments


def experiment(name: str) -> Experiment:
    """An experiment by name; unknown names raise, listing the known ones."""
    if name not in experiments():
        raise unknown("experiment", name, [*experiments(), *NAMED_BY_ENGINE])
    return experiments()[name]


def rows(
    name: str, keep: Callable[[Any], bool] | None = None, deployment: str | None = None
) -> pd.DataFrame:
    """Read all rows of an experiment.

    Columns: those of the rows (x, seed, run, metrics or time stamps), ``run_id``, ``series``, and
    every key of the grid. ``keep`` selects runs by specification; ``deployment`` as in ``specs``.
    """
    specs = experiment(name).specs(deployment=deployment)
    specs = [spec for spec in specs if keep is None or keep(spec)]
    if not specs:
        raise InputError(f"no run of experiment {name} is left by that choice")
    keys = [key for key in experiment(name).grid if key != "workload"]
    return pd.concat([_labelled(spec, keys) for spec in specs], ignore_index=True)


def _labelled(spec: Run, keys: list[str]) -> pd.DataFrame:
    loaded = store.load(spec)
    for key in (*keys, "series", "protocol"):
        value = getattr(spec, key)
        loaded[key] = "+".join(map(str, value)) if isinstance(value, list) else value
    workload = spec.as_json()["workload"]
    for key, column in WORKLOAD_KEYS.items():
        if key in workload:
            loaded[column] = workload[key]
    return loaded
