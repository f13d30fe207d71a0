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
    "losses.py": ("dinogrl_jax",),
    "layers.py": ("dinogrl_jax",),
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


def test_importing_everything_brings_neither_tensorflow_nor_torch():
    modules = [
        "dinogrl_jax." + path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    ]
    code = f"import sys, {', '.join(modules)}; print(*{{'torch', 'tensorflow'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
