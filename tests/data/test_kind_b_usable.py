"""One answer whether training and evaluation would work, and what rules leave out is said."""

import json

import numpy as np
import pytest
from commands import script
from manifests import lines, section, written

from dinogrl_jax.data import datasets
from dinogrl_jax.data.checks.usable import (
    Demands,
    check_usable,
    demands_of_data,
    evaluation_problems,
    usable_problems,
)
from dinogrl_jax.data.checks.validation import validate
from dinogrl_jax.data.problems import Notes
from dinogrl_jax.data.tracklets import MODALITIES, ROLES, Tracklet
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.directions import directions
from dinogrl_jax.retrieval.embedding import label_columns
from dinogrl_jax.retrieval.protocols import PROTOCOLS
from dinogrl_jax.retrieval.scoring import match_and_junk_masks


def evaluation_works(test: list[Tracklet], protocol: str, camera_filter: bool) -> bool:
    """Whether an evaluation's own code finds queries, galleries and matches."""
    try:
        columns = label_columns(test)
        embedding = np.zeros((len(test), 1, 2), np.float32)
        found = directions(embedding, **columns, protocol=protocol, camera_filter=camera_filter)
        masks = [match_and_junk_masks(direction) for direction in found.values()]
    except InputError:
        return False
    return all((match & ~junk).any() for match, junk in masks)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("camera_filter", [True, False])
def test_the_answer_is_that_of_an_evaluation(protocol, camera_filter):
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(300):
        roles = rng.choice(ROLES, rng.integers(1, 4), replace=False)
        modalities = rng.choice(MODALITIES, rng.integers(1, 3), replace=False)
        cameras = range(int(rng.choice([-1, 0, 0, 0])), int(rng.integers(1, 4)))
        size = rng.integers(1, 9) + 130 * (protocol == "bupt-official-drop64")
        test = [
            Tracklet(
                ("1.png",),
                int(rng.integers(3)),
                int(rng.choice(cameras)),
                str(rng.choice(modalities)),
                str(rng.choice(roles)),
            )
            for _ in range(size)
        ]
        rule = PROTOCOLS[protocol]
        asked = Demands(
            camera_filter=camera_filter,
            visible_multiple=rule.visible_multiple,
            exchanged=rule.exchanged,
        )
        said = not any(problem.fatal for problem in evaluation_problems(test, asked))
        assert said == evaluation_works(test, protocol, camera_filter), test
        outcomes.append(said)
    assert 10 < sum(outcomes) < 290


def one_camera(line):
    return {**line, "camera": 1}


def short_ones(line):
    return {**line, "frames": line["frames"][: line["camera"]]}


def of_split(name, **changed):
    return lambda line: {**line, **(changed if line["split"] == name else {})}


BAD = {
    "none of 4 visible queries has a match in another camera": (one_camera, {}),
    "lower it": (lambda line: line, {"minimum_frames": 4}),
    "training identity 1 has no infrared": (
        lambda line: {**line, "modality": "visible"} if line["identity"] == 1 else line,
        {},
    ),
    "3 training identities, fewer than a batch's 4": (
        lambda line: line,
        {"identities_per_batch": 4},
    ),
    'none is listed (a manifest\'s lines say "split": "train")': (
        lambda line: {**line, "split": "test"},
        {},
    ),
    "the test set has no tracklets": (lambda line: {**line, "split": "train"}, {}),
    "no infrared test tracklet is in the gallery": (of_split("test", modality="visible"), {}),
    "the test set has no query": (of_split("test", role="gallery"), {}),
    "have no camera": (of_split("test", camera=None), {}),
    "in the training and in the test set": (of_split("test", identity=1), {}),
    "0 training identities have aligned pairs": (
        lambda line: line,
        {"batch_rule": "camera-pairs", "tracklets_per_identity": 2},
    ),
}


