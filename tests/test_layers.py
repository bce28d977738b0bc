"""Who may import whom, and what an import costs."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import ssjf

PACKAGE = Path(ssjf.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOT = ("request", "errors", "config", "files", "hardware")
FLOORS = {
    **dict.fromkeys(ROOT, 0), "scheduler": 1, "workload": 2, "proxy": 2, "analysis": 2,
    "simulator": 2, "harness": 3, "serving": 3, "experiments": 4, "report": 5, "cli": 6, "tour": 6,
    "__main__": 7,
}  # fmt: skip
MAY_IMPORT = {
    "scheduler": ROOT,
    "workload": ROOT,
    "proxy": ROOT,
    "analysis": ROOT,
    "simulator": (*ROOT, "scheduler"),
    "harness": (*ROOT, "scheduler", "simulator"),
    "serving": (*ROOT, "scheduler", "proxy", "simulator", "harness"),  # which starts a replica
}
"""Rooms that may import less than all floors below them."""
OF_TORCH = {f"ssjf.proxy.{name}" for name in ("encoder.network", "encoder.trainer")}
IMPORTS_AT_ONCE = {name: {"torch", "transformers"} for name in OF_TORCH} | {
    # vLLM imports these by name: they derive from its classes
    "ssjf.harness.scheduler": {"vllm"},
    "ssjf.harness.connector": {"vllm", "torch"},
    "ssjf.harness.quantise": {"torch"},
}
HEAVY = ("torch", "vllm", "numba", "pandas", "scipy", "pyarrow", "matplotlib", "pydantic")


def dotted(path):
    return ".".join(["ssjf", *path.relative_to(PACKAGE).with_suffix("").parts])


def imports(path, at_import_time=False):
    """The modules that a file imports: anywhere, or only those that importing it imports."""
    tree = ast.parse(path.read_text())
    nodes = [*ast.walk(tree)]
    if at_import_time:
        inside = (n for n in nodes if isinstance(n, ast.FunctionDef | ast.Lambda))
        nodes = set(nodes) - {node for function in inside for node in ast.walk(function)}
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module):
    """The floor of a dotted name of the package; None for the package itself."""
    parts = module.split(".")
    return FLOORS.get(parts[1]) if parts[0] == "ssjf" and len(parts) > 1 else None


def test_no_module_imports_itself_by_way_of_others():
    known = {dotted(path).removesuffix(".__init__"): path for path in MODULES}
    graph = {}
    for name, path in known.items():
        found = set(imports(path)) & known.keys() - {name}
        # "from package import module" is no use of the package's own names
        graph[name] = found - {each.rpartition(".")[0] for each in found}
    graphlib.TopologicalSorter(graph).prepare()  # raises where there is a circle


def test_every_module_has_a_layer():
    assert {dotted(path).split(".")[1] for path in MODULES} <= {*FLOORS, "__init__"}


def forbidden(path):
    """The package's names that a module imports and may not."""
    own, room = layer(dotted(path)), dotted(path).split(".")[1]
    if own is None:  # the package's own names are loaded on first use
        return [name for name in imports(path) if name.startswith("ssjf")]
    allowed = {room, *MAY_IMPORT.get(room, [each for each in FLOORS if FLOORS[each] < own])}
    allowed = {*ROOT} if room in ROOT else allowed
    known = [name for name in imports(path) if name.startswith("ssjf.")]
    return [name for name in known if name.split(".")[1] not in {*allowed, "__version__"}]


def test_imports_go_downward():
    wrong = [f"{dotted(path)} imports {name}" for path in MODULES for name in forbidden(path)]
    assert not wrong


def test_the_nouns_import_nothing_of_the_package():
    for name in ("request", "errors"):
        assert not [each for each in imports(PACKAGE / f"{name}.py") if each.startswith("ssjf")]


def test_only_inner_loops_import_the_compiler():
    inner = [
        PACKAGE / "simulator" / "published_rules.py",
        PACKAGE / "proxy" / "light" / "proxy.py",
        *(PACKAGE / "simulator" / "core").glob("*.py"),
    ]
    for path in set(MODULES) - set(inner):
        assert not [name for name in imports(path) if name.split(".")[0] == "numba"]


def test_heavy_packages_of_the_proxy_and_the_server_are_imported_lazily():
    heavy = {"torch", "vllm", "transformers", "sklearn", "onnxruntime"}
    for path in MODULES:
        imported = {*imports(path, at_import_time=True)}
        found = heavy & {name.split(".")[0] for name in imported}
        assert found <= IMPORTS_AT_ONCE.get(dotted(path), set()), path
        if dotted(path) not in IMPORTS_AT_ONCE:
            assert imported.isdisjoint(IMPORTS_AT_ONCE), path


def test_nothing_is_pickled_or_evaluated():
    for path in MODULES:
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        assert not names & {"eval", "exec"}, path
        assert not {"pickle", "joblib", "dill"} & {*imports(path)}, path


def test_every_public_name_is_there():
    assert set(ssjf.__all__) <= set(dir(ssjf))
    assert all(getattr(ssjf, name).__doc__ for name in ssjf.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'engine'"):
        ssjf.engine  # noqa: B018


def fresh(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_importing_the_package_or_its_command_line_is_light():
    for module in ("ssjf", "ssjf.cli"):
        loaded = fresh(f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})")
        assert not set(loaded.split()) & set(HEAVY)


def test_importing_the_simulator_compiles_nothing():
    code = "import sys; from ssjf import Requests, Server, profile, simulate, predict; "
    loaded = fresh(f"{code} import ssjf.scheduler; print(*sys.modules)").split()
    assert not {"numba", "pandas", "torch", "vllm"} & set(loaded)
