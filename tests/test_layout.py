"""The tree is the architecture: imports point down, and worker processes stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dinogrl_jax"
FORBIDDEN = {  # modules of the first kind never import those of the second
    "data/": ("jax", "flax", "dinogrl_jax.models", "dinogrl_jax.methods", "dinogrl_jax.train"),
    "models/": ("dinogrl_jax.methods", "dinogrl_jax.data", "dinogrl_jax.train"),
    "methods/": ("dinogrl_jax.data", "dinogrl_jax.train", "dinogrl_jax.evaluate"),
    "report/": ("dinogrl_jax.models", "dinogrl_jax.methods", "dinogrl_jax.evaluate"),
    "losses.py": ("dinogrl_jax",),
    "layers.py": ("dinogrl_jax",),
    "normalisation.py": ("dinogrl_jax.models", "dinogrl_jax.methods", "dinogrl_jax.parts"),
    "parts.py": ("dinogrl_jax.models", "dinogrl_jax.methods"),
    "": ("torch", "tensorflow", "scripts", "configs"),
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("where", FORBIDDEN)
def test_imports_point_down(where):
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix().startswith(where):
            for name in imported(path):
                for forbidden in FORBIDDEN[where]:
                    assert not f"{name}.".startswith(f"{forbidden}."), f"{path} imports {name}"


def test_everything_imports_where_tensorflow_and_torch_cannot_be():
    modules = [
        "dinogrl_jax." + path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    ]
    # Libraries look for torch and do without: it is made impossible to import.
    code = "import sys; sys.modules['torch'] = sys.modules['tensorflow'] = None\n"
    code += f"import {', '.join(modules)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
