"""docs/own_data.md: its code, lines and commands, run on small frames; each row of its tables."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small
from commands import ROOT
from PIL import Image

from dinogrl_jax import methods
from dinogrl_jax.data import sampling
from dinogrl_jax.data.checks.usable import demands
from dinogrl_jax.data.checks.validation import validate
from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.command_line import changed_config
from dinogrl_jax.interface.config_files import read_config
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.settings import leaves, value_at
from dinogrl_jax.methods.dinogrl.settings import map_rows
from dinogrl_jax.methods.variables import variable_shapes
from dinogrl_jax.retrieval.protocols import filters_cameras

TEXT = (ROOT / "docs/own_data.md").read_text()
PEOPLE = ("anna", "bert", "cleo", "dora", "emil", "fay")
LISTING, CONFIG, SIZES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    x for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for x in block.split("\n")
]
LINES = re.search(r"```json\n(.*?)```", TEXT, re.DOTALL)[1]
FIRST, LAST = TEXT.split("## What to lower")


def rows(text: str, start: str) -> list[list[str]]:
    """The cells of a table whose head starts so, without their backticks."""
    table = text[text.index(f"\n| {start}") + 1 :].split("\n\n")[0].strip()
    cells = [
        [x.strip().strip("`") for x in row.strip("| ").split(" | ")] for row in table.split("\n")
    ]
    return cells[2:]


FIT_ROWS = rows(FIRST, "what has to fit")
SIZE_ROWS = [list(map(int, re.findall(r"\d+", row))) for row in re.findall(r"\n(\| \d.*)", FIRST)]
LOWER_ROWS = rows(LAST, "setting | default | small set | why | message")


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder with `own/`, the page's two files and what its first program writes."""
    folder, rng = tmp_path_factory.mktemp("own_data"), np.random.default_rng(0)
    for person in PEOPLE:
        for camera in (1, 2, 3, 4):
            tracklet = folder / f"own/{person}/{camera}-1"
            tracklet.mkdir(parents=True)
            for number in range(1, 9):
                picture = Image.fromarray(rng.integers(0, 256, (16, 8, 3), np.uint8))
                picture.save(tracklet / f"{number}.jpg")
    (folder / "list_frames.py").write_text(LISTING)
    (folder / "configs").mkdir()
    (folder / "configs/own.py").write_text(CONFIG)
    assert run("python list_frames.py", folder) == ""
    return folder


def run(command: str, folder: Path, *more: str) -> str:
    """What a command of the page prints, run in a folder with this Python and these scripts."""
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
        words[1] = str(ROOT / words[1]) if words[1].startswith("scripts/") else words[1]
    path = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*words, *more], capture_output=True, text=True, cwd=folder, env={**os.environ, **path}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def named(word: str) -> str:
    """The command of the page that has a word."""
    (command,) = [command for command in COMMANDS if word in command]
    return command


def tiny() -> list[str]:
    """Settings that make a training of the page's method take seconds."""
    config, method = small.get_config("dinogrl"), methods.default("dinogrl")
    config.data.update({"height": 32, "width": 16})
    small.sizes("dinogrl").shrink_more(config)
    config.model.update({"streams": ("appearance",), "pbmge": False})
    config.train.update({"epochs": 1, "steps_per_epoch": 2, "log_every": 1, "pictures_every": 0})
    config.data.tracklets_per_identity = 1
    changes = {name: value for name, value in leaves(config) if value != value_at(method, name)}
    return [f"--config.{name}={value}" for name, value in changes.items()]


def test_the_first_program_writes_the_lines_of_the_page(own):
    assert run(named("head"), own) == LINES
    for line in map(json.loads, LINES.splitlines()):
        assert len(line["frames"]) == 8 and (own / "own" / line["frames"][-1]).is_file()


def test_the_commands_end_with_a_report(own):
    run(named("validate.py"), own)
    assert "16 train" in run(named("prepare.py"), own)
    run(named("train.py"), own, *tiny())
    run(named("evaluate.py"), own)
    results = json.loads((own / "runs/own/evaluation.json").read_text())
    for direction in ("visible_to_infrared", "infrared_to_visible"):
        assert results[direction]["queries"] == results[direction]["gallery"] == 4
    assert results["data"] == {"name": "manifest", "root": "own/prepared"}
    assert results["step"] == 2
    assert "emil" in (own / "runs/own/report.html").read_text()
    assert [x for x in COMMANDS if x and "scripts/" in x] == [
        named(f"{name}.py") for name in ("validate", "prepare", "scripts/train", "evaluate")
    ]


