"""The benchmark: the count of the arithmetic, what its file holds, and the guard."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import small
from commands import ROOT

from dinogrl_jax.config import default
from dinogrl_jax.models import arithmetic
from dinogrl_jax.models.dinov2 import DINOv2
from dinogrl_jax.models.resnet import Stages

FLOAT32 = jnp.dtype("float32")


def test_a_convolution_by_hand():
    """Two rows of three positions, 3×3 kernels of 5 channels to 7: 6·9·5·7 multiply-adds."""
    assert arithmetic.conv(6, 3, 5, 7) == (2 * 1890, 4 * 1890)
    assert arithmetic.conv(6, 3, 5, 7, first=True) == (2 * 1890, 2 * 1890)


def test_a_visit_of_pbmge_by_hand():
    """Of 4 values: an affinity and two products of 4·4·4, five lifts of 4·4 multiply-adds."""
    assert arithmetic.pbmge(4).forward == 2 * (3 * 64 + 5 * 16)


def test_the_paper_needs_50_and_90_gigaflop_a_frame():
    stages = arithmetic.published(default(), 500)
    rounded = {name: round(work.forward / 6e9, 1) for name, work in stages.items()}
    assert rounded == {
        "dinov2": 26.9,
        "branches": 5.0,
        "pre_blocks": 0.7,
        "gait_resnet": 8.0,
        "stems": 0.2,
        "appearance_resnet": 8.0,
        "parts": 0.0,
        "pbmge": 1.0,
        "classifiers": 0.0,
    }
    total = arithmetic.total(stages)
    assert (round(total.forward / 6e9, 1), round(total.training / 6e9, 1)) == (49.6, 90.1)


def test_an_ablation_has_less():
    config = default()
    config.model.streams, config.model.pbmge = ("appearance",), False
    stages = arithmetic.published(config, 500)
    assert list(stages) == ["stems", "appearance_resnet", "parts", "classifiers"]


def counted(module, x, **options) -> float:
    """What XLA counts in a forward pass, of shapes alone.

    For a GPU: a CPU convolves with fewer products than published, and attends in a loop, whose
    inside XLA counts once.
    """
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(x), **options))
    given = jax.ShapeDtypeStruct(x, jnp.float32)
    traced = jax.jit(lambda v, x: module.apply(v, x, **options)).trace(variables, given)
    lowered = traced.lower(lowering_platforms=("cuda",))
    return lowered.cost_analysis()["flops"]


def test_the_compiler_counts_as_much_in_the_backbone():
    """Beside the products it counts softmax, GELU and LayerNorm: 2 %."""
    config = default().model.dinov2
    config.depth, config.taps = 1, (0,)
    found = counted(DINOv2(config, FLOAT32), (1, 448, 224, 3))
    assert found == pytest.approx(arithmetic.dinov2(config).forward, rel=0.05)


def test_the_compiler_counts_as_much_in_a_resnet():
    """It leaves out products with the border's zeros: 3 % here."""
    found = counted(Stages((3, 4, 6, 3), 64, FLOAT32), (1, 64, 32, 64), train=False)
    expected = arithmetic.resnet_stages((3, 4, 6, 3), 64, 64, (64, 32)).forward
    assert found == pytest.approx(expected, rel=0.05)


def benchmark(*arguments: str) -> subprocess.CompletedProcess:
    """One stream is enough here, and compiles in seconds."""
    quick = ["--config", small.PATH, "--config.model.streams=('appearance',)", "--runs", "1"]
    quick += ["--config.model.pbmge=False", "--seconds", "0", "--queries", "20", "--gallery", "40"]
    command = [sys.executable, str(ROOT / "benchmarks/benchmark.py"), *quick, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    out, trace = folder / "found.json", folder / "trace"
    done = benchmark("--what", "step,extract,evaluate", "--out", str(out), "--trace", str(trace))
    assert done.returncode == 0, done.stderr
    return folder, json.loads(out.read_text()), done.stdout


def test_the_file_has_shares_memory_and_compile_time(found):
    folder, content, printed = found
    machine, setup = content["machine"], content["setup"]
    assert machine["matmul_rate"] == max(machine["matmul_rates"].values()) > 1e9
    assert machine["copied"] > 1e8 and machine["cores"] >= 1 and machine["versions"]["jax"]
    assert (setup["tracklets"], setup["data"]) == (4, {"height": 64, "width": 32, "frames": 2})
    for name in ("step", "extract"):
        row = content["results"][name]
        assert row["seconds"]["least"] <= row["seconds"]["median"] <= row["seconds"]["most"]
        rate = row["operations"] / row["seconds"]["median"]
        assert row["share"] == pytest.approx(rate / row["matmul_rate"])
        assert row["processor_share"] > 0 and row["frames"] == 8
        assert row["memory"]["host_peak"] > row["compiled_bytes"]["temporaries"] > 0
        assert {"tracing", "without_cache", "with_cache"} <= row["compilation"].keys()
        assert f"\n{name} " in printed
        assert list((folder / "trace" / name).rglob("*.trace.json.gz"))


def test_a_cold_start_is_traced_and_compiled_without_and_with_a_cache(tmp_path):
    out = tmp_path / "found.json"
    done = benchmark("--what", "compile", "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["results"]["compile"]
    assert found.keys() == {"demo", "configuration"}
    for name, parts in found.items():
        for part in ("step", "extract"):
            seconds = parts[part]
            assert seconds.keys() == {"tracing", "without_cache", "with_cache"}
            assert min(seconds.values()) > 0
            assert f"compile {name} {part} tracing" in done.stdout


@pytest.mark.parametrize(("factor", "status"), [(1e3, 1), (1e-3, 0)])
def test_a_worse_share_fails_the_comparison(found, factor, status):
    folder, content, _ = found
    before = json.loads(json.dumps(content))
    before["results"]["evaluate"]["share"] *= factor
    (folder / "before.json").write_text(json.dumps(before))
    done = benchmark("--what", "evaluate", "--compare", str(folder / "before.json"))
    assert done.returncode == status, done.stderr
    assert ("  worse" in done.stdout) == bool(status)
    assert f"{status} worse by more than 10%" in done.stdout
    assert "step" not in done.stdout


def test_another_batch_is_not_compared(found):
    folder, content, _ = found
    content["setup"]["tracklets"] = 6
    (folder / "other.json").write_text(json.dumps(content))
    done = benchmark("--what", "evaluate", "--compare", str(folder / "other.json"))
    assert done.returncode == 2
    assert "another tracklets: 6" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--compare", "{}/none.json"), "none.json cannot be read as JSON"),
        (("--compare", "{}/list.json"), "list.json was not written by --out"),
        (("--out", "{}/none/found.json"), "there is no folder"),
    ],
)
def test_files_are_looked_at_before_anything_is_measured(arguments, why, tmp_path):
    (tmp_path / "list.json").write_text("[]")
    done = benchmark("--what", "evaluate", *(a.format(tmp_path) for a in arguments))
    assert done.returncode == 2
    assert why in done.stderr and "Traceback" not in done.stderr and done.stdout == ""
