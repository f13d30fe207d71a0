"""A run goes on from another folder or machine; what it may change, and what is said otherwise."""

import numpy as np
import pytest
import small

from dinogrl_jax.config import FREE_AT_EVALUATION, FREE_ON_RESUME, differences
from dinogrl_jax.interface.checks import set_value
from dinogrl_jax.interface.config_files import read_config
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.run_folder import continued_metadata, run_folder


def metadata(config, **changed) -> checkpoint.Metadata:
    return checkpoint.Metadata(config, list(range(5)), [1, 2], 4)._replace(**changed)


@pytest.fixture
def config(tmp_path):
    """A configuration with a file whose content decides the training."""
    (tmp_path / "weights.pth").write_bytes(b"weights")
    made = small.get_config()
    made.pretrained.model = str(tmp_path / "weights.pth")
    return made


@pytest.fixture
def run(config, tmp_path):
    """The folder of a run that has a checkpoint."""
    run_folder(tmp_path / "run", config)
    variables = {"params": {"x": np.ones(3, np.float32)}}
    checkpoint.write_checkpoint(tmp_path / "run/checkpoints", variables, metadata(config))
    return tmp_path / "run"


def with_settings(config, **changed):
    other = config.copy_and_resolve_references()
    for name, value in changed.items():
        set_value(other, name, value)
    return other


def test_starting_weights_may_lie_elsewhere(run, config, tmp_path):
    moved = run.rename(tmp_path / "elsewhere")
    (tmp_path / "weights.pth").rename(tmp_path / "copy.pth")
    other = with_settings(config, **{"pretrained.model": str(tmp_path / "copy.pth")})
    run_folder(moved, other)
    assert read_config(str(moved)) == other
    run_folder(moved, other)  # and again: what is known of the file has moved along
    (tmp_path / "copy.pth").unlink()
    run_folder(moved, other)  # which a run with a checkpoint does not need


def test_a_model_that_was_the_start_may_train_on_or_go(config, tmp_path):
    (tmp_path / "start").mkdir()
    variables = {"params": {"x": np.ones(3, np.float32)}}
    checkpoint.write_checkpoint(tmp_path / "start", variables, metadata(config))
    config = with_settings(config, **{"pretrained.model": str(tmp_path / "start")})
    run_folder(tmp_path / "run", config)
    checkpoint.write_checkpoint(tmp_path / "run/checkpoints", variables, metadata(config))
    variables["params"]["x"] += 1
    checkpoint.write_checkpoint(tmp_path / "start", variables, metadata(config, step=9))
    run_folder(tmp_path / "run", config)
    (tmp_path / "start").rename(tmp_path / "moved")
    other = with_settings(config, **{"pretrained.model": str(tmp_path / "moved")})
    with pytest.raises(InputError, match="pretrained.model: "):
        run_folder(tmp_path / "run", other)
    (tmp_path / "start").mkdir()
    run_folder(tmp_path / "run", config)


def test_other_starting_weights_are_refused(run, config, tmp_path):
    (tmp_path / "other.pth").write_bytes(b"others")
    other = with_settings(config, **{"pretrained.model": str(tmp_path / "other.pth")})
    with pytest.raises(InputError, match=r"pretrained.model: \S+weights.pth → \S+other.pth"):
        run_folder(run, other)
    (tmp_path / "weights.pth").write_bytes(b"others")
    with pytest.raises(InputError, match="pretrained.model: the content of .* is another"):
        run_folder(run, config)
    with pytest.raises(InputError, match=r"pretrained.model: \S+weights.pth → \S+gone.pth"):
        run_folder(run, with_settings(config, **{"pretrained.model": str(tmp_path / "gone.pth")}))


def test_a_start_without_its_weights_makes_no_folder(config, tmp_path):
    (tmp_path / "weights.pth").unlink()
    with pytest.raises(InputError, match="weights.pth: cannot be read"):
        run_folder(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_checkpoint_takes_a_corrected_command(config, tmp_path):
    run_folder(tmp_path / "run", config)
    (tmp_path / "run/checkpoints/4.orbax-checkpoint-tmp").mkdir()  # of a run that was killed
    corrected = with_settings(config, **{"data.frames": 5, "seed": 3})
    run_folder(tmp_path / "run", corrected)
    assert read_config(str(tmp_path / "run")) == corrected


def test_a_log_alone_is_no_other_work(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.txt").write_text("training would work")
    run_folder(tmp_path / "run", config)
    (tmp_path / "run/config.json").unlink()
    (tmp_path / "run/thesis.tex").touch()
    with pytest.raises(InputError, match="not empty and holds no run"):
        run_folder(tmp_path / "run", config)


def test_a_refusal_lists_every_difference_and_what_is_free(run, config):
    changed = {"seed": 9, "data.frames": 7, "optimizer.learning_rate": 0.5, "data.height": 32}
    changed |= {"data.width": 16, "train.steps_per_epoch": 3, "augment.flip": 0.25}
    with pytest.raises(InputError) as caught:
        run_folder(run, with_settings(config, **changed))
    line = str(caught.value)
    for name, value in changed.items():
        assert f"{name}: " in line and f"→ {value}" in line
    assert all(name in line for name in FREE_ON_RESUME) and "\n" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("evaluation.protocol", "bupt-full"),
        ("evaluation.camera_filter", "off"),
        ("evaluation.distance", "cosine"),
        ("evaluation.best", "mean.rank1"),
        ("evaluation.tracklets_per_batch", 3),
        ("data.test_frames", "dense"),
        ("data.root", "/another/place"),
        ("data.workers", 7),
        ("train.log_every", 3),
        ("train.epochs", 3),
        ("train.not_finite", "skip"),
        ("mesh.fsdp", 2),
        ("hosts.coordinator", ""),
        ("model.remat", "nothing"),
    ],
)
def test_what_does_not_change_the_training_is_free(name, value, run, config):
    run_folder(run, with_settings(config, **{name: value}))


def test_an_evaluation_may_change_all_but_the_model():
    config = small.get_config()
    free = {"data.height": 32, "seed": 3, "optimizer.clip_norm": 1.0, "pretrained.model": "x"}
    assert differences(config, with_settings(config, **free), FREE_AT_EVALUATION) == []
    other = with_settings(config, method="another")
    assert len(differences(config, other, FREE_AT_EVALUATION)) == 1


def test_figures_of_another_kind_do_not_compete(config, capsys):
    found = metadata(config, figures={"some": 1}, best={"step": 2, "score": 0.9})
    same = with_settings(config, **{"train.log_every": 3, "data.root": "/x"})
    assert continued_metadata(found, same) == found._replace(config=same)
    other = with_settings(config, **{"evaluation.distance": "dot"})
    assert continued_metadata(found, other) == metadata(other)
    assert "is chosen anew: evaluation.distance: " in capsys.readouterr().out
