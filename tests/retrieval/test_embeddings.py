"""What `embeddings` makes of tracklets, with an embedding that is worked by hand."""

import numpy as np
import pytest
import small
from PIL import Image

from dinogrl_jax.data import sampling, transforms
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Picture
from dinogrl_jax.retrieval.embedding import best_figure, embeddings
from dinogrl_jax.retrieval.pictures import make_pictures, picture_of_modalities

LENGTHS = (2, 5, 9, 4, 7)  # frames of the tracklets; clips have two


def mean_colour(variables, clips):
    return np.asarray(clips.frames).mean((1, 2, 3, 4))[:, None]


@pytest.fixture(scope="module")
def tracklets(tmp_path_factory):
    folder, rng, made = tmp_path_factory.mktemp("frames"), np.random.default_rng(0), []
    for number, length in enumerate(LENGTHS):
        paths = []
        for i in range(length):
            paths.append(str(folder / f"{number}-{i}.png"))
            picture = rng.integers(0, 256, (64, 32, 3), np.uint8)
            Image.fromarray(picture).save(paths[-1])
        modality = ("visible", "infrared")[number % 2]
        made.append(Tracklet(tuple(paths), number, 1, modality, "both"))
    return made


def by_hand(tracklet: Tracklet, rule: str) -> np.ndarray:
    frame = np.empty((64, 32, 3), np.float32)
    clips = []
    for chosen in sampling.TEST_CLIPS[rule](len(tracklet.frames), 2):
        means = []
        for index in chosen:
            transforms.fill_frame(frame, tracklet.frames[index])
            means.append(frame.mean((0, 1)))
        clips.append(np.mean(means, axis=0))
    return np.mean(clips, axis=0)


@pytest.mark.parametrize("rule", ["first-per-chunk", "uniform", "dense"])
@pytest.mark.parametrize("size", [1, 4])
def test_a_tracklet_s_descriptor_is_the_mean_of_its_clips(tracklets, rule, size):
    config = small.get_config()
    config.data.test_frames, config.evaluation.tracklets_per_batch = rule, size
    mesh = sharding.device_mesh()
    made = embeddings(mean_colour, {}, tracklets, config, mesh)
    expected = np.stack([by_hand(tracklet, rule) for tracklet in tracklets])
    np.testing.assert_allclose(made[:, 0], expected, rtol=1e-5, atol=1e-6)  # float32 sums


def test_models_see_cameras_and_modalities_of_their_clips(tracklets):
    config, seen = small.get_config(), []
    numbered = [tracklet._replace(camera=10 + i) for i, tracklet in enumerate(tracklets)]

    def camera(variables, clips):
        seen.append(clips.modalities)
        return np.asarray(clips.camera)[:, :, None].astype(np.float32)

    made = embeddings(camera, {}, numbered, config, sharding.device_mesh())
    assert made[:, 0, 0].tolist() == [10, 11, 12, 13, 14]
    assert seen == [("visible",), ("infrared",)]


@pytest.mark.parametrize("rule", ["uniform", "dense"])
def test_pictures_are_of_the_tracklets_asked_for_in_their_order(tracklets, rule):
    config = small.get_config()
    config.data.test_frames, config.evaluation.tracklets_per_batch = rule, 2

    def compute(model, variables, clips):
        return {"mean": clips.frames.mean((1, 2, 3, 4)) * variables["scale"]}

    def draw(frames, arrays):
        assert frames.shape == (len(arrays["mean"]), 2, 64, 32, 3)
        means = np.stack([frames.mean((1, 2, 3)), arrays["mean"] / 2], axis=1)
        return list(grey(means)[:, :, None])

    def grey(values):
        return np.round(128 + 40 * np.asarray(values)).astype(np.uint8)

    pictures = make_pictures(Picture(compute, draw), small.model(config), config)
    variables = {"scale": np.float32(2)}
    made = pictures(variables, [tracklets[i] for i in (3, 2, 0)])
    for picture, i in zip(made, (3, 2, 0), strict=True):
        start = tracklets[i]._replace(frames=tracklets[i].frames[:2])
        expected = by_hand(start if rule == "dense" else tracklets[i], "uniform")
        assert np.abs(picture[:, 0].astype(int) - grey(expected)).max() <= 1
    both = picture_of_modalities(pictures, variables, tracklets)
    visible, infrared = pictures(variables, tracklets[:2])
    np.testing.assert_array_equal(both, np.concatenate([visible, infrared], axis=1))


def test_the_best_checkpoint_is_chosen_by_any_figure():
    rows = {"visible_to_infrared": {"mAP": 0.2, "rank1": 0.3}, "infrared_to_visible": {"mAP": 0.6}}
    assert best_figure(rows, "mean.mAP") == pytest.approx(0.4)
    assert best_figure(rows, "visible_to_infrared.rank1") == 0.3
    with pytest.raises(InputError, match="evaluation.best = 'mAP': it has to be one of mean, vis"):
        best_figure(rows, "mAP")
    with pytest.raises(InputError, match="one of rank1, .*mINP"):
        best_figure(rows, "mean.chance")
    del rows["infrared_to_visible"]
    with pytest.raises(InputError, match="has no queries of that kind"):
        best_figure(rows, "infrared_to_visible.mAP")
