import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from dinogrl_jax import config as configuration
from dinogrl_jax.data import pipeline, sampling, transforms
from dinogrl_jax.data.readers import vcm
from dinogrl_jax.data.tracklets import Tracklet, cameras, check_cameras, labels
from dinogrl_jax.interface.errors import InputError

PAIRS = 4  # 2 identities x 2 tracklets
AUGMENT = {"pad": 2, "flip": 0.5, "erase": 0.5, "channels": True}
SHARED = ("frames", "cameras", "labels")  # among processes


@pytest.fixture
def config() -> ConfigDict:
    settings = ConfigDict(configuration.shared())
    settings.data.update(height=16, width=8, frames=3, workers=0)
    settings.data.update(identities_per_batch=2, tracklets_per_identity=2)
    settings.augment = ConfigDict(AUGMENT)
    settings.evaluation.tracklets_per_batch = 4
    return settings


@pytest.fixture
def split(tree) -> tuple[list[Tracklet], list[Tracklet]]:
    return vcm.read_splits(tree.write_with_frames())


def training(train, config, **settings) -> list[pipeline.Batch]:
    settings = {"steps": 5} | settings
    with pipeline.training_batches(train, labels(train), config, **settings) as batches:
        return list(batches)


def assert_same(batches, others) -> None:
    for batch, other in zip(batches, others, strict=True):
        for value, other_value in zip(batch, other, strict=True):
            np.testing.assert_array_equal(value, other_value)


def test_a_training_batch_holds_pairs_of_clips(split, config):
    config.augment.update(pad=0, flip=0.0, erase=0.0, channels=False)
    train, _ = split
    for step, batch in enumerate(training(train, config)):
        assert batch.frames.shape == (PAIRS, 2, 3, 16, 8, 3) and batch.frames.dtype == np.float32
        assert batch.labels.dtype == np.int32
        drawn = sampling.identity_pairs(
            sampling.members(train, labels(train)), 2, 2, config.seed, step
        )
        np.testing.assert_array_equal(batch.labels, drawn.labels)
        seen = [[train[i].camera for i in positions] for positions in drawn[1:]]
        np.testing.assert_array_equal(batch.cameras.T, seen)
        for row, pair in enumerate(zip(drawn.visible, drawn.infrared, strict=True)):
            for clip, position in zip(batch.frames[row], pair, strict=True):
                # A frame is of one colour, so that each can be found among the tracklet's files.
                files = np.stack([plain_frame(path, config) for path in train[position].frames])
                distances = np.abs(files[None] - clip[:, None]).max((2, 3, 4))
                assert (distances.min(1) == 0).all()
                chunks = distances.argmin(1) // -(-len(files) // 3)
                assert chunks.tolist() == [0, 1, 2]


def plain_frame(path: str, config: ConfigDict) -> np.ndarray:
    out = np.empty((config.data.height, config.data.width, 3), np.float32)
    transforms.fill_frame(out, path)
    return out


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


def test_the_seed_decides_everything_and_no_step_repeats(split, config):
    first = training(split[0], config)
    assert_same(training(split[0], config), first)
    config.seed = 1
    frames = [batch.frames.tobytes() for batch in first + training(split[0], config)]
    assert len(set(frames)) == len(frames)


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


def test_evaluation_takes_every_tracklet_once_and_in_order(split, config):
    _, test = split
    batches = pipeline.evaluation_batches(test, config)
    assert len(batches) == 4  # 6 of each modality, 4 in a batch
    found = list(batches)
    assert [batch.modality for batch in found] == ["visible"] * 2 + ["infrared"] * 2
    assert [batch.valid.sum() for batch in found] == [4, 2, 4, 2]
    kept = np.concatenate([batch.positions[batch.valid] for batch in found]).tolist()
    assert kept == [3, 4, 5, 9, 10, 11, 0, 1, 2, 6, 7, 8]
    for batch in found:
        assert batch.frames.shape == (4, 1, 3, 16, 8, 3)
        assert batch.cameras.tolist() == [test[position].camera for position in batch.positions]
        for clip, position in zip(batch.frames[:, 0], batch.positions, strict=True):
            frames = test[position].frames
            chosen = sampling.first_per_chunk(len(frames), 3)
            expected = np.stack([plain_frame(frames[i], config) for i in chosen])
            np.testing.assert_array_equal(clip, expected)


def test_exactly_as_many_frames_are_taken_as_they_are(split, config):
    config.data.frames = 12
    _, test = split
    batch = next(pipeline.evaluation_batches(test, config))
    expected = np.stack([plain_frame(path, config) for path in test[3].frames])
    np.testing.assert_array_equal(batch.frames[0, 0], expected)


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


