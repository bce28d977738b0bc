"""What there is to choose from, by kind: the names that ``ssjf list`` prints."""

from collections.abc import Callable

from ssjf.experiments import grid, paths
from ssjf.proxy import known_predictors
from ssjf.report import claims
from ssjf.scheduler import known_policies
from ssjf.simulator.profile import builtin_profiles
from ssjf.workload.catalogue import DATASETS, TEXTS


def _experiments() -> list[str]:
    return [f"{each.name}: {each.title}" for each in grid.experiments().values()]


def _notebooks() -> list[str]:
    return sorted(path.stem for path in paths.notebooks().glob("*.ipynb"))


def _claims() -> list[str]:
    return list(claims.claims()) if paths.papers().is_dir() else []


KINDS: dict[str, Callable[[], list[str]]] = {
    "experiments": _experiments,
    "policies": lambda: [*known_policies(), "module:function"],
    "predictors": lambda: list(known_predictors()),
    "profiles": lambda: list(builtin_profiles()),
    "notebooks": _notebooks,
    "claims": _claims,
    "datasets": lambda: [*DATASETS, *TEXTS],
}
