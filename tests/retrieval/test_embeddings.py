"""What `evaluate.embeddings` makes of tracklets, with an embedding that is worked by hand."""

import numpy as np
import pytest
import small
from PIL import Image

from dinogrl_jax.data import sampling, transforms
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.devices import sharding
from dinogrl_jax.retrieval.embedding import embeddings

LENGTHS = (2, 5, 9, 4, 7)  # frames of the tracklets; clips have two


def mean_colour(variables, frames, modality):
    return np.asarray(frames).mean((1, 2, 3, 4))[:, None]


@pytest.fixture(scope="module")
def descriptor_set(tmp_path_factory):
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
