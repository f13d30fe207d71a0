import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl_jax.data import sampling
from dinogrl_jax.data.tracklets import Tracklet, check, check_training, labels
from dinogrl_jax.interface.errors import InputError, lookup

GOLDEN = [  # of the published samplers, spec/datasets.md 1.7 and 2.3
    (sampling.first_per_chunk, 24, 6, "0 4 8 12 16 20"),
    (sampling.first_per_chunk, 25, 6, "0 5 10 15 20 24"),
    (sampling.first_per_chunk, 13, 6, "0 3 6 9 12 12"),
    (sampling.first_per_chunk, 24, 10, "0 3 6 9 12 15 18 21 23 23"),
    (sampling.first_per_chunk, 13, 10, "0 2 4 6 8 10 12 12 12 12"),
    (sampling.uniform, 24, 10, "0 2 4 7 9 12 14 16 19 21"),
    (sampling.uniform, 13, 10, "0 1 2 3 5 6 7 9 10 11"),
    (sampling.uniform, 3, 10, "0 0 0 0 1 1 1 2 2 2"),
]
small = st.integers(1, 60)


@pytest.mark.parametrize("rule, n, frames, expected", GOLDEN)
def test_golden_indices(rule, n, frames, expected):
    assert rule(n, frames).tolist() == list(map(int, expected.split()))


def test_dense_clips_repeat_the_last_from_its_start():
    clips = sampling.dense_clips(26, 8)
    assert clips.shape == (4, 8)
    assert clips[1].tolist() == list(range(8, 16))
    assert clips[3].tolist() == [24, 25] * 4
    assert sampling.dense_clips(16, 8).tolist() == [list(range(8)), list(range(8, 16))]


def published_chunks(n, frames):
    """The padded chunks, written as the published datasets do."""
    size = -(-n // frames)
    indices = list(range(n)) + [n - 1] * (size * frames - n)
    return [indices[i : i + size] for i in range(0, size * frames, size)]


@settings(deadline=None)
@given(small, small, st.integers(0, 2**31))
def test_a_random_frame_of_each_chunk(n, frames, seed):
    chosen = sampling.one_per_chunk(n, frames, np.random.default_rng(seed))
    chunks = published_chunks(n, frames)
    assert len(chosen) == len(chunks) == frames
    assert all(index in chunk for index, chunk in zip(chosen, chunks, strict=True))
    assert sampling.first_per_chunk(n, frames).tolist() == [chunk[0] for chunk in chunks]


def test_every_frame_of_a_chunk_is_equally_likely():
    rng = np.random.default_rng(0)
    draws = np.array([sampling.one_per_chunk(13, 6, rng) for _ in range(3000)])
    for column, chunk in enumerate(published_chunks(13, 6)):
        values, counts = np.unique(draws[:, column], return_counts=True)
        expected = [chunk.count(value) * 3000 / len(chunk) for value in values]
        assert values.tolist() == sorted(set(chunk))
        assert np.allclose(counts, expected, atol=5 * np.sqrt(3000) / 2)  # 5 deviations


@given(small)
def test_exactly_as_many_frames_are_taken_as_they_are(n):
    rng = np.random.default_rng(0)
    everything = list(range(n))
    assert sampling.one_per_chunk(n, n, rng).tolist() == everything
    assert sampling.first_per_chunk(n, n).tolist() == everything
    assert sampling.uniform(n, n).tolist() == everything
    assert sampling.sorted_random(n, n, rng).tolist() == everything
    assert sampling.dense_clips(n, n).tolist() == [everything]


@settings(deadline=None)
@given(small, small, st.integers(0, 2**31))
def test_sorted_random_repeats_only_what_it_must(n, frames, seed):
    chosen = sampling.sorted_random(n, frames, np.random.default_rng(seed))
    assert len(chosen) == frames and (np.diff(chosen) >= 0).all()
    assert 0 <= chosen.min() and chosen.max() < n
    assert n < frames or len(set(chosen.tolist())) == frames


def tracklets(counts):
    """Tracklets of identities 10, 20, …, with so many visible and infrared ones."""
    return [
        Tracklet(("a.jpg",), 10 * (i + 1), 1, modality, "train")
        for i, pair in enumerate(counts)
        for modality, count in zip(("visible", "infrared"), pair, strict=True)
        for _ in range(count)
    ]


def pairs(step, seed=0, counts=((1, 2), (3, 1), (2, 2), (5, 4))):
    listed = tracklets(counts)
    return listed, sampling.identity_pairs(
        sampling.members(listed, labels(listed)), 3, 4, seed, step
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 2**31))
def test_a_batch_pairs_tracklets_of_one_identity(step, seed):
    listed, batch = pairs(step, seed)
    mapping = labels(listed)
    assert len(set(batch.labels.tolist())) == 3
    assert (batch.labels.reshape(3, 4) == batch.labels[::4, None]).all()
    for label, visible, infrared in zip(*batch, strict=True):
        assert (listed[visible].modality, listed[infrared].modality) == ("visible", "infrared")
        assert mapping[listed[visible].identity] == mapping[listed[infrared].identity] == label


