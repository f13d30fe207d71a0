"""The benchmark: what its file holds, and the guard."""

import json
import os
import subprocess
import sys

import pytest
from commands import ROOT


def benchmark(*arguments: str) -> subprocess.CompletedProcess:
    """Of a few frames, once each."""
    quick = ["--config", str(ROOT / "tests/benchmarks/tiny.py"), "--runs", "1", "--seconds", "0"]
    quick += ["--queries", "20", "--gallery", "40"]
    command = [sys.executable, str(ROOT / "benchmarks/benchmark.py"), *quick, *arguments]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


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
    assert (setup["tracklets"], setup["data"]) == (4, {"height": 32, "width": 16, "frames": 2})
    for name in ("step", "extract"):
        row = content["results"][name]
        assert row["seconds"]["least"] <= row["seconds"]["median"] <= row["seconds"]["most"]
        assert row["matmul_rate"] > 0 and row["frames"] == 8
        assert row["memory"]["host_peak"] > row["compiled_bytes"]["temporaries"] > 0
        assert {"tracing", "without_cache", "with_cache"} <= row["compilation"].keys()
        assert f"\n{name} " in printed
        assert list((folder / "trace" / name).rglob("*.trace.json.gz"))


def test_a_share_is_the_rate_of_the_operations_over_that_of_products(found):
    _, content, printed = found
    counting = [row for row in content["results"].values() if "operations" in row]
    assert counting  # at least the metrics, whatever the method counts
    for row in counting:
        rate = row["operations"] / row["seconds"]["median"]
        assert row["share"] == pytest.approx(rate / row["matmul_rate"])
        assert row["processor_share"] > 0
        assert f"{row['share']:.1%}" in printed


def test_a_cold_start_is_traced_and_compiled_without_and_with_a_cache(tmp_path):
    out = tmp_path / "found.json"
    done = benchmark("--what", "compile", "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["results"]["compile"]
    assert found.keys() == {"step", "extract"}
    for name, seconds in found.items():
        assert seconds.keys() == {"tracing", "without_cache", "with_cache"}
        assert min(seconds.values()) > 0
        assert f"compile {name} tracing" in done.stdout


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
        (("--compare", "{}/none.json"), "none.json cannot be read"),
        (("--compare", "{}/list.json"), "list.json was not written by --out"),
        (("--out", "{}/none/found.json"), "there is no folder"),
    ],
)
def test_files_are_looked_at_before_anything_is_measured(arguments, why, tmp_path):
    (tmp_path / "list.json").write_text("[]")
    done = benchmark("--what", "evaluate", *(a.format(tmp_path) for a in arguments))
    assert done.returncode == 2
    assert why in done.stderr and "Traceback" not in done.stderr and done.stdout == ""
