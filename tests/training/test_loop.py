"""The loop of a training, with a method of three numbers: what stops and errors leave.

Kinds A (nothing is lost to an evaluation), F (batches that are all skipped) and I (signals, locks).
"""

import json
import os
import re
import signal
from types import ModuleType

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from kill import saved
from PIL import Image

from dinogrl_jax import methods
from dinogrl_jax.data import pipeline
from dinogrl_jax.interface.checks import DECLARED
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.locks import lock
from dinogrl_jax.methods.contract import Group, Made, Sweep, no_sweep
from dinogrl_jax.retrieval import embedding
from dinogrl_jax.training import checkpoint, loop
from dinogrl_jax.training.guard import MOST_IN_A_ROW, Guard

IDENTITIES = 3


class Colour(nn.Module):
    """The mean colour of a clip, scaled; and how many tracklets the passes before epochs saw."""

    config: object
    facts: object

    @nn.compact
    def __call__(self, clips, *, train):
        self.variable("memory", "seen", jnp.zeros, (), jnp.int32)
        scale = self.param("scale", nn.initializers.ones, (3,))
        return clips.frames.mean((2, 3, 4)).reshape(-1, 3) * scale


def training_loss(model, variables, clips, labels, key, config):
    total = jnp.square(model.apply(variables, clips, train=True)).mean()
    return total, Made({"total": total}, {})


def before_epoch(model, config, epoch):
    if epoch == COLOUR.signalled_at:
        os.kill(os.getpid(), signal.SIGUSR1)
    return SWEEP


