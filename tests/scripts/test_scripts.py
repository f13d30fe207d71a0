"""The README's commands end to end, on a data set and a model shrunk until they take seconds."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import small
from commands import ROOT, demo
from kill import kills, saved

FIGURES = {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP", "queries", "gallery"}


def run(*arguments, **changed) -> subprocess.CompletedProcess:
    return subprocess.run(demo(*arguments, **changed), capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = run("train.py", folder / "people", folder / "run", **{"data.workers": 2})
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_demo_ends_with_figures(trained):
    folder, done = trained
    results = json.loads((folder / "run/results.json").read_text())
    for direction in ("visible_to_infrared", "infrared_to_visible"):
        row = results[direction]
        assert FIGURES <= row.keys()
        assert all(0 <= row[name] <= 1 for name in ("rank1", "rank20", "mAP", "mINP"))
        assert row["queries"] == row["gallery"] == 9
        assert direction.replace("_", " ") in done.stdout
    assert (results["protocol"], results["checkpoint"], results["step"]) == ("vcm", "last", 6)
    assert results["best"]["checkpoint"] == "best"
    assert "steps/s" in done.stdout and "left" in done.stdout
    for name in small.METHOD.pictures(small.get_config()):
        assert (folder / f"run/pictures/{name}.png").stat().st_size > 1000
    assert list((folder / "run/tensorboard").glob("events*"))


def test_training_and_evaluation_write_the_same_queries(trained):
    """Those of the best checkpoint, so that runs are compared whichever command came last."""
    folder, _ = trained
    path = folder / "run/queries.json"
    before = json.loads(path.read_text())
    for name in ("visible_to_infrared", "infrared_to_visible"):
        best = json.loads((folder / "run/results.json").read_text())["best"]
        assert np.mean(before["directions"][name]["AP"]) == pytest.approx(best[name]["mAP"])
    same = {"data.workers": before["settings"]["data.workers"]}
    done = run("evaluate.py", folder / "people", folder / "run", **same)
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_text()) == before
    configured = before["settings"]["evaluation.distance"]
    other = next(name for name in ("cosine", "part_euclidean") if name != configured)
    for words in ([f"--distance={other}"], ["--config.data.test_frames=dense"]):
        command = [*demo("evaluate.py", folder / "people", folder / "run", **same), "--noreport"]
        done = subprocess.run([*command, *words], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert "queries.json: not written (" in done.stdout
        assert json.loads(path.read_text()) == before


def test_evaluate_gives_the_same_figures_from_the_checkpoint(trained):
    folder, _ = trained
    done = run("evaluate.py", folder / "people", folder / "run")
    assert done.returncode == 0, done.stderr
    again = json.loads((folder / "run/evaluation.json").read_text())
    results = json.loads((folder / "run/results.json").read_text())["best"]
    shared = again.keys() & results.keys()
    assert {"visible_to_infrared", "infrared_to_visible", "protocol", "step"} <= shared
    assert {key: again[key] for key in shared} == {key: results[key] for key in shared}
    facts = again["data"], again["verification"]["every_nth_query"], again["step"]
    assert facts == ({"name": "synthetic", "root": str(folder / "people")}, 1, results["step"])
    assert any(line.startswith("data.root: ") for line in again["settings"])
    report = (folder / "run/report.html").read_text()
    pictures = small.METHOD.pictures(small.get_config()).values()
    assert all(report.count(f"nearest match: {picture.caption}") == 12 for picture in pictures)
    assert report.count("data:image/jpeg") > 12 * (1 + 9) + 24 * len(pictures)
    names = small.METHOD.part_names(small.get_config())
    assert len(names) == 1 or all(name in report for name in (names[0], names[-1]))


def test_evaluate_other_than_it_was_trained(trained, tmp_path):
    folder, _ = trained
    changed = {"data.test_frames": "dense", "evaluation.camera_filter": "off"}
    arguments = demo("evaluate.py", folder / "people", folder / "run", **changed)
    done = subprocess.run(
        [*arguments, "--noreport", "--distance", "cosine", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["camera_filter"], results["distance"]) == (False, "cosine")
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == ["queries.json", "results.json"]
    plain = json.loads((folder / "run/results.json").read_text())
    assert results["visible_to_infrared"]["mAP"] != plain["visible_to_infrared"]["mAP"]


def script(name: str, *words, cwd) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_a_run_is_evaluated_and_continued_elsewhere(trained, tmp_path):
    """With its own settings, from another folder, with data that lie elsewhere by now."""
    folder, _ = trained
    moved, home = tmp_path / "moved", tmp_path / "home"
    shutil.copytree(folder / "run", moved)
    shutil.copytree(folder / "people", home / "people")
    done = script(
        "evaluate.py", "--workdir", moved, f"--config.data.root={home}/people", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    again = json.loads((moved / "evaluation.json").read_text())
    best = json.loads((moved / "results.json").read_text())["best"]
    assert {key: again[key] for key in again.keys() & best.keys()} == {
        key: best[key] for key in again.keys() & best.keys()
    }
    own = small.get_config().evaluation.distance
    other = next(name for name in ("cosine", "part_euclidean") if name != own)
    changes = ("train.epochs=4", f"evaluation.distance={other}", f"data.root={home}/people")
    done = script(
        "train.py",
        *("--config", moved / "config.json"),
        *(f"--config.{change}" for change in changes),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "continuing at step 6" in done.stdout and "is chosen anew" in done.stdout
    assert json.loads((moved / "results.json").read_text())["step"] == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "moved"]


def test_a_finished_run_is_not_trained_again(trained):
    folder, _ = trained
    before = saved(folder / "run")
    done = run("train.py", folder / "people", folder / "run")
    assert done.returncode == 0, done.stderr
    assert "loss" not in done.stdout
    assert all(map(np.array_equal, before, saved(folder / "run")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_continues_to_the_same_parameters(trained, number, tmp_path):
    folder, _ = trained
    process = subprocess.Popen(
        demo("train.py", folder / "people", tmp_path / "run", **{"data.workers": 1}),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    for line in process.stdout:
        if line.startswith("step 3/"):
            process.send_signal(number)
            break
    output = process.stdout.read()
    assert process.wait() == 75, output
    assert "stopped and saved" in output
    done = run("train.py", folder / "people", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "continuing at step" in done.stdout
    whole, resumed = saved(folder / "run"), saved(tmp_path / "run")
    assert len(whole) == len(resumed) > 100
    # Same machine, same program, same batches: not a bit may differ.
    assert all(map(np.array_equal, whole, resumed))


def test_a_killed_run_continues_to_the_same_parameters(trained, tmp_path):
    """Also while it writes a checkpoint; python tests/kill.py kills more often."""
    folder, _ = trained
    command = demo("train.py", folder / "people", tmp_path / "run", **{"train.checkpoint_every": 1})
    lines = list(kills(command, tmp_path / "run", [(0, True), (10, False), (0, True)]))
    assert sum("writing" in line for line in lines) >= 1, lines
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(map(np.array_equal, saved(folder / "run"), saved(tmp_path / "run")))
    assert json.loads((tmp_path / "run/results.json").read_text())


def test_a_full_disk_is_one_line_and_loses_nothing(trained, tmp_path):
    """The limit on a file's size stands in for the disk's: large files fail, as then."""
    folder, _ = trained
    shutil.copytree(folder / "run", tmp_path / "run")
    before = saved(tmp_path / "run")
    more = {"train.epochs": 4, "data.workers": 0}
    limited = ["bash", "-c", 'ulimit -f 20; exec "$@"', "bash"]  # KiB
    done = subprocess.run(
        [*limited, *demo("train.py", folder / "people", tmp_path / "run", **more)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # What is compiled is read, but nothing added to it: that would fail too, and say so.
        env={**os.environ, "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": str(2**40)},
    )
    assert done.returncode == 2, done.stderr
    lines = [x for x in done.stderr.strip().splitlines() if not x.startswith("embedding:")]
    *told, line = lines  # beside progress
    assert len(told) <= 1, done.stderr  # where pictures are too large as well
    assert all("scalars and pictures cannot be written (File too large)" in x for x in told)
    assert "run/checkpoints: a checkpoint cannot be written" in line and "File too large" in line
    assert all(map(np.array_equal, before, saved(tmp_path / "run")))
    done = run("train.py", folder / "people", tmp_path / "run", **more)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/results.json").read_text())["step"] == 8


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data.synthetic.nonsense": 1}, "nonsense"),
        ({"seed": "three"}, "config.seed"),
        ({"data.dataset": "mars"}, "data.dataset = 'mars'"),
        ({"data.root": ""}, "data.root"),
        ({"data.dataset": "vcm", "data.root": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"data.identities_per_batch": 50}, "identities_per_batch"),
        ({"data.frames": 3}, "data.frames: 2 → 3"),
    ],
)
def test_bad_settings_are_one_line_and_change_nothing(trained, changed, said):
    folder, _ = trained
    before = sorted((p, p.stat().st_mtime_ns) for p in (folder / "run").rglob("*"))
    done = run("train.py", folder / "people", folder / "run", **changed)
    assert done.returncode in (1, 2)
    (line,) = done.stderr.strip().splitlines()
    assert said in line
    assert sorted((p, p.stat().st_mtime_ns) for p in (folder / "run").rglob("*")) == before


def test_an_unreadable_frame_is_named(trained, tmp_path):
    folder, _ = trained
    people = shutil.copytree(folder / "people", tmp_path / "people")
    for frame in (people / "Train").rglob("*.jpg"):
        frame.write_text("no picture")
    done = run("train.py", people, tmp_path / "run")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert ".jpg" in done.stderr.strip().splitlines()[-1]
