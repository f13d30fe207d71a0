"""What a disk can do to a checkpoint, and what a run makes of it."""

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from jax.sharding import NamedSharding

from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.checkpoint import DamagedCheckpoint, Metadata
from dinogrl_jax.training.fingerprints import fingerprints
from dinogrl_jax.training.run_folder import state_to_train
from dinogrl_jax.training.start import with_trained_model
from dinogrl_jax.training.state import Setup, divided, initial_state, merged

NAMES = ["3", "5", "7", "8", "9"]  # of small.IDENTITIES people
CAMERAS = list(small.FACTS.cameras)


def arrays(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    made = {f"w{i}": rng.normal(size=(64, 32)).astype(np.float32) for i in range(3)}
    memory = {"centres": rng.normal(size=(5, 8)).astype(np.float32), "seen": np.int32(seed)[None]}
    return {"params": made | {"scale": np.float32(2)[None]}, "memory": memory}


def saved(folder: Path, scores: dict[int, float]) -> None:
    """A folder of checkpoints with a step for each score, whose arrays differ."""
    manager = checkpoint.open_folder(folder, create=True)
    metadata = Metadata(small.get_config(), NAMES, CAMERAS)
    for step, score in scores.items():
        metadata = metadata._replace(step=step).scored({}, score)
        training = {"optimizer": arrays(-step % 100), "params": {}}
        checkpoint.save(manager, arrays(step), metadata, training)
    checkpoint.finish(manager)
    manager.close()


def read(folder: Path, step: int) -> dict:
    manager = checkpoint.open_folder(folder)
    try:
        training = {"optimizer": arrays(0), "params": {}}
        return checkpoint.restored(manager, step, variables=arrays(0), training=training)
    finally:
        manager.close()


def test_the_last_two_and_the_best_stay(tmp_path):
    saved(tmp_path, {1: 0.1, 2: 0.5, 3: 0.2, 4: 0.3, 5: 0.4})
    manager = checkpoint.open_folder(tmp_path)
    assert sorted(manager.all_steps()) == [2, 4, 5]
    assert checkpoint.chosen_step(manager, "best") == 2
    assert checkpoint.chosen_step(manager, "last") == 5
    assert checkpoint.saved_metadata(manager, 4).best == {"step": 2, "score": 0.5}
    with pytest.raises(InputError, match="there is best, last, 2, 4, 5"):
        checkpoint.chosen_step(manager, "3")


def test_all_of_a_step_is_on_the_disk_when_it_is_finished(tmp_path, monkeypatch):
    """The system is asked to bring each file and folder there, under the name it then has."""
    asked, ask = set(), os.fsync

    def recorded(file: int) -> None:
        asked.add(os.fstat(file).st_ino)
        ask(file)

    monkeypatch.setattr(os, "fsync", recorded)
    saved(tmp_path, {1: 0.1, 2: 0.5})
    (tmp_path / "2/commit_success.txt").unlink()  # Orbax writes it last; nothing needs it
    read(tmp_path, 2)
    there = {path.stat().st_ino: path for path in (tmp_path, *tmp_path.rglob("*"))}
    assert len(there) > 20
    assert not {path for number, path in there.items() if number not in asked}


def test_a_disk_that_fails_while_a_step_is_finished_is_named(tmp_path, monkeypatch):
    def failing(file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(InputError, match="a checkpoint cannot be written .*Input/output error"):
        saved(tmp_path, {1: 0.1})


def truncated(content: bytearray) -> bytearray:
    return content[: len(content) // 2]


def flipped(content: bytearray) -> bytearray:
    content[len(content) // 2] ^= 0x10
    return content


def emptied(content: bytearray) -> bytearray:
    return content[:0]


@pytest.mark.parametrize("damage", [truncated, flipped, emptied, None])
def test_damage_to_any_file_shows_or_harms_nothing(tmp_path, damage):
    saved(tmp_path / "good", {1: 0.1})
    found = []
    for number, file in enumerate(sorted((tmp_path / "good").rglob("*"))):
        if not file.is_file():
            continue
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "good", copy)
        path = copy / file.relative_to(tmp_path / "good")
        content = bytearray(path.read_bytes())
        path.unlink()
        if damage is not None:
            path.write_bytes(damage(content))
        try:
            items = read(copy, 1)
        except DamagedCheckpoint as error:
            assert f"{copy}/1 is a damaged checkpoint (" in str(error)
            assert "damaged_checkpoint=previous" in str(error) and "\n" not in str(error)
            found.append(file.name)
        else:
            same = jax.tree.map(np.array_equal, items["variables"], arrays(1))
            assert all(jax.tree.leaves(same)), file
            same = jax.tree.map(np.array_equal, items["training"]["optimizer"], arrays(99))
            assert all(jax.tree.leaves(same)), file
    assert "metadata" in found and len(found) >= 6  # metadata, and each item's arrays


def test_a_checkpoint_of_another_layout_is_refused_with_the_version_that_wrote_it(tmp_path):
    saved(tmp_path, {1: 0.1})
    file = tmp_path / "1/metadata/metadata"
    stored = json.loads(file.read_text())
    for layout in (None, checkpoint.LAYOUT + 1):
        content = {**stored["content"], "layout": layout}
        if layout is None:
            del content["layout"]
        digest = checkpoint.digest(content)
        file.write_text(json.dumps({"content": content, "digest": digest}))
        with pytest.raises(InputError) as caught:
            read(tmp_path, 1)
        line = str(caught.value)
        assert not isinstance(caught.value, DamagedCheckpoint) and "\n" not in line
        assert (
            f"{tmp_path}/1 was written by dinogrl_jax {content['versions']['dinogrl_jax']}" in line
        )
        assert "in another layout" in line


def test_a_digit_that_changes_in_the_settings_shows(tmp_path):
    saved(tmp_path, {1: 0.1})
    file = tmp_path / "1/metadata/metadata"
    text = file.read_text()
    assert text.count('"seed": 0') >= 1
    file.write_text(text.replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(DamagedCheckpoint, match="its metadata have changed"):
        checkpoint.saved_metadata(checkpoint.open_folder(tmp_path), 1)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint8, jnp.bfloat16])
def test_fingerprints_are_of_the_bits_wherever_they_are(kind):
    rng = np.random.default_rng(0)
    tree = {"a": {"b": (100 * rng.normal(size=(6, 4, 10))).astype(kind)}, "c": np.ones((), kind)}
    expected = fingerprints(tree)
    assert list(expected) == ["a/b", "c"]
    with jax.enable_x64(True):
        assert fingerprints(jax.tree.map(jnp.asarray, tree)) == expected
        mesh = sharding.device_mesh()
        assert fingerprints(sharding.spread(jax.tree.map(jnp.asarray, tree), mesh)) == expected
    array = tree["a"]["b"]
    array.view(np.uint8).reshape(-1)[rng.integers(array.nbytes)] ^= 1
    changed = fingerprints(tree)
    assert changed["a/b"] != expected["a/b"] and changed["c"] == expected["c"]


def test_places_and_values_both_count():
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = {fingerprints([x])["0"] for x in (rows, rows[::-1], rows[:, ::-1], rows + 1)}
    assert len(found) == 4


def test_the_commit_of_the_code_is_known_and_whether_it_has_changed(tmp_path, monkeypatch):
    commit = checkpoint.git_commit.__wrapped__
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "package" / "checkpoint.py"))
    package = tmp_path / "package"
    package.mkdir()
    file = package / "checkpoint.py"
    file.touch()
    me = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    assert commit() == ""  # no repository
    for command in (["init", "-q"], ["add", "."], [*me, "commit", "-q", "-m", "begin"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert len(commit()) == 40
    file.write_text("changed")
    assert commit()[40:] == "+"
    monkeypatch.setenv("PATH", "")
    assert commit() == ""  # git is not installed


def test_a_place_that_cannot_be_written_is_named_and_the_last_step_stays(tmp_path):
    saved(tmp_path / "run", {1: 0.1, 2: 0.2})
    manager = checkpoint.open_folder(tmp_path / "run", create=True)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    (tmp_path / "run").write_text("in the way, also for those who may write everywhere")
    with pytest.raises(InputError, match="run: a checkpoint cannot be written .*; the same comm"):
        metadata = Metadata(small.get_config(), NAMES, CAMERAS, 3)
        checkpoint.save(manager, arrays(3), metadata)
        checkpoint.finish(manager)
    assert np.array_equal(
        read(tmp_path / "elsewhere", 2)["variables"]["params"]["w0"], arrays(2)["params"]["w0"]
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(configuration, model, folder) of a run with an average, saved at steps 2 and 4."""
    config = small.get_config()
    config.optimizer.average = 0.75
    model, folder = small.model(config), tmp_path_factory.mktemp("run")
    manager = checkpoint.open_folder(folder, create=True)
    for step in (2, 4):
        state = initial_state(small.random_variables(config), small.METHOD, config)
        state = state._replace(
            params=jax.tree.map(lambda x, by=step: x * by, state.params),
            opt_state=jax.tree.map(lambda x, by=step: x + by, state.opt_state),
        )
        metadata = Metadata(config, NAMES, CAMERAS, step)
        checkpoint.save(manager, state.variables, metadata, state.training)
    checkpoint.finish(manager)
    manager.close()
    return config, model, folder


def started(run, folder: Path, **settings):
    config, model, _ = run
    config = config.copy_and_resolve_references()
    config.train.update(settings)
    manager = checkpoint.open_folder(folder, create=True)
    begun = Metadata(config, NAMES, CAMERAS)
    setup = Setup(small.METHOD, model, config, sharding.device_mesh())
    return *state_to_train(setup, begun, manager), manager


def test_a_run_continues_with_parameters_and_their_average(run):
    state, metadata, _ = started(run, run[2])
    assert metadata.step == int(state.step) == 4
    # All on the mesh, as after a step: else the first step is compiled by itself.
    assert all(isinstance(x.sharding, NamedSharding) for x in jax.tree.leaves(state))
    groups = small.METHOD.groups(run[0])
    expected, frozen = divided(small.random_variables(run[0])["params"], groups)
    assert expected and merged(expected, frozen).keys() == state.variables["params"].keys()
    for tree, factor in ((state.average, 1), (state.params, 4)):
        same = jax.tree.map(lambda a, b, by=factor: np.array_equal(a, by * b), tree, expected)
        assert all(jax.tree.leaves(same))


def test_a_damaged_checkpoint_stops_a_run_or_is_set_aside(run, tmp_path, capsys):
    shutil.copytree(run[2], tmp_path / "run")
    largest = max((tmp_path / "run/4").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(truncated(bytearray(largest.read_bytes())))
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(DamagedCheckpoint, match="run/4 is a damaged"):
        started(run, tmp_path / "run")
    assert sorted((tmp_path / "run").rglob("*")) == before
    state, metadata, manager = started(run, tmp_path / "run", damaged_checkpoint="previous")
    assert int(state.step) == metadata.step == 2
    assert "run/4 is a damaged" in capsys.readouterr().out
    assert manager.all_steps() == [2] and (tmp_path / "run/damaged-4" / "metadata").is_dir()
    checkpoint.save(manager, state.variables, metadata._replace(step=4), state.training)
    checkpoint.finish(manager)
    assert int(started(run, tmp_path / "run")[0].step) == 4


def test_without_a_good_checkpoint_nothing_is_moved(run, tmp_path):
    shutil.copytree(run[2], tmp_path / "run")
    for file in (tmp_path / "run").rglob("metadata/metadata"):
        file.write_text("{")
    with pytest.raises(DamagedCheckpoint, match="run/2 is a damaged"):
        started(run, tmp_path / "run", damaged_checkpoint="previous")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["2", "4"]
    with pytest.raises(InputError, match="train.damaged_checkpoint = 'ignore'"):
        started(run, tmp_path / "run", damaged_checkpoint="ignore")


def test_a_model_starts_another_training(run):
    config, _, folder = run
    config = config.copy_and_resolve_references()
    config.pretrained.model = str(folder)
    random = jax.tree.map(np.zeros_like, small.random_variables(config))
    trained = small.random_variables(config)
    same, lines = with_trained_model(small.METHOD, random, small.FACTS, NAMES, config)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, same, trained)))
    assert lines == [f"model: weights of step 4 of {folder}"]
    facts = small.FACTS._replace(identities=3)
    shapes = variable_shapes(small.METHOD.Model(config, facts), config)
    fewer = jax.tree.map(lambda x: np.zeros(x.shape), shapes)
    made, lines = with_trained_model(small.METHOD, fewer, facts, NAMES[:3], config)
    assert "for 3 other identities" in lines[1]
    kept = jax.tree.map(np.array_equal, made, trained)
    changed = [path for path, equal in jax.tree_util.tree_leaves_with_path(kept) if not equal]
    assert changed and all("classifier" in jax.tree_util.keystr(path) for path in changed)


def test_a_model_of_other_sizes_starts_no_training(run):
    config, _, folder = run
    config = config.copy_and_resolve_references()
    config.pretrained.model = str(folder)
    small.sizes().enlarge(config)
    variables = small.random_variables(config)
    with pytest.raises(InputError, match="has another batch_stats/.* than config.model"):
        with_trained_model(small.METHOD, variables, small.FACTS, NAMES, config)
    name = next(iter(small.METHOD.starting_weights(config)))
    config.pretrained[name] = "weights.pth"
    with pytest.raises(InputError, match=f"leave pretrained.{name} empty"):
        with_trained_model(small.METHOD, variables, small.FACTS, NAMES, config)
