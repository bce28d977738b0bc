"""Experiments are data: TOML grids in the package, one per figure, that expand to runs."""

import itertools
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from ssjf.errors import InputError, unknown
from ssjf.experiments import store

Spec = dict[str, Any]


WORKLOAD_KEYS = {"label": "workload", "round": "round"}
"""Keys of a workload that only name it, and the columns of rows that they become."""


@dataclass(frozen=True)
class Experiment:
    """One TOML file: what it is about, and what its runs share and sweep."""

    name: str
    title: str
    protocol: str
    common: Spec
    workload: Spec
    series: tuple[Spec, ...]
    grid: dict[str, list[Any]]

    def specs(self, seeds: int | None = None, deployment: str | None = None) -> list[Spec]:
        """One specification per run: every series at every point of the grid.

        ``seeds`` overrides how many seeds a run repeats, ``deployment`` what a measured
        experiment runs on (its step-time profile has the same name).
        """
        found = list(self._specs(seeds))
        if deployment is None:
            return found
        if "deployment" not in self.common:
            raise InputError(f"experiment {self.name} is not run on vLLM; it takes no deployment")
        profiled = "profile" in self.common
        chosen = {"deployment": deployment} | ({"profile": deployment} if profiled else {})
        return [spec | chosen for spec in found]

    def _specs(self, seeds: int | None) -> Iterator[Spec]:
        for point in itertools.product(*self.grid.values()):
            at = dict(zip(self.grid, point, strict=True))
            workload = _with_seeds(self.workload | at.pop("workload", {}), seeds)
            for series in self.series:
                yield {
                    "experiment": self.name,
                    "protocol": self.protocol,
                    "workload": workload,
                    **self.common,
                    **at,
                    **series,
                }


def _with_seeds(workload: Spec, seeds: int | None) -> Spec:
    """``seeds = {first, count}`` in a workload becomes a list."""
    given = workload.get("seeds")
    if not isinstance(given, dict):
        return workload
    count = given["count"] if seeds is None else seeds
    return workload | {"seeds": list(range(given["first"], given["first"] + count))}


@cache
def experiments() -> dict[str, Experiment]:
    """All experiments of the package, by name."""
    folder = resources.files("ssjf.experiments") / "grids"
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    found = [_read(file.name.removesuffix(".toml"), file.read_text()) for file in files]
    return {experiment.name: experiment for experiment in sorted(found, key=lambda e: e.name)}


def _read(name: str, text: str) -> Experiment:
    toml = tomllib.loads(text)
    return Experiment(
        name=name,
        title=toml.pop("title"),
        protocol=toml.pop("protocol"),
        workload=toml.pop("workload"),
        series=tuple(toml.pop("series")),
        grid=toml.pop("grid", {}),
        common=toml,
    )


def experiment(name: str) -> Experiment:
    """An experiment by name; unknown names raise, listing the known ones."""
    if name not in experiments():
        raise unknown("experiment", name, [*experiments(), "all", "trainings", "measurements"])
    return experiments()[name]


def rows(
    name: str, keep: Callable[[Spec], bool] | None = None, deployment: str | None = None
) -> pd.DataFrame:
    """All rows of an experiment, its runs' keys as columns beside ``run_id``.

    Columns: the rows' own (x, seed, run, metrics or time stamps), ``series``, and every key of
    the grid. ``keep`` selects runs by their specification; ``deployment`` as in ``specs``.
    """
    asked = experiment(name).specs(deployment=deployment)
    specs = [spec for spec in asked if keep is None or keep(spec)]
    if not specs:
        raise InputError(f"no run of experiment {name} is as asked")
    return pd.concat([_labelled(name, spec) for spec in specs], ignore_index=True)


def _labelled(name: str, spec: Spec) -> pd.DataFrame:
    loaded = store.load(spec)
    keys = {key: spec[key] for key in experiment(name).grid if key != "workload"}
    for key, value in (keys | {"series": spec["series"], "protocol": spec["protocol"]}).items():
        loaded[key] = _plain(value)
    for key, column in WORKLOAD_KEYS.items():
        if key in spec["workload"]:
            loaded[column] = spec["workload"][key]
    return loaded


def _plain(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, list) else value