@pytest.mark.parametrize("words", BAD)
def test_validation_and_training_agree(words, tmp_path):
    change, settings = BAD[words]
    data = section(written(tmp_path, lines(), change), **settings)
    report = validate(data, workers=0, frame_check="exist")
    assert any(words in str(problem) for problem in report.fatal), report.fatal
    notes = Notes()
    train, test = datasets.read(data, notes)
    with pytest.raises(InputError) as caught:
        check_usable(train, test, demands_of_data(data), notes)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_good_set_is_found_good(tmp_path):
    data = section(written(tmp_path, lines()))
    assert not validate(data, workers=0).problems
    assert check_usable(*datasets.read(data), demands_of_data(data)) == []


def test_without_a_test_set_where_none_is_asked_for(tmp_path):
    root = written(tmp_path, lines(), lambda line: {**line, "split": "train"})
    train, test = datasets.read(section(root))
    asked = demands_of_data(section(root))
    assert test == [] and list(usable_problems(train, test, asked._replace(evaluated=False))) == []


def test_a_direction_that_the_best_checkpoint_needs(tmp_path):
    root = written(
        tmp_path,
        lines(),
        lambda line: {
            **line,
            **(
                {"role": "query" if line["modality"] == "infrared" else "gallery"}
                if line["split"] == "test"
                else {}
            ),
        },
    )
    train, test = datasets.read(section(root))
    asked = demands_of_data(section(root))
    check_usable(train, test, asked)  # one direction is enough
    with pytest.raises(InputError, match="evaluation.best = visible_to_infrared.*no visible query"):
        check_usable(train, test, asked._replace(direction="visible_to_infrared"))


def test_what_each_rule_leaves_out_is_counted(tmp_path):
    data = section(written(tmp_path, lines(), short_ones), minimum_frames=2)
    report, notes = validate(data, workers=0), Notes()
    train, test = datasets.read(data, notes)
    assert (len(train), len(test)) == (6, 4) and report.totals["listed tracklets"] == 20
    line = (
        "data.minimum_frames = 2 leaves out 10 tracklets: "
        "3 training visible, 3 training infrared, 2 test visible, 2 test infrared"
    )
    assert report.left_out == [line]
    asked = demands_of_data(data)._replace(camera_filter=False)
    assert check_usable(train, test, asked, notes)[0] == line


def test_frames_that_a_list_discards_are_counted_apart(tree, tmp_path):
    data = section(tree.write(), minimum_frames=12)
    discard = tmp_path / "discard.txt"
    discard.write_text("Train/0001/ir/D11/91.jpg\n")
    data.update(dataset="vcm", discard_train=str(discard))
    notes = Notes()
    datasets.read(data, notes)
    assert [(one.kind, one.split, one.modality) for one in notes] == [
        ("discarded tracklet", "train", "infrared")
    ]
    assert "discard_test leaves out 1 tracklets: 1 training infrared" in " ".join(
        validate(data, workers=0, frame_check="none").left_out
    )


def test_the_script_asks_with_the_settings_of_a_configuration(tmp_path):
    root = written(tmp_path, lines(), short_ones)
    (tmp_path / "c.py").write_text(
        "from dinogrl_jax.methods import default\n"
        "def get_config():\n"
        "    config = default('dinogrl')\n"
        "    config.data.dataset, config.data.identities_per_batch = 'manifest', 2\n"
        "    config.evaluation.camera_filter = 'off'\n"
        "    return config\n"
    )
    options = "--config", tmp_path / "c.py", f"--config.data.root={root}", "--workers", 0
    done = script("validate.py", *options)
    assert done.status == 1 and "12 are left out by data.minimum_frames = 12" in done.output
    out = tmp_path / "report.json"
    done = script("validate.py", *options, "--config.data.minimum_frames=2", "--json", out)
    assert done.status == 0, done.output
    assert json.loads(out.read_text())["usable"] and "leaves out 10 tracklets" in done.output
    assert script("validate.py", *options, "--config.data.minimum=2").status == 2
