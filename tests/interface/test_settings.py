"""Settings are looked up before anything is written: names, types, ranges, sizes that fit."""

import itertools
import sys

import pytest
import small
from absl import flags
from ml_collections import ConfigDict

from dinogrl_jax import config as settings
from dinogrl_jax import methods
from dinogrl_jax.data import pipeline
from dinogrl_jax.interface import command_line
from dinogrl_jax.interface.checks import DECLARED, checked_config, nearest
from dinogrl_jax.interface.command_line import changed_config, value_of_text
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.settings import PATH, Setting, leaves, merged_declaration
from dinogrl_jax.retrieval.tables import DIRECTIONS, FIGURES
from dinogrl_jax.training import guard

CONFIG = ("--config", small.PATH)
REFUSED = [  # setting, text on the command line, what the line says
    ("data.height", "0", "data.height = 0: it has to be 1 to 8192"),
    ("data.height", "-5", "data.height = -5"),
    ("data.height", "100000", "data.height = 100000"),
    ("data.width", "0", "data.width = 0"),
    ("data.frames", "-1", "data.frames = -1"),
    ("data.frames", "0", "data.frames = 0"),
    ("data.frames", "2.5", "--config.data.frames=2.5: it has to be a whole number"),
    ("data.frames", "", "--config.data.frames=: it has to be a whole number"),
    ("data.frames", "9" * 5000, "it has to be a whole number"),
    ("data.minimum_frames", "-1", "data.minimum_frames = -1"),
    ("data.workers", "-1", "data.workers = -1"),
    ("data.workers", "1e6", "it has to be a whole number"),
    ("data.identities_per_batch", "0", "data.identities_per_batch = 0"),
    ("data.identities_per_batch", "0x4", "it has to be a whole number"),
    ("data.tracklets_per_identity", "-2", "data.tracklets_per_identity = -2"),
    ("data.dataset", "mars", "data.dataset = 'mars': it has to be "),
    ("data.dataset", "", "data.dataset = ''"),
    ("data.batch_rule", "random", "identity or camera-pairs"),
    ("data.training_frames", "first", "random-per-chunk"),
    ("data.test_frames", "all", "dense"),
    ("data.bad_frames", "skip", "it has to be stop or neighbour"),
    ("data.root", "s3://bucket/people", "it has to be a path of this machine"),
    ("data.root", "file:///data", "it has to be a path of this machine"),
    ("data.root", "~nobody-of-that-name/data", "there is no such home"),
    ("data.root", "a\nb", "it has to be text of one line"),
    ("data.root", "\x1b[2J", "it has to be text of one line"),
    ("data.root", "\ud800", "it has to be text of one line"),
    ("data.auxiliary", "maybe", "it has to be True or False"),
    ("data.synthetic.height", "2", "data.synthetic.height = 2"),
    ("data.synthetic.seed", "-1", "data.synthetic.seed = -1"),
    ("data.synthetic.train_identities", "0", "data.synthetic.train_identities = 0"),
    ("seed", "-1", "seed = -1: it has to be 0 to 4294967295"),
    ("seed", "1" * 20, f"seed = {'1' * 20}: it has to be 0 to 4294967295"),
    ("seed", "1" * 400, "seed = a number of more than 40 digits"),
    ("seed", "three", "--config.seed=three: it has to be a whole number"),
    ("method", "nothing", "method = 'nothing': there is "),
    ("model.compute_dtype", "float8", "float32, bfloat16 or float64"),
    ("model.remat", "all", "blocks, elementwise or nothing"),
    ("ops.forms", "quick", "it has to be fast or plain"),
    ("ops.forms", "gelu,quick", "it has to be fast or plain"),
    ("optimizer.learning_rate", "nan", "it has to be a finite number"),
    ("optimizer.learning_rate", "inf", "it has to be a finite number"),
    ("optimizer.learning_rate", "1e400", "it has to be a finite number"),
    ("optimizer.learning_rate", "-1", "optimizer.learning_rate = -1"),
    ("optimizer.weight_decay", "-0.1", "optimizer.weight_decay = -0.1"),
    ("optimizer.clip_norm", "-1", "optimizer.clip_norm = -1"),
    ("optimizer.average", "1", "it has to be less than 1"),
    ("optimizer.micro_batches", "0", "optimizer.micro_batches = 0"),
    ("optimizer.micro_batches", "3", "it has to divide data.tracklets_per_identity, "),
    ("optimizer.warmup_epochs", "-1", "optimizer.warmup_epochs = -1"),
    ("optimizer.decay_epochs", "(1, 'a')", "it has to be a tuple, each value of it"),
    ("optimizer.decay_epochs", "(1, -1)", "optimizer.decay_epochs = (1, -1)"),
    ("optimizer.decay_epochs", "(((", "it has to be a tuple"),
    ("augment.flip", "nan", "it has to be a finite number"),
    ("augment.flip", "2", "augment.flip = 2"),
    ("augment.also", "('brightness',)", "it has to be brightness, contrast or blur, and behind it"),
    ("augment.also", "('sepia 0.3',)", "it has to be brightness, contrast or blur, and behind it"),
    ("augment.also", "('blur 1.3',)", "a number from 0 to 1"),
    ("augment.also", "(3,)", "a number from 0 to 1"),
    ("loss.label_smoothing", "-1", "loss.label_smoothing = -1"),
    ("loss.triplet_margin", "inf", "it has to be a finite number"),
    ("train.epochs", "-1", "train.epochs = -1"),
    ("train.steps_per_epoch", "0", "train.steps_per_epoch = 0"),
    ("train.log_every", "0", "train.log_every = 0"),
    ("train.pictures_every", "-1", "train.pictures_every = -1"),
    ("train.damaged_checkpoint", "ignore", "it has to be stop or previous"),
    ("train.not_finite", "ignore", "it has to be stop or skip"),
    ("mesh.fsdp", "0", "mesh.fsdp = 0"),
    ("hosts.coordinator", "somewhere", "it has to be auto, empty or host:port"),
    ("hosts.count", "0", "hosts.count = 0"),
    ("hosts.index", "-1", "hosts.index = -1"),
    ("hosts.index", "1", "it has to be less than hosts.count, 1"),
    ("evaluation.protocol", "vmc", "it has to be vcm, "),
    ("evaluation.camera_filter", "maybe", "it has to be protocol, on or off"),
    ("evaluation.distance", "euclid", "it has to be part_euclidean, "),
    ("evaluation.best", "mAP", "evaluation.best = 'mAP'"),
    ("evaluation.tracklets_per_batch", "0", "evaluation.tracklets_per_batch = 0"),
    ("pretrained.model", "gs://bucket/model", "it has to be a path of this machine"),
    # Names that are not there, and what was meant.
    ("optimizer.lr", "1", "did you mean optimizer.learning_rate?"),
    ("optimizer.learning_rte", "1", "did you mean optimizer.learning_rate?"),
    ("train.learning_rate", "1", "did you mean optimizer.learning_rate?"),
    ("hight", "1", "did you mean data.height?"),
    ("data.nonsense.deeper", "1", "there is no such setting"),
    ("data", "1", "data is a section: say which setting of it"),
    ("", "1", "there is no such setting"),
    ("\x1b", "1", "there is no such setting"),
]