def test_settings_that_do_not_fit_are_refused_at_once(split, config):
    train, _ = split
    with pytest.raises(InputError, match="4 cannot be divided among 3 processes"):
        training(train, config, process_count=3)
    with pytest.raises(InputError, match="no infrared tracklet of identity 2"):
        training([t for t in train if (t.identity, t.modality) != (2, "infrared")], config)
    with pytest.raises(InputError, match="the test set has no tracklets"):
        pipeline.evaluation_batches([], config)
    config.data.identities_per_batch = 3
    with pytest.raises(InputError, match="data.identities_per_batch = 3"):
        training(train, config)
    config.seed = -1
    config.data.identities_per_batch = 2
    with pytest.raises(InputError, match="seed = -1"):
        training(train, config)


def test_closing_early_ends_workers_and_removes_their_files(split, config):
    config.data.workers = 2
    before = multiprocessing.active_children()
    with pipeline.training_batches(split[0], labels(split[0]), config, steps=1000) as batches:
        assert len(batches) == 1000
        first = next(batches)
        folder = Path(batches.folder.name)
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
        folder = Path(batches.folder.name)
        kept = next(batches).frames[1:]  # a part keeps the whole alive
        names = set()
        for batch, other in zip(batches, expected[1:], strict=True):
            np.testing.assert_array_equal(batch.frames, other.frames)
            names |= {path.stat().st_ino for path in folder.iterdir()}
            del batch
        np.testing.assert_array_equal(kept, expected[0].frames[1:])
    assert len(names) < 12


def test_frames_travel_over_the_disk_where_memory_is_short():
    with pipeline.shared_folder(10**18) as large, pipeline.shared_folder(1) as small:
        assert not large.startswith("/dev/shm")
        assert small.startswith("/dev/shm") == os.path.isdir("/dev/shm")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_neighbour_stands_in_for_an_unreadable_frame(split, config, tree, workers, caplog):
    config.augment.update(pad=0, flip=0.0, erase=0.0, channels=False)
    train, _ = split
    folder = tree.root / "Train/0002/rgb/D11"
    bad, far = folder / "116.jpg", folder / "111.jpg"  # so that 121 and 106 are the nearest
    expected = training(train, config, steps=20)
    stand_ins = [plain_frame(str(folder / f"{number}.jpg"), config) for number in (106, 121)]
    bad.write_text("no image")
    far.write_text("no image either")
    config.data.update(bad_frames="neighbour", workers=workers)
    with pipeline.training_batches(train, labels(train), config, steps=20) as batches:
        found = list(batches)
    places = [frame for batch in found for frame in batch.replaced]
    assert batches.replaced == {str(bad): places.count(str(bad)), str(far): places.count(str(far))}
    assert caplog.text.count("a neighbour stands in") == 2  # once each, however often they come
    for batch, whole in zip(found, expected, strict=True):
        differ = (batch.frames != whole.frames).any((3, 4, 5))
        assert differ.sum() == len(batch.replaced)
        for frame in batch.frames[differ]:
            assert any((frame == stand_in).all() for stand_in in stand_ins)


def test_a_tracklet_without_a_readable_frame_stops(split, config, tree):
    for path in (tree.root / "Train/0002/rgb/D3").glob("*.jpg"):
        path.write_text("no image")
    config.data.bad_frames = "neighbour"
    with pytest.raises(InputError, match="no other frame of its tracklet"):
        training(split[0], config, steps=50)
    config.data.bad_frames = "ignore"
    with pytest.raises(InputError, match="data.bad_frames = 'ignore': there is stop, neighbour"):
        training(split[0], config)


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
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    shares = [np.load(out) for out in outs]
    for step, whole in enumerate(training(split[0], config)):
        for name in SHARED:
            joined = np.concatenate([share[name][step] for share in shares])
            np.testing.assert_array_equal(joined, getattr(whole, name))


def test_aligned_clips_show_the_same_instants(split, config):
    config.augment.update(pad=0, flip=0.0, erase=0.0, channels=False)
    visible = [t for t in split[0] if t.modality == "visible"]
    pairs = [
        t._replace(modality=modality, pair=number, frames=t.frames if number % 2 else t.frames[:12])
        for number, t in enumerate(visible)
        for modality in ("visible", "infrared")
    ]
    config.data.update(batch_rule="camera-pairs", training_frames="sorted-random", workers=1)
    batches = training(pairs, config, steps=6)
    for batch in batches:
        np.testing.assert_array_equal(batch.frames[:, 0], batch.frames[:, 1])
        assert len(set(batch.labels.tolist())) == 2
    assert_same(training(pairs, config, start_step=4, steps=2), batches[4:])
    config.data.batch_rule = "identity"
    mixed = training(pairs, config, steps=6)
    assert any((batch.frames[:, 0] != batch.frames[:, 1]).any() for batch in mixed)


