"""The script that measures the original beside ours on a card, rehearsed on a CPU."""

import json
import os
import subprocess
import sys
import time

import pytest
from commands import ROOT
from gpu import plan, table, turns
from gpu.turns import Group, Process, Results


def script(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [str(ROOT / "benchmarks/gpu.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu") / "rehearsed.jsonl"
    done = script("--rehearse", "--seconds", "3000", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    return lines_of(out)


@pytest.mark.slow
def test_the_rehearsal_measures_all_of_it(rehearsed):
    assert rehearsed[0]["commit"] and rehearsed[0]["rehearsed"]
    assert not [line for line in rehearsed if "failed" in line or "skipped" in line]
    for group in plan.groups(plan.REHEARSAL):
        lines = [line for line in rehearsed if line.get("group") == group.name]
        assert [line["passed"] for line in lines if "check" in line] == [True] * len(group.checks)
        for program in (x for process in group.processes for x in process.programs):
            ran = [line for line in lines if line.get("ran") == program["name"]]
            assert [line["round"] for line in ran] == [0, 1], program["name"]
            assert all(line.get("seconds", 1) > 0 and line.get("rate", 1) > 0 for line in ran)


@pytest.mark.slow
def test_the_table_has_each_program(rehearsed):
    text = "\n".join(table.tables(rehearsed))
    for name in ("original, step of 8", "ours, step of 8", "ours, plain, extract of 8", "no flag"):
        assert f"| {name}" in text
    assert "components: passed" in text
    assert text.count("× |") >= 8  # the original's and ours, of main and of forms


def test_what_a_card_would_run():
    """Each program of a card's plan is one of the rehearsal's, or larger."""
    names = [group.name for group in plan.groups(plan.CARD)]
    assert names == ["main", "forms", "flags 1", "flags 2", "batches", "golden"]
    programs = [
        program
        for group in plan.groups(plan.CARD)
        for process in group.processes
        for program in process.programs
    ]
    assert {x["frames"] for x in programs if x["what"] != "limits"} == {48, 96, 192, 384, 768}
    keys = {tuple(sorted(x)) for x in programs}
    rehearsed = [p for g in plan.groups(plan.REHEARSAL) for x in g.processes for p in x.programs]
    assert keys == {tuple(sorted(x)) for x in rehearsed}
    files = [x for g in plan.groups(plan.CARD) for check in g.checks for x in check if "/" in x]
    assert len(files) == 2 and all((ROOT / file).is_file() for file in files)


STUB = """
import sys, time
from gpu.worker import serve
def made(program):
    if program["name"] == "broken": raise ValueError("it cannot be")
    if program["name"] == "aborts": sys.stdout.flush(); import os; os._exit(3)
    if program["name"] == "slow": time.sleep(60)
    def run(calls):
        if program["name"] == "ends": import os; os._exit(3)
        if program["name"] == "fails": raise ValueError("no memory")
        return {"seconds": 1.0 * calls}
    return run, {"compilation": 0.5}
serve(made)
"""


def measured(tmp_path, monkeypatch, groups, seconds=30.0, **options) -> list[dict]:
    """What is said of groups of stubs."""
    (tmp_path / "stub.py").write_text(STUB)
    path = os.pathsep.join([str(tmp_path), str(ROOT / "benchmarks")])
    monkeypatch.setenv("PYTHONPATH", path)
    out = tmp_path / "found.jsonl"
    turns.measure(groups, Results(out), time.monotonic() + seconds, rounds=2, calls=3)
    return lines_of(out)


def stub(*names: str) -> Process:
    return Process("stub", [{"name": name} for name in names])


def test_programs_run_in_turns(tmp_path, monkeypatch):
    group = Group("main", [stub("a", "b"), stub("c")], 1, [["-c", "print('right')"]])
    found = measured(tmp_path, monkeypatch, [group])
    assert [line["ran"] for line in found if "ran" in line] == ["a", "b", "c"] * 2
    assert {line["seconds"] for line in found if "ran" in line} == {3.0}
    (check,) = (line for line in found if "check" in line)
    assert check["passed"] and check["told"] == ["right"]


def test_what_fails_costs_nothing_else(tmp_path, monkeypatch):
    processes = [stub("broken", "a"), stub("aborts", "b"), stub("ends"), stub("fails", "c")]
    group = Group("main", processes, 1, [["-c", "raise SystemExit(1)"]])
    found = measured(tmp_path, monkeypatch, [group])
    assert [line["ran"] for line in found if "ran" in line] == ["a", "c", "a", "c"]
    why = {x.get("failed") or x.get("skipped"): x["why"] for x in found if "why" in x}
    assert why == {
        "broken": "ValueError: it cannot be",
        "aborts": "its process ended",
        "b": "its process ended",
        "ends": "its process ended",
        "fails": "ValueError: no memory",
    }
    assert [line["passed"] for line in found if "check" in line] == [False]


def test_what_does_not_fit_is_skipped_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "ENOUGH", 0.3)
    groups = [Group("main", [stub("a"), stub("slow")], 1), Group("forms", [stub("b")], 1000)]
    found = measured(tmp_path, monkeypatch, groups, seconds=20.0)
    assert [line["ran"] for line in found if "ran" in line] == ["a", "a"]
    skipped = {line["skipped"]: line["why"] for line in found if "skipped" in line}
    assert skipped["slow"] == "it was not compiled in time"
    assert skipped["forms"].endswith("it needs 1000")


def test_a_table_of_two_calls():
    """Times, the comparison with the fastest original, shares and memory, by hand."""

    def program(who: str, name: str) -> dict:
        return {"name": name, "who": who, "what": "step", "frames": 192}

    first = [
        {"commit": "0123456789", "card": "H200, 580, 141 GB", "rehearsed": False},
        {
            "group": "main",
            "built": "limits",
            "device": "H200",
            "rates": {"8192": 8e14},
            "copied": 4e12,
            "versions": {"jax": "0.11.2"},
            "program": {"dtype": "bfloat16"},
        },
        *(
            {"group": "main", "built": name, "compilation": 60.0, "program": program(who, name)}
            | ({"operations": 16e12, "held": 2e9, "temporaries": 6e9} if who == "ours" else {})
            for who, name in (("original", "slow"), ("original", "quick"), ("ours", "own"))
        ),
        {"group": "main", "ran": "limits", "rate": 8e14},
        {"group": "main", "ran": "slow", "seconds": 0.2, "device_peak": 30e9},
        {"group": "main", "ran": "quick", "seconds": 0.12, "device_peak": 20e9},
        *({"group": "main", "ran": "own", "seconds": x} for x in (0.08, 0.07, 0.09)),
        {"group": "forms", "skipped": "forms", "why": "40 s are left, it needs 120"},
    ]
    second = [first[0] | {"commit": "9876543210"}]
    one, two = (list(table.tables(call)) for call in table.calls(first + second))
    assert one[0] == "H200, 580, 141 GB, commit 012345678"
    assert "products of bfloat16, TFLOP/s: 8192: 800; copied 4 TB/s; jax 0.11.2" in one[1]
    assert "| own | 80, 70…90 | 1.50× | 25.0% | 8.00 GB | 60 s |" in one
    assert "| slow | 200, 200…200 | 0.60× | 10.0% | 30.0 GB | 60 s |" in one
    assert "skipped: forms: 40 s are left, it needs 120" in one
    assert two == ["H200, 580, 141 GB, commit 987654321"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--cpu", "10"), "--cpu 10: it must be a multiple of 12"),
        (("--rehearse", "--only", "main,all"), "--only has 'all', which is no group"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, why, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(sys, "argv", ["plan.py", "--out", str(tmp_path / "found"), *arguments])
    with pytest.raises(SystemExit, match="2"):
        plan.main()
    assert why in capsys.readouterr().err and not (tmp_path / "found").exists()