@pytest.mark.parametrize(("name", "text", "said"), REFUSED)
def test_an_odd_value_is_one_line_and_nothing_is_written(name, text, said, refused):
    own = name.startswith(("loss.", "augment."))
    if own and name not in dict(leaves(small.get_config())):
        pytest.skip("a setting that the method does not have")
    assert said in refused("train", *CONFIG, f"--config.{name}={text}")


def test_a_configuration_does_not_become_one_of_another_method(refused):
    for name in methods.METHODS.keys() - {small.get_config().method}:
        said = refused("train", *CONFIG, f"--config.method={name}")
        assert f"is a configuration of {small.get_config().method}: name one of the other" in said


ODD = ("nan", "-1", "1e400", "9" * 20, "", "x", "()", "('a',)", "[" * 200, "\x1b[2J", "True")


@pytest.mark.parametrize("text", ODD)
def test_any_text_for_any_setting_is_taken_or_refused_in_one_line(text):
    config = small.get_config()
    for name, setting in leaves(DECLARED[config.method]):
        try:
            made = changed_config(config.copy_and_resolve_references(), {name: text})
            value = dict(leaves(checked_config(made)))
        except InputError as error:
            assert name in str(error) and str(error).isprintable()
        else:
            assert isinstance(value[name], type(setting.default)), name


def test_all_problems_are_named_at_once():
    config = small.get_config()
    config.data.height, config.data.frames, config.seed = 0, -1, -2
    with pytest.raises(InputError, match="seed = -2: .*; data.height = 0: .*; data.frames = -1: "):
        checked_config(config)


