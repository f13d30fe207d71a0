"""The published arithmetic in PyTorch that benchmarks compare with, and the script that does so."""

import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import original
import pytest
import small
import torch
from commands import ROOT
from dinogrl_in_torch import golden
from dinogrl_in_torch.model import DinoGRL, Extraction, Training
from dinogrl_in_torch.sizes import SMALL
from gpu import plan, table, turns
from gpu.turns import Group, Process, Results
from published import places

from dinogrl_jax.devices.compiling import compiler_options
from dinogrl_jax.methods import dinogrl
from dinogrl_jax.methods.contract import Clips
from dinogrl_jax.methods.dinogrl.losses import loss
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.weights.conversion import to_variables

SIZES = SMALL._replace(identities=small.FACTS.identities)
PAIRS, LABELS = 4, (0, 0, 1, 1)
PROOF = 1e-9  # float64 leaves rounding alone, so any difference in the mathematics shows


@pytest.mark.parametrize("run", ["components", "eval"])
def test_golden_values(run):
    text, within = golden.lines(run, golden.figures(run, "cpu", gathers=True))
    assert within, text


@pytest.mark.full
@pytest.mark.parametrize("run", ["train_float64", "train_float32"])
@pytest.mark.parametrize("foreground", ["masked", "gathered"])
def test_golden_steps(run, foreground):
    text, within = golden.lines(run, golden.figures(run, "cpu", foreground == "gathered"))
    assert within, text


@pytest.fixture(scope="module")
def config():
    config = small.get_config("dinogrl")  # with what follows that of tests/benchmarks/tiny.py
    config.data.height, config.data.width = SIZES.frame
    small.sizes("dinogrl").shrink_more(config)
    config.model.compute_dtype = "float64"
    config.model.sasgl.mask_dropout = 0.0
    return config


@pytest.fixture(scope="module")
def state():
    """{file: {key: tensor}} of a model whose scales and shifts are neither zero nor one."""
    torch.manual_seed(0)
    made = {}
    for name, file in DinoGRL(SIZES, gathers=False).double().files().items():
        made[name] = {
            key: x + 0.2 * torch.rand_like(x) if x.ndim == 1 else x
            for key, x in file.state_dict().items()
        }
    return made


@pytest.fixture(scope="module")
def variables(config, state):
    with jax.enable_x64(True):
        shapes = variable_shapes(dinogrl.Model(config, small.FACTS), config)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float64), shapes)
    made = {collection: {} for collection in shapes}
    for file in dinogrl.released_files(config).values():
        part = {c: {n: x[n] for n in file.modules if n in x} for c, x in shapes.items()}
        arrays = {key: x.numpy() for key, x in state[file.name].items()}
        converted, _ = to_variables(arrays, file.rules, part, source_name=file.name)
        for collection in made:
            made[collection] |= converted[collection]
    return made


@pytest.fixture(scope="module")
def frames():
    """Of each modality, tracklet by tracklet, channels last."""
    shape = 2, PAIRS, SIZES.frames, *SIZES.frame, 3
    return np.random.default_rng(0).standard_normal(shape)


@pytest.fixture(scope="module")
def ours(config, variables, frames):
    """The loss and its terms, gradients and changed statistics of a step; descriptors."""
    model = dinogrl.Model(config, small.FACTS)
    clips = Clips(frames.swapaxes(0, 1), np.full((PAIRS, 2), -1, np.int32))
    labels = np.repeat(np.array(LABELS, np.int32), 2)
    kept = np.ones((PAIRS, 2, 2), bool)  # of pairs, modalities and maps
    kept[1, 0, 0] = kept[2, 1, 1] = False

    def of_step(params, clips):
        output, changed = model.apply(
            {**variables, "params": params},
            clips,
            train=True,
            kept_maps=jnp.asarray(kept.reshape(-1, 2)),
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        total, terms = loss(config.loss, output, jnp.asarray(labels))
        return total, (terms, changed["batch_stats"])

    def descriptors(variables, clips):
        return dinogrl.descriptor(model.apply(variables, clips, train=False), config)

    options = compiler_options(training=True, dtype="float64")  # without, sums are wrong here
    with jax.enable_x64(True):
        step = jax.jit(jax.value_and_grad(of_step, has_aux=True), compiler_options=options)
        (_, (terms, statistics)), gradients = step(variables["params"], clips)
        one = Clips(frames[0][:, None], np.full((PAIRS, 1), -1, np.int32), ("visible",))
        found = jax.jit(descriptors)(variables, one)
        return jax.device_get((terms, gradients, statistics, found))


def off(x, expected) -> float:
    """The largest difference, of the largest value."""
    x, expected = np.asarray(x, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(x - expected).max() / max(np.abs(expected).max(), 1e-12))


@pytest.mark.parametrize("foreground", ["masked", "gathered"])
def test_a_step_is_ours(config, state, frames, ours, foreground):
    model = DinoGRL(SIZES, foreground == "gathered").double()
    for name, file in model.files().items():
        file.load_state_dict(state[name], strict=True)
    model.train().gait.dinov2.Mask_Branch.dropout.p = 0.0
    kept = torch.ones(2, PAIRS, 2, dtype=torch.bool)
    kept[0, 1, 0] = kept[1, 2, 1] = False
    inputs = [torch.from_numpy(x).flatten(0, 1).permute(0, 3, 1, 2) for x in frames]
    labels = torch.tensor(LABELS * 2)
    total, found, _ = Training(model, torch.float64)(*inputs, labels, kept.flatten(0, 1))
    total.backward()
    terms, gradients, statistics, _ = ours
    for name, value in terms.items():
        assert off(found[name].detach(), value) < PROOF, name
    place = places(dinogrl, config)
    for name, file in model.files().items():
        for key, x in file.named_parameters():
            if x.requires_grad and (where := place(f"{name}:{key}")):
                expected = where.of(gradients)
                if key.endswith(golden.IN_FRONT_OF_BATCH_NORM):
                    assert max(np.abs(expected).max(), x.grad.abs().max()) < PROOF, key
                else:
                    assert off(x.grad, expected) < PROOF, key
            assert x.requires_grad == (x.grad is not None), key
        for key, x in file.named_buffers():
            if "running" in key and (where := place(f"{name}:{key}")):
                assert off(x, where.of(statistics)) < PROOF, key


def test_an_extraction_is_ours(state, frames, ours):
    model = DinoGRL(SIZES, gathers=False).double()
    for name, file in model.files().items():
        file.load_state_dict(state[name], strict=True)
    inputs = torch.from_numpy(frames[0]).flatten(0, 1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = Extraction(model.eval(), torch.float64)(inputs)
    assert off(found, ours[-1]) < 1e-6  # it returns float32


def test_it_is_captured_as_a_whole():
    """PyTorch's compiler gets one graph of an extraction: a break in it would end this."""
    options = original.Options(SMALL, 8, torch.bfloat16, "cpu", "trace")
    found = original.extract_program(options)()
    assert found.shape == (4, 2 * (sum(SMALL.parts) + 1), SMALL.features)
    assert found.isfinite().all()


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
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
        (("--frames", "40"), "--frames 40: it must be a multiple of 12"),
        (("--what", "train"), "--what has 'train'"),
        (("--what", "check", "--golden", "all"), "--golden has 'all'"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, why, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["original.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        original.main()
    assert why in capsys.readouterr().err
