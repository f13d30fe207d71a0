"""The tree is the architecture: imports point down, folders are small, worker processes light."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dinogrl_jax"
# From the ground up: a file imports from its own room and from those before it.
FLOORS = (
    "interface",
    "config",
    "data",
    "devices",
    "ops",
    "models",
    "weights",
    "methods",
    "retrieval",
    "training",
    "__main__",
)
FORBIDDEN = {  # files of the first kind never import what is named beside
    "data/": ("jax", "flax"),  # worker processes start fast
    "interface/": ("jax", "flax"),
    "methods/": ("dinogrl_jax.retrieval", "dinogrl_jax.training"),
    "": ("torch", "tensorflow", "scripts", "configs"),
}
MOST_FILES, MOST_ENTRIES = 13, 11  # of a folder, and at the top, beside __init__.py
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path) for path in FILES}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, whole or names of."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in whole}
    return names


def floor(name: str) -> int:
    return FLOORS.index(name.split(".")[1])


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_point_down(path):
    own = module(path)
    for name in imported(path):
        if name.startswith("dinogrl_jax.") and own != "dinogrl_jax":
            assert floor(name) <= floor(own), f"{own} imports {name}, which stands above it"
        for where, forbidden in FORBIDDEN.items():
            if path.relative_to(PACKAGE).as_posix().startswith(where):
                assert not any(f"{name}.".startswith(f"{f}.") for f in forbidden), name


def test_no_circle():
    graph = {module(path): imported(path) & MODULES for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_no_method_is_named_outside_its_folder():
    """Deleting a method is deleting its folder, its line in METHODS, its configs and its tests."""
    methods = [path.name for path in (PACKAGE / "methods").iterdir() if path.is_dir()]
    line = PACKAGE / "methods" / "__init__.py"
    for path in FILES:
        for name in set(methods) - {"__pycache__"}:
            if PACKAGE / "methods" / name not in path.parents and path != line:
                others = [
                    x for x in imported(path) if f"{x}.".startswith(f"dinogrl_jax.methods.{name}.")
                ]
                assert not others, path


def test_folders_are_small():
    beside = ("__init__.py", "__pycache__", "py.typed")
    top = [p for p in PACKAGE.iterdir() if p.name not in beside]
    assert len(top) <= MOST_ENTRIES, top
    for folder in {path.parent for path in FILES}:
        files = [p for p in folder.iterdir() if p.suffix == ".py" and p.name != "__init__.py"]
        assert len(files) <= MOST_FILES, (folder, len(files))


def test_everything_imports_where_tensorflow_and_torch_cannot_be():
    # Libraries look for torch and do without: it is made impossible to import.
    code = "import sys; sys.modules['torch'] = sys.modules['tensorflow'] = None\n"
    code += f"import {', '.join(sorted(MODULES))}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