@pytest.mark.parametrize("rule, clips", [("uniform", 1), ("dense", 5)])
def test_test_frames_by_other_rules(split, config, rule, clips):
    config.data.update(test_frames=rule, frames=3)
    test = [split[1][5]]  # 14 frames
    (*_, last) = batches = list(pipeline.evaluation_batches(test, config))
    assert sum(batch.valid.sum() for batch in batches) == clips
    assert {int(p) for batch in batches for p in batch.positions} == {0}
    chosen = {"uniform": (0, 4, 9), "dense": (12, 13, 12)}[rule]
    expected = np.stack([plain_frame(test[0].frames[i], config) for i in chosen])
    np.testing.assert_array_equal(last.frames[0, 0], expected)


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
    print(batches.folder.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_no_worker_and_no_files(tree, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(root=tree.write_with_frames()))
    # The worker holds the other end of stdout, so that this returns only once it has ended.
    result = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == -signal.SIGKILL
    folder = Path(result.stdout.strip())
    deadline = time.monotonic() + 5
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert folder.name.startswith("dinogrl_") and not folder.exists()


@pytest.mark.parametrize("rule", ["uniform", "dense"])
def test_a_sweep_takes_every_training_tracklet_once(split, config, rule):
    train, config.data.test_frames = split[0], rule
    label_of = labels(train)
    batches = list(pipeline.sweep_batches(train, label_of, config, 5, multiple=4))
    assert {batch.frames.shape for batch in batches} == {(8, 1, 3, 16, 8, 3)}
    kept = [int(p) for batch in batches for p in batch.positions[batch.valid]]
    visible = [t.modality == "visible" for t in train]
    assert kept == sorted(range(len(train)), key=lambda p: not visible[p])
    chosen = sampling.uniform if rule == "uniform" else sampling.first_per_chunk
    for batch in batches:
        assert all(train[p].modality == batch.modality for p in batch.positions)
        people = [label_of[train[p].identity] for p in batch.positions]
        assert batch.labels.tolist() == people
        assert batch.cameras.tolist() == [train[p].camera for p in batch.positions]
        names = train[batch.positions[0]].frames
        expected = [plain_frame(names[i], config) for i in chosen(len(names), 3)]
        np.testing.assert_array_equal(batch.frames[0, 0], np.stack(expected))
    halves = [
        pipeline.sweep_batches(train, label_of, config, 8, process_index=i, process_count=2)
        for i in range(2)
    ]
    for whole, *shares in zip(batches, *halves, strict=True):
        joined = np.concatenate([share.frames for share in shares])
        np.testing.assert_array_equal(joined, whole.frames)


def test_a_sweep_goes_on_at_an_unreadable_frame_as_training_does(split, config, tree):
    train = split[0]
    path = Path(train[0].frames[0])
    path.write_text("no image")
    with pytest.raises(InputError, match="is not an image"):
        list(pipeline.sweep_batches(train, labels(train), config, 4))
    config.data.bad_frames = "neighbour"
    batches = pipeline.sweep_batches(train, labels(train), config, 4)
    assert len(list(batches)) and batches.replaced == {str(path): 1}


def test_training_tracklets_of_unknown_cameras_are_refused_where_cameras_are_needed(split):
    train = split[0]
    assert cameras(train) == tuple(sorted({t.camera for t in train}))
    check_cameras(train, "A method")
    unknown = [t._replace(camera=-1) if i in (2, 5) else t for i, t in enumerate(train)]
    assert -1 not in cameras(unknown)
    with pytest.raises(InputError, match="A method needs cameras") as caught:
        check_cameras(unknown, "A method")
    assert f"{unknown[2].frames[0]} and of 1 more is unknown" in str(caught.value)


def test_what_augmentation_leaves_out_does_nothing(split, config):
    config.augment = ConfigDict({})
    plain = training(split[0], config)
    del config.augment
    assert_same(training(split[0], config), plain)
    config.augment = ConfigDict(dict.fromkeys(("pad", "flip", "erase"), 0) | {"channels": False})
    assert_same(training(split[0], config), plain)
