"""scripts/ablate.py: variants of any settings, looked up before the first run."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import small
from in_process import main_of

from dinogrl_jax.methods.contract import variants_of
from dinogrl_jax.training.interruption import STOPPED

ROW = {"rank1": 0.5, "mAP": 0.25, "mINP": 0.125, "chance_rank1": 0.1}


@pytest.fixture
def runs(monkeypatch):
    """The commands of runs, each of which stands in for a training and leaves its figures."""
    main_of("ablate")
    commands = []

    def train(command):
        folder = Path(command[command.index("--workdir") + 1])
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"infrared_to_visible": ROW}))
        commands.append((folder.name, sorted(x for x in command if x.startswith("--config."))))
        return 0

    monkeypatch.setattr(sys.modules["script_ablate"], "followed", train)
    return commands


def test_variants_of_the_command_line(runs, done, tmp_path):
    words = ["--variant", "No flip: augment.flip=0", "--variant", "Alles"]
    words += ["--variant", "late: 'optimizer.decay_epochs=(21, 27)' augment.flip=0"]
    words += ["--config", small.PATH, "--seeds", "2", "--out", tmp_path / "out"]
    words += ["--config.train.epochs=3"]
    status, output, errors = done("ablate", *words)
    assert status == 0 and not errors, errors
    assert runs[0] == (
        "no-flip-0",
        ["--config.augment.flip=0", "--config.seed=0", "--config.train.epochs=3"],
    )
    assert [name for name, _ in runs] == [
        *("no-flip-0", "no-flip-1", "alles-0", "alles-1", "late-0", "late-1")
    ]
    assert "--config.optimizer.decay_epochs=(21, 27)" in runs[4][1]
    assert "| No flip | 50.0 ± 0.0 | 25.0 ± 0.0 | 12.5 ± 0.0 |" in output
    assert (tmp_path / "out/ablation.md").read_text() == output
    assert list(json.loads((tmp_path / "out/ablation.json").read_text())) == [
        *("No flip", "Alles", "late")
    ]


def test_without_any_the_methods_own(runs, done, tmp_path):
    status, output, errors = done("ablate", "--config", small.PATH, "--seeds", "1")
    assert status == 0, errors
    own = variants_of(small.METHOD)
    assert len(runs) == len(own) and all(f"| {name} |" in output for name in own)
    for (_, options), settings in zip(runs, own.values(), strict=True):
        assert options == sorted(f"--config.{k}={v}" for k, v in {**settings, "seed": 0}.items())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a: augment.flip=0", "A!: augment.flip=1"], "the same folder, a: rename one"),
        (["a", "b: augment.flipp=0"], "'b': command line: --config.augment.flipp: there is no"),
        (["a", "b: augment.flip=7"], "'b': augment.flip = 7.0: it has to be 0 to 1"),
        (["b: augment.flip=much"], "--config.augment.flip=much: it has to be a finite number"),
        (["b: seed=3"], "--seeds says how many"),
        (["b: train.epochs=3"], "train.epochs is also set for all variants"),
        (["+++"], "give it a name"),
        (["x" * 101], "give it a name of 1 to 100 letters"),
        (["b: augment.flip"], "is no setting like"),
        (["b: 'augment.flip=0"], "No closing quotation"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_run(runs, refused, words, said):
    variants = [x for word in words for x in ("--variant", word)]
    assert said in refused("ablate", "--config", small.PATH, *variants, "train.epochs=2")
    assert not runs


SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(1)
    open(sys.argv[1], "w").write("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
open(sys.argv[1], "w").write("begun")
time.sleep(600)
"""


def test_a_stopped_run_saves_first(tmp_path):
    main_of("ablate")
    path = tmp_path / "said"

    def stop() -> None:
        while not (path.exists() and path.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    command = [sys.executable, "-c", SAVES, str(path)]
    assert sys.modules["script_ablate"].followed(command) == STOPPED
    assert path.read_text() == "saved"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ablate_stops_with_the_run_that_was_stopped(runs, done, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["script_ablate"], "followed", lambda command: STOPPED)
    status, output, errors = done("ablate", "--config", small.PATH, "--out", tmp_path / "out")
    assert status == STOPPED and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--variant", "a: augment.flip=0 augment.flip=1"],
        ["augment.flip=0", "augment.flip=1"],
    ],
    ids=["of a variant", "of all"],
)
def test_a_setting_that_is_set_twice_is_refused(runs, done, words):
    status, _, errors = done("ablate", "--config", small.PATH, *words)
    assert status == 2 and "augment.flip is set twice" in errors and not runs


def test_the_table_has_the_directions_of_all_runs(runs):
    table = sys.modules["script_ablate"].table
    found = table({"a|b": [{"visible_to_infrared": ROW, "infrared_to_visible": ROW}]})
    assert "| a\\|b | 50.0 ± 0.0 |" in found and found.count("rank1") == 2
    both, one = (
        {"visible_to_infrared": ROW, "infrared_to_visible": ROW},
        {"infrared_to_visible": ROW},
    )
    found = table({"a": [both], "b": [one]})
    assert "visible to infrared" not in found and "| b | 50.0" in found