def test_a_file_with_wrong_settings_is_refused(refused, tmp_path):
    def with_lines(*lines):
        text = "from tests.small import get_config as small\n\n\n"
        text += "def get_config():\n    config = small()\n"
        text += "".join(f"    {line}\n" for line in (*lines, "return config"))
        (tmp_path / "mine.py").write_text(text)
        return refused("train", "--config", tmp_path / "mine.py")

    line = with_lines("config.optimizer.learning_rte = 1", "config.data.hight = 2")
    assert "mine.py: data.hight: there is no such setting; did you mean data.height?; " in line
    assert "optimizer.learning_rte: " in line and "did you mean optimizer.learning_rate?" in line
    assert "mine.py: line 6: " in with_lines("config.data.frames = 'six'")
    assert "mine.py: line 6: AttributeError" in with_lines("config.data.frames = config.data.none")
    with_lines("config.data = 3")
    assert "data.frames = 2.5: it has to be a whole number" in with_lines(
        "del config.data.frames", "config.data.frames = 2.5"
    )
    with_lines("from ml_collections import ConfigDict", "config.data.frames = ConfigDict()")
    assert "data.frames = None" in with_lines("config.data.frames = None")
    assert "seed = nan" in with_lines("del config.seed", "config.seed = float('nan')")


def test_a_setting_that_is_lacking_has_its_default():
    config = small.get_config()
    del config.train.log_every
    del config.hosts
    made = checked_config(config)
    assert made.train.log_every == settings.shared()["train"]["log_every"]
    assert made.hosts.to_dict() == settings.shared()["hosts"]
    assert "hosts" not in config


def test_paths_begin_at_home(monkeypatch):
    """Kind I: a ~ that the shell has left becomes no folder."""
    monkeypatch.setenv("HOME", "/at/home")
    config = small.get_config()
    paths = [name for name, one in leaves(DECLARED[config.method]) if PATH in one.ranges]
    assert {"data.root", "data.discard_train", "data.discard_test", "pretrained.model"} <= {*paths}
    made = checked_config(changed_config(config, dict.fromkeys(paths, "~/some/place")))
    assert {dict(leaves(made))[name] for name in paths} == {"/at/home/some/place"}
    monkeypatch.setattr(sys, "argv", ["train.py", *CONFIG, "--workdir=~/runs/x"])
    assert command_line.config_and_workdir()[1] == "/at/home/runs/x"
    flags.FLAGS.unparse_flags()


def test_published_and_small_configurations_are_right():
    for name in methods.METHODS:
        for config in (methods.default(name), small.get_config(name)):
            assert checked_config(config) == config


def test_every_setting_has_a_meaning():
    for method in methods.METHODS:
        for name, setting in leaves(DECLARED[method]):
            assert setting.meaning or name.startswith(("augment.", "loss.", "model.")), name


def test_names_are_those_of_the_tables_that_act_on_them():
    def names(name):
        (one,) = dict(leaves(settings.SETTINGS))[name].ranges
        return one

    for name, table in {
        "data.bad_frames": pipeline.BAD_FRAMES,
        "train.not_finite": guard.POLICIES,
    }.items():
        assert all(names(name).holds(word, ConfigDict()) for word in table), name
    for direction, figure in itertools.product(("mean", *DIRECTIONS), FIGURES):
        assert names("evaluation.best").holds(f"{direction}.{figure}", ConfigDict())


def test_a_method_states_values_alone_where_the_meaning_is_known():
    own = {"augment": {"flip": 0.25}, "model": {"size": Setting(3, "of it"), "plain": 2}}
    made = dict(leaves(merged_declaration(settings.SETTINGS, own, settings.KNOWN)))
    assert (made["augment.flip"].default, made["augment.flip"].meaning) == (
        0.25,
        settings.KNOWN["augment"]["flip"].meaning,
    )
    assert made["model.size"].meaning == "of it" and made["model.plain"].default == 2
    assert "augment.pad" not in made and made["model.remat"].default == "blocks"


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("(1, 2)", (3,), (1, 2)),
        ("1,2", (3,), (1, 2)),
        ("5", (3,), (5,)),
        ("", (3,), ()),
        ("a,b", ("x",), ("a", "b")),
        ("('a',)", ("x",), ("a",)),
        ("TRUE", False, True),
        ("no", True, False),
        ("1_000", 1, 1000),
        ("2", 0.5, 2.0),
        (None, False, True),
    ],
)
def test_texts_and_their_values(text, default, value):
    found = value_of_text(text, default)
    assert found == value and type(found) is type(value)


def test_what_was_meant():
    known = [name for name, _ in leaves(settings.SETTINGS)]
    assert nearest("evaluation.protocoll", known) == "evaluation.protocol"
    assert nearest("data.ipb", known) == "data.identities_per_batch"
    assert nearest("zzz", known) == ""
