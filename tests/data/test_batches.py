"""What is in a batch: of training, of an evaluation, of a sweep."""

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from small_batches import assert_same, plain_frame, training

from dinogrl_jax.data import pipeline, sampling
from dinogrl_jax.data.tracklets import labels
from dinogrl_jax.interface.errors import InputError

PAIRS = 4  # 2 identities × 2 tracklets


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


def test_the_seed_decides_everything_and_no_step_repeats(split, config):
    first = training(split[0], config)
    assert_same(training(split[0], config), first)
    config.seed = 1
    frames = [batch.frames.tobytes() for batch in first + training(split[0], config)]
    assert len(set(frames)) == len(frames)


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


def test_what_augmentation_leaves_out_does_nothing(split, config):
    config.augment = ConfigDict({})
    plain = training(split[0], config)
    del config.augment
    assert_same(training(split[0], config), plain)
    config.augment = ConfigDict(dict.fromkeys(("pad", "flip", "erase"), 0) | {"channels": False})
    assert_same(training(split[0], config), plain)


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


def test_a_sweep_that_is_drawn_is_so_for_each_epoch(split, config):
    """Every tracklet once, in another order, with frames that training could draw."""
    train, label_of = split[0], labels(split[0])

    def swept(epoch, **share):
        return list(pipeline.sweep_batches(train, label_of, config, 4, epoch=epoch, **share))

    orders = []
    for epoch in (0, 1, 0):
        batches = swept(epoch)
        kept = [int(p) for batch in batches for p in batch.positions[batch.valid]]
        assert sorted(kept) == list(range(len(train)))
        modalities = [train[p].modality for p in kept]
        assert modalities == sorted(modalities, reverse=True)  # visible ones first
        for batch in batches:
            for position, clip in zip(batch.positions, batch.frames[:, 0], strict=True):
                names = train[position].frames
                size = -(-len(names) // 3)
                for i, frame in enumerate(clip):
                    chunk = names[i * size : (i + 1) * size] or names[-1:]
                    assert any(np.array_equal(frame, plain_frame(n, config)) for n in chunk)
        orders.append((kept, [batch.frames for batch in batches]))
    (first, frames), (second, _), (again, same) = orders
    assert first != second and first == again
    assert all(map(np.array_equal, frames, same))
    halves = [swept(0, process_index=i, process_count=2) for i in range(2)]
    for whole, *shares in zip(frames, *halves, strict=True):
        np.testing.assert_array_equal(np.concatenate([x.frames for x in shares]), whole)


def test_a_sweep_goes_on_at_an_unreadable_frame_as_training_does(split, config, tree):
    train = split[0]
    path = Path(train[0].frames[0])
    path.write_text("no image")
    with pytest.raises(InputError, match="is not an image"):
        list(pipeline.sweep_batches(train, labels(train), config, 4))
    config.data.bad_frames = "neighbour"
    batches = pipeline.sweep_batches(train, labels(train), config, 4)
    assert len(list(batches)) and batches.replaced == {str(path): 1}