def test_the_program_prints_the_table_of_sizes(tmp_path):
    table = run("python -c", tmp_path, SIZES)
    assert table in TEXT and len(SIZE_ROWS) == table.count("\n") - 2


@pytest.mark.parametrize("row", SIZE_ROWS, ids=lambda row: str(row[0]))
def test_a_size_fits_and_its_neighbours_do_not(row):
    height, width, *tokens = row[:4]
    count, divisors = row[4], tuple(sorted(row[5:]))

    def sized(more: int, parts: tuple[int, ...]):
        config = methods.default("dinogrl")
        config.data.update({"height": height + 16 * more, "width": width})
        config.model.dinov2.update({"height": tokens[0] + 28 * more, "width": tokens[1]})
        config.model.parts = parts
        return config

    assert set(map_rows(checked_config(sized(0, divisors))).values()) == {count}
    assert divisors == tuple(x for x in range(1, count + 1) if count % x == 0)
    for wrong in (sized(1, divisors), sized(-1, divisors), sized(0, (*divisors, 2 * count))):
        with pytest.raises(InputError, match=r"model.parts = .* divide the rows"):
            checked_config(wrong)


@pytest.mark.parametrize(("rule", "right", "wrong"), FIT_ROWS, ids=[x[2] for x in FIT_ROWS])
def test_what_has_to_fit(rule, right, wrong):
    config = changed_config(methods.default("dinogrl"), settings(right))
    checked_config(config)
    with pytest.raises(InputError) as error:
        checked_config(changed_config(methods.default("dinogrl"), settings(wrong)))
    last = list(settings(wrong))[-1]
    assert str(error.value).startswith(f"{last} = ") and last in rule
    assert ";" not in str(error.value)


def settings(cell: str) -> dict[str, str]:
    return dict(word.split("=") for word in cell.split())


def test_a_size_that_only_just_fits_makes_a_model():
    """Nothing else than the rules has to fit: widths and frames of any number, uneven rows."""
    config = methods.default("dinogrl")
    config.data.update({"height": 130, "width": 52, "frames": 3})
    config.model.dinov2.update({"height": 126, "width": 42, "depth": 1, "grid": 5})
    config.model.dinov2.taps, config.model.resnet.stages = (0,), (1, 1, 1, 1)
    config.model.parts = (1,)
    config.model.pbmge = False
    assert map_rows(config) == {"gait": 5, "appearance": 9}
    assert variable_shapes(
        methods.named("dinogrl").Model(checked_config(config), small.FACTS), config
    )


@pytest.mark.parametrize(
    ("setting", "default", "lower", "message"),
    [(row[0], row[1].split()[0], row[2], row[4]) for row in LOWER_ROWS],
    ids=[f"{row[0]}={row[1].split()[0]}" for row in LOWER_ROWS],
)
def test_what_a_small_set_has_to_lower(own, setting, default, lower, message):
    """At the default the checks say what the page says; at the lower value nothing."""
    path = own / "own/changed.jsonl"
    lines = list(map(json.loads, (own / "own/manifest.jsonl").read_text().splitlines()))
    if message.startswith("2 training"):
        lines = [x for x in lines if x["identity"] not in ("cleo", "dora")]
    if setting == "evaluation.camera_filter":
        lines = [x | {"camera": 1} for x in lines]
    path.write_text("\n".join(map(json.dumps, lines)))
    namespace: dict = {}
    exec(compile(CONFIG, "own.py", "exec"), namespace)

    def fatal(value: str) -> list[str]:
        config = changed_config(namespace["get_config"](), {setting: value})
        config.data.root = str(path)
        e = config.evaluation
        asked = demands(config, filters_cameras(e.protocol, e.camera_filter), 1, False)
        report = validate(config.data, asked=asked, frame_check="exist", workers=0)
        return [problem.text for problem in report.fatal]

    assert message in fatal(default) and fatal(lower) == []


def test_the_defaults_that_the_page_names():
    default = methods.default("dinogrl")
    for name, stated, *_ in (*LOWER_ROWS, *rows(LAST, "setting | default | small set | why |\n")):
        value = stated.split()[0]
        if "configs/" in stated:
            path = ROOT / re.search(r"configs/\w+\.py", stated)[0]
            assert str(value_at(read_config(str(path)), name)) == value
        else:
            assert str(value_at(default, name)) == value
    said = re.search(r"repeat a frame: ([\d, ]+);", LAST)[1]
    assert said == ", ".join(map(str, sampling.first_per_chunk(8, default.data.frames)))
    assert sampling.first_per_chunk(8, 4).tolist() == [0, 2, 4, 6]
    assert sampling.first_per_chunk(8, 8).tolist() == list(range(8))