def test_a_batch_depends_on_seed_and_step_alone():
    def drawn(step, seed):
        return np.concatenate(pairs(step, seed)[1]).tolist()

    assert drawn(5, 1) == drawn(5, 1)
    assert len({str(drawn(step, seed)) for step in range(5) for seed in range(5)}) == 25


def test_identities_and_tracklets_are_equally_likely():
    drawn = [pairs(step)[1] for step in range(2000)]
    identities = np.bincount(np.concatenate([batch.labels[::4] for batch in drawn]))
    assert np.allclose(identities, 1500, atol=5 * np.sqrt(2000 * 3 / 16))  # 5 deviations
    listed, _ = pairs(0)
    last = np.concatenate([batch.visible for batch in drawn])
    last = np.array([np.sum(last == i) for i, t in enumerate(listed)
                     if (t.identity, t.modality) == (40, "visible")])  # fmt: skip
    assert np.allclose(last, 1500 * 4 / 5, atol=5 * np.sqrt(1500 * 4 * 4 / 25))


def test_a_fixed_list_comes_round_and_round():
    """Of 7 identities two batches of 2 are drawn at once, as many pairs as the fewer tracklets."""
    counts = [(2, 3), (4, 1), (3, 3), (2, 2), (5, 2), (1, 4), (3, 3)]  # 20 visible, 18 infrared
    own = sampling.members(tracklets(counts), labels(tracklets(counts)))
    batches = sampling.fixed_pairs(own, 2, 2, seed=0)
    assert batches.shape == (2 * (18 // 8), 3, 4)
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        drawn = [*first[0, ::2], *second[0, ::2]]
        assert len(set(drawn)) == 4  # distinct in both together
    for label, visible, infrared in batches.transpose(0, 2, 1).reshape(-1, 3):
        assert visible in own[label][0] and infrared in own[label][1]
    for step in (0, 3, 4, 9):
        found = sampling.recurring_pairs(batches, step)
        np.testing.assert_array_equal(np.stack(found), batches[step % 4])
    np.testing.assert_array_equal(sampling.fixed_pairs(own, 2, 2, seed=0), batches)
    assert not np.array_equal(sampling.fixed_pairs(own, 2, 2, seed=1), batches)


def test_a_fixed_list_of_few_people():
    """There are not twice as many as in a batch, and fewer tracklets than it has."""
    counts = [(1, 2), (2, 1), (1, 1)]
    own = sampling.members(tracklets(counts), labels(tracklets(counts)))
    batches = sampling.fixed_pairs(own, 2, 4, seed=0)
    assert batches.shape == (1, 3, 8)


def filmed(counts):
    """Aligned pairs of identities 0, 1, …: for each a list of pairs in each camera."""
    items = [
        (identity, camera)
        for identity, cameras in enumerate(counts)
        for camera, count in enumerate(cameras)
        for _ in range(count)
    ]
    listed = [
        Tracklet(("a.jpg",) * 3, identity, camera, modality, "train", number)
        for number, (identity, camera) in enumerate(items)
        for modality in ("visible", "infrared")
    ]
    listed.append(listed[-1]._replace(pair=-1))  # of no pair: never drawn
    pairs = sampling.aligned_pairs(listed, labels(listed))
    return listed, pairs, np.array([listed[i].camera for i in pairs.visible])


CAMPUS = [(2, 3, 0), (1, 1, 1), (4, 0, 0), (0, 2, 2), (3, 3, 3)]  # the third has one camera


def test_aligned_pairs_are_of_one_identity_and_camera():
    listed, pairs, _ = filmed(CAMPUS)
    assert len(pairs.labels) == sum(map(sum, CAMPUS))
    for label, visible, infrared in zip(*pairs, strict=True):
        assert listed[visible].modality == "visible" and listed[infrared].modality == "infrared"
        assert listed[visible][1:3] == listed[infrared][1:3] and listed[visible].identity == label
        assert listed[visible].pair == listed[infrared].pair


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_an_epoch_of_camera_pairs_ends_when_it_is_exhausted(seed):
    _, pairs, camera = filmed(CAMPUS)
    rng = np.random.default_rng(seed)
    batches = sampling.camera_pairs_epoch(pairs.labels, camera, 3, 2, rng)
    drawn = np.concatenate(batches)
    assert len(set(drawn.tolist())) == len(drawn)  # each at most once
    for batch in batches:
        assert len(set(pairs.labels[batch].tolist())) == 3
        assert (pairs.labels[batch[::2]] == pairs.labels[batch[1::2]]).all()
        assert (camera[batch[::2]] != camera[batch[1::2]]).all()
    assert 2 not in pairs.labels[drawn]
    left = np.setdiff1d(np.arange(len(camera)), drawn)
    able = [k for k in range(5) if len(set(camera[left][pairs.labels[left] == k].tolist())) > 1]
    assert len(able) < 3


def test_camera_pairs_begin_alike_however_many_steps_there_are():
    _, pairs, camera = filmed(CAMPUS)
    many = sampling.camera_pairs(pairs, camera, 3, 2, 7, 40)
    assert many.shape == (40, 6)
    assert (sampling.camera_pairs(pairs, camera, 3, 2, 7, 25) == many[:25]).all()
    assert (sampling.camera_pairs(pairs, camera, 3, 2, 8, 40) != many).any()
    assert len(np.unique(many)) == len(camera) - 4  # all but those of the single camera
    with pytest.raises(InputError, match="data.identities_per_batch = 5"):
        sampling.camera_pairs(pairs, camera, 5, 2, 0, 1)


def test_rules_by_name():
    assert sampling.TEST_CLIPS["uniform"](24, 10).tolist() == [sampling.uniform(24, 10).tolist()]
    assert sampling.TEST_CLIPS["dense"](26, 8).shape == (4, 8)
    with pytest.raises(InputError, match="data.test_frames = 'all': there is first-per-chunk"):
        lookup(sampling.TEST_CLIPS, "all", "data.test_frames")


def test_streams_of_different_purposes_differ():
    draws = {
        sampling.stream(seed, purpose, index).integers(2**62)
        for seed in range(3)
        for purpose in (sampling.BATCHES, sampling.EXAMPLES, sampling.EPOCHS)
        for index in range(3)
    }
    assert len(draws) == 27


def test_labels_are_sorted():
    assert labels(tracklets([(1, 1)] * 3)[::-1]) == {10: 0, 20: 1, 30: 2}
    strings = [Tracklet(("a",), name, 1, "visible", "train") for name in ("9", "10", "9")]
    assert labels(strings) == {"10": 0, "9": 1}


@pytest.mark.parametrize(
    "counts, identities, words",
    [
        ([], 1, "no tracklets"),
        ([(1, 1), (2, 0), (0, 1)], 1, "no visible tracklet of identity 30"),
        ([(1, 1), (2, 0), (0, 1)], 1, "no infrared tracklet of identity 20"),
        ([(1, 0)] * 12, 1, "10, 20, 30, 40, 50, 60, 70, 80, 90, 100 and 2 more"),
        ([(1, 1)] * 3, 4, "3 identities, fewer than data.identities_per_batch = 4"),
    ],
)
def test_sets_that_cannot_be_trained_on(counts, identities, words):
    with pytest.raises(InputError, match=words):
        check_training(tracklets(counts), identities)


def test_tracklets_that_are_none():
    check(tracklets([(1, 1)]), "test")
    with pytest.raises(InputError, match="tracklet 1 .*no frames"):
        check([*tracklets([(1, 0)]), Tracklet((), 7, 2, "visible", "both")], "test")
    with pytest.raises(InputError, match="'thermal'"):
        check([Tracklet(("a",), 7, 2, "thermal", "both")], "test")