SWEEP = Sweep(
    4,
    lambda variables: jnp.zeros((), jnp.int32),
    lambda variables, count, clips, labels, valid: ({}, count + valid.sum()),
    lambda variables, count: {"memory": {"seen": variables["memory"]["seen"] + count}},
)
COLOUR = ModuleType("colour")
vars(COLOUR).update(
    TITLE="Colour",
    NEEDS_CAMERAS=False,
    Model=Colour,
    training_loss=training_loss,
    before_epoch=before_epoch,
    signalled_at=None,
    settings=lambda: {"data": {"frames": 2}},
    groups=lambda config: [Group(".*", lambda step: jnp.asarray(0.1))],
    descriptor=lambda output, config: output[:, None],
    part_names=lambda config: ["whole"],
    starting_weights=lambda config: {},
    released_files=lambda config: {},
    pictures=lambda config: {},
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder, rng, lines = tmp_path_factory.mktemp("people"), np.random.default_rng(0), []
    for split in ("train", "test"):
        for number in range(4 * IDENTITIES):
            name = f"{split}{number}.png"
            Image.fromarray(rng.integers(0, 256, (8, 4, 3), np.uint8)).save(folder / name)
            identity = number % IDENTITIES + (100 if split == "test" else 0)
            line = {"frames": [name, name], "identity": identity, "split": split}
            modality = ("visible", "infrared")[number // IDENTITIES % 2]
            lines.append(line | {"camera": number, "modality": modality})
    (folder / "people.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "people.jsonl"


@pytest.fixture
def config(manifest, monkeypatch):
    """Four epochs of two steps; an evaluation and a checkpoint after every second epoch."""
    monkeypatch.setitem(methods.METHODS, "colour", COLOUR)
    monkeypatch.setitem(DECLARED, "colour", methods.declaration("colour"))
    monkeypatch.setattr(COLOUR, "signalled_at", None)
    made = methods.default("colour")
    made.data.update(dataset="manifest", root=str(manifest), height=8, width=4, workers=0)
    made.data.update(minimum_frames=1, identities_per_batch=2, tracklets_per_identity=1)
    made.train.update(epochs=4, steps_per_epoch=2, evaluate_every=2, checkpoint_every=2)
    return made


@pytest.fixture
def whole(config, tmp_path):
    """The results and the arrays of a run that nothing stopped."""
    results = loop.train(config, tmp_path / "whole")
    assert results["step"] == 8
    return results, saved(tmp_path / "whole")


def same(whole, config, folder) -> bool:
    """Whether a run, which is continued, ends as one that nothing stopped; with all its files."""
    results = loop.train(config, folder)
    assert json.loads((folder / "results.json").read_text()) == results
    return results == whole[0] and all(map(np.array_equal, whole[1], saved(folder)))


def steps(folder) -> list[int]:
    return sorted(checkpoint.open_folder(folder / "checkpoints").all_steps())


def test_an_evaluation_that_fails_loses_nothing(config, whole, tmp_path, monkeypatch):
    def broken(*_):
        raise InputError("the test set is broken")

    with monkeypatch.context() as during:
        during.setattr(embedding, "configured_evaluation", broken)
        with pytest.raises(InputError, match="the test set is broken"):
            loop.train(config, tmp_path / "run")
    assert steps(tmp_path / "run") == [4]
    assert same(whole, config, tmp_path / "run")


@pytest.mark.parametrize("which", [0, 5])  # batches of the first evaluation, and of the second
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_heard_between_the_batches_of_an_evaluation(
    config, whole, tmp_path, monkeypatch, which, number
):
    config.evaluation.tracklets_per_batch, calls = 4, []
    given = embedding.placed_clips

    def counted(*arguments):
        if len(calls) == which:
            os.kill(os.getpid(), number)
        calls.append(1)
        return given(*arguments)

    with monkeypatch.context() as during:
        during.setattr(embedding, "placed_clips", counted)
        assert loop.train(config, tmp_path / "run") is None
    assert len(calls) < (4 if which == 0 else 8)  # of four batches not all were embedded
    assert max(steps(tmp_path / "run")) == (4 if which == 0 else 8)
    assert same(whole, config, tmp_path / "run")


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_signal_is_heard_in_the_pass_before_an_epoch(config, whole, tmp_path, epoch, monkeypatch):
    with monkeypatch.context() as during:
        during.setattr(COLOUR, "signalled_at", epoch)
        assert loop.train(config, tmp_path / "run") is None
    assert steps(tmp_path / "run") == ([2 * epoch] if epoch else [])
    assert same(whole, config, tmp_path / "run")


@pytest.mark.parametrize("bad", [0, 5])
def test_a_batch_that_cannot_be_made_loses_nothing(config, whole, tmp_path, monkeypatch, bad):
    made = pipeline.made_batch

    def broken(recipe, folder, index):
        if index == bad:
            raise InputError("frame.png is not an image: restore it")
        return made(recipe, folder, index)

    with monkeypatch.context() as during:
        during.setattr(pipeline, "made_batch", broken)
        with pytest.raises(InputError) as caught:
            loop.train(config, tmp_path / "run")
    saved_at = f"; saved at step {bad}, from where the same command continues once that is mended"
    assert str(caught.value) == f"frame.png is not an image: restore it{saved_at if bad else ''}"
    assert steps(tmp_path / "run")[-1:] == [5][: bad > 0]
    assert same(whole, config, tmp_path / "run")


def test_a_folder_that_is_in_use_is_refused(config, tmp_path):
    with lock(tmp_path / "run"):
        before = sorted((tmp_path / "run").iterdir())
        with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
            loop.train(config, tmp_path / "run")
        assert sorted((tmp_path / "run").iterdir()) == before


def test_figures_that_have_changed_are_a_damaged_checkpoint(config, tmp_path):
    loop.train(config, tmp_path / "run")
    path = tmp_path / "run/checkpoints/8" / checkpoint.FIGURES
    changed = path.read_text().replace('"queries": 6', '"queries": 7')
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(checkpoint.DamagedCheckpoint, match="figures have changed"):
        loop.train(config, tmp_path / "run")


def test_batches_that_are_all_skipped_stop_the_run(tmp_path):
    guard = Guard("skip", lambda step: [], tmp_path / "not_finite.jsonl")
    bad = {"finite": 0.0, "total": np.nan, "gradient_norm": np.nan}

    def run(batches):
        for number, terms in enumerate(batches):
            guard.step(number, terms)
        guard.finish()

    run([bad] * (MOST_IN_A_ROW - 1) + [{"finite": 1.0}] + [bad] * (MOST_IN_A_ROW - 1))
    assert guard.skipped == 2 * (MOST_IN_A_ROW - 1)
    with pytest.raises(InputError, match=f"the last {MOST_IN_A_ROW} batches were all skipped"):
        run([bad])


def test_descriptors_that_are_not_finite_are_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(COLOUR, "descriptor", lambda output, config: output[:, None] / 0)
    with pytest.raises(InputError, match="not finite"):
        loop.train(config, tmp_path / "run")


def test_a_run_leaves_a_trace(config, tmp_path, monkeypatch):
    """Its lines with their times, its scalars once each, also of a run that was stopped."""
    config.train.log_every = 1
    with monkeypatch.context() as during:
        during.setattr(COLOUR, "signalled_at", 2)
        assert loop.train(config, tmp_path / "run") is None
    metrics = tmp_path / "run" / "metrics.jsonl"
    with metrics.open("a") as file:
        file.write('{"step": 7, "group": "train"}\n{"step": 4, "gro')  # of steps it makes anew
    loop.train(config, tmp_path / "run")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if line["group"] == "train"] == [*range(1, 9)]
    assert all(np.isfinite(line["total"]) for line in lines if line["group"] == "train")
    figures = [line for line in lines if line["group"] == "visible_to_infrared"]
    assert [line["step"] for line in figures] == [4, 8] and "mAP" in figures[0]
    with Image.open(tmp_path / "run/pictures/batch.png") as picture:  # 2 pairs of clips of 2 frames
        assert picture.size == (2 * 2 * 4, 2 * 8)
    text = (tmp_path / "run" / "log.txt").read_text()
    assert all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d .", x) for x in text.splitlines())
    for said in (
        "tensorboard --logdir",
        "1 × cpu",
        "step 8/8",
        "evaluation at step 4",
        "compiling",
    ):
        assert said in text
    assert text.count("first step after") == text.count("compiling") == 2


def test_an_error_is_in_the_log(config, tmp_path, monkeypatch):
    def broken(*_):
        raise InputError("the test set is broken")

    monkeypatch.setattr(embedding, "configured_evaluation", broken)
    with pytest.raises(InputError):
        loop.train(config, tmp_path / "run")
    last = (tmp_path / "run" / "log.txt").read_text().splitlines()[-1]
    assert last.endswith("error: the test set is broken")


def test_what_cannot_be_trained_with_is_refused_before_anything_is_written(config, tmp_path):
    """Kind A, and settings in a notebook: each one line, and no folder."""
    for name, value, said in [
        ("data.frames", -1, "data.frames = -1"),
        ("mesh.fsdp", 3, "mesh.fsdp = 3"),
        ("evaluation.camera_filter", "of", "evaluation.camera_filter = 'of'"),
        ("data.identities_per_batch", 4, "fewer than a batch's 4"),
        ("data.minimum_frames", 3, "data.minimum_frames = 3"),
    ]:
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict({name: value})
        with pytest.raises(InputError, match=re.escape(said)) as caught:
            loop.train(changed, tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_a_method_without_passes_trains_alike(config, tmp_path, monkeypatch):
    monkeypatch.setattr(COLOUR, "before_epoch", no_sweep)
    assert loop.train(config, tmp_path / "run")["step"] == 8
