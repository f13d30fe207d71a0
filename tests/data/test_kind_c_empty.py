"""Empty sets end in one line, wherever they come from, and nothing is left of them."""

import pytest
from manifests import lines, section, written

from dinogrl_jax.data import datasets, pipeline
from dinogrl_jax.data.checks.validation import validate
from dinogrl_jax.data.preparation import prepare
from dinogrl_jax.data.readers import manifest
from dinogrl_jax.data.tracklets import labels
from dinogrl_jax.interface.errors import InputError


def test_a_manifest_without_lines(tmp_path):
    for content in ("", "\n \n", "\ufeff\n"):
        path = tmp_path / "m.jsonl"
        path.write_text(content)
        with pytest.raises(InputError, match="lists no tracklets"):
            datasets.read(section(str(path)))
        with pytest.raises(InputError, match="lists no tracklets"):
            manifest.read_tracklets(str(path))
        (problem,) = validate(section(str(path)), workers=0).fatal
        assert "lists no tracklets" in problem.text


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_split_alone_is_validated_and_prepared(split, tmp_path):
    data = section(written(tmp_path, lines(), lambda line: {**line, "split": split}))
    assert [problem.kind for problem in validate(data, workers=0).fatal] == ["no tracklets"]
    about = prepare(data, str(tmp_path / "out"), workers=0)
    other = {"train": "test", "test": "train"}[split]
    assert about["tracklets"] == {split: 20, other: 0}
    found = datasets.read(section(str(tmp_path / "out")))
    assert sorted(map(len, found)) == [0, 20]


def test_no_batch_of_nothing(config):
    with pytest.raises(InputError, match="the training set has no tracklets"):
        pipeline.training_batches([], labels([]), config, steps=1)
    with pytest.raises(InputError, match="the test set has no tracklets"):
        pipeline.evaluation_batches([], config)
