"""Who makes batches: threads, worker processes, several hosts; and what is left of them."""

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_batches import AUGMENT, assert_same, training

from dinogrl_jax.data import pipeline
from dinogrl_jax.data.tracklets import labels
from dinogrl_jax.interface.errors import InputError

SHARED = ("frames", "cameras", "labels")  # among processes


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_batches(split, config, workers):
    expected = training(split[0], config)
    config.data.workers = workers
    found = training(split[0], config)
    assert_same(found, expected)
    assert all(type(batch.frames) is np.ndarray for batch in found)
    found[0].frames[:] = 0  # the memory is the batch's own


def test_workers_evaluate_the_same_batches(split, config):
    expected = list(pipeline.evaluation_batches(split[1], config))
    config.data.workers = 1
    with pipeline.evaluation_batches(split[1], config) as batches:
        assert_same(list(batches), expected)


def test_a_run_resumes_at_any_step(split, config):
    whole = training(split[0], config, steps=6)
    assert_same(training(split[0], config, start_step=4, steps=2), whole[4:])
    assert training(split[0], config, start_step=4, steps=0) == []


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_batch_of_one(split, config, count):
    train, test = split
    parts = [training(train, config, process_index=i, process_count=count) for i in range(count)]
    for whole, *shares in zip(training(train, config), *parts, strict=True):
        for field, value in whole._asdict().items():
            joined = np.concatenate([getattr(share, field) for share in shares])
            np.testing.assert_array_equal(joined, value)
    parts = [
        pipeline.evaluation_batches(test, config, process_index=i, process_count=count)
        for i in range(count)
    ]
    for whole, *shares in zip(pipeline.evaluation_batches(test, config), *parts, strict=True):
        for field in ("frames", "cameras", "labels", "positions", "valid"):
            joined = np.concatenate([getattr(share, field) for share in shares])
            np.testing.assert_array_equal(joined, getattr(whole, field))


SHARE = f"""
import sys
import numpy as np
from ml_collections import ConfigDict
from dinogrl_jax import config
from dinogrl_jax.data import pipeline, tracklets
from dinogrl_jax.data.readers import vcm
AUGMENT = {AUGMENT}
if __name__ == "__main__":
    root, out, index = sys.argv[1:]
    settings = ConfigDict(config.shared() | dict(augment=AUGMENT))
    settings.data.update(height=16, width=8, frames=3, workers=1)
    settings.data.update(identities_per_batch=2, tracklets_per_identity=2)
    train, _ = vcm.read_splits(root)
    share = dict(process_index=int(index), process_count=2)
    batches = pipeline.training_batches(train, tracklets.labels(train), settings, steps=5, **share)
    batches = list(batches)
    arrays = dict((name, [getattr(b, name) for b in batches]) for name in {SHARED})
    np.savez(out, **arrays)
"""


def test_two_processes_read_the_batches_of_one(split, config, tree, tmp_path):
    script = tmp_path / "share.py"
    script.write_text(SHARE)
    outs = [tmp_path / f"{index}.npz" for index in range(2)]
    started = [
        subprocess.Popen([sys.executable, script, tree.root, out, str(index)])
        for index, out in enumerate(outs)
    ]
    assert [process.wait() for process in started] == [0, 0]
    shares = [np.load(out) for out in outs]
    for step, whole in enumerate(training(split[0], config)):
        for name in SHARED:
            joined = np.concatenate([share[name][step] for share in shares])
            np.testing.assert_array_equal(joined, getattr(whole, name))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_frame_stops_with_one_line(split, config, tree, workers):
    path = tree.root / "Train" / "0002" / "rgb" / "D11" / "116.jpg"
    path.write_text("no image")
    config.data.workers = workers
    before = multiprocessing.active_children()
    with pytest.raises(InputError) as caught:
        training(split[0], config, steps=50)
    assert str(caught.value) == f"{path} is not an image: restore it"
    assert multiprocessing.active_children() == before


def test_closing_early_ends_workers_and_removes_their_files(split, config):
    config.data.workers = 2
    before = multiprocessing.active_children()
    with pipeline.training_batches(split[0], labels(split[0]), config, steps=1000) as batches:
        assert len(batches) == 1000
        first = next(batches)
        folder = batches.folder.path
        assert folder.is_dir() and len(multiprocessing.active_children()) == len(before) + 2
    assert multiprocessing.active_children() == before
    assert not folder.exists()
    assert np.isfinite(first.frames).all()  # the batch outlives its file
    with pytest.raises(StopIteration):
        next(batches)


def test_memory_is_used_again_once_nothing_refers_to_it(split, config):
    expected = training(split[0], config, steps=12)
    config.data.workers = 2
    with pipeline.training_batches(split[0], labels(split[0]), config, steps=12) as batches:
        folder = batches.folder.path
        kept = next(batches).frames[1:]  # a part keeps the whole alive
        names = set()
        for batch, other in zip(batches, expected[1:], strict=True):
            np.testing.assert_array_equal(batch.frames, other.frames)
            names |= {path.stat().st_ino for path in folder.iterdir()}
            del batch
        np.testing.assert_array_equal(kept, expected[0].frames[1:])
    assert len(names) < 12


KILLED = """
import os, signal
from ml_collections import ConfigDict
from dinogrl_jax import config
from dinogrl_jax.data import pipeline, tracklets
from dinogrl_jax.data.readers import vcm
if __name__ == "__main__":
    settings = ConfigDict(config.shared())
    settings.data.update(height=16, width=8, workers=1, identities_per_batch=2)
    train, _ = vcm.read_splits({root!r})
    batches = pipeline.training_batches(train, tracklets.labels(train), settings, steps=1000)
    next(batches)
    print(batches.folder.path, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_no_worker_and_no_files(tree, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(root=tree.write_with_frames()))
    # The worker holds the other end of stdout, so that this returns only once it has ended.
    result = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert result.returncode == -signal.SIGKILL
    folder = Path(result.stdout.strip())
    assert folder.name.startswith("dinogrl_")
    end = time.monotonic() + 600  # its worker removes it, on a busy machine late
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not folder.exists()
