"""Find everything that is wrong with a data set:

    dinogrl_jax validate --dataset vcm --root DIR [--json FILE]
    dinogrl_jax validate --config bupt --config.data.root=DIR

Compares the size with the published one and names every problem with its file and line. With a
configuration it asks what a training with those settings asks before its first step. Exit status: 0
if training would work, 1 if it would not (or figures would mean nothing), 2 for a wrong command
line.
"""

import argparse
from pathlib import Path

from ml_collections import ConfigDict

from dinogrl_jax.config import DATA, shared
from dinogrl_jax.data.checks.frame_files import FRAME_CHECKS
from dinogrl_jax.data.checks.usable import demands
from dinogrl_jax.data.checks.validation import validate
from dinogrl_jax.data.datasets import DATASETS
from dinogrl_jax.data.problems import MAX_SHOWN
from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.command_line import config_of
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import write_json
from dinogrl_jax.retrieval.protocols import filters_cameras, protocol_rule

# What the configurations of a data set change, for a command that names none.
CHANGES = {"bupt": {"data.minimum_frames": 1, "evaluation.protocol": "bupt-full"}}
OPTIONS = ("dataset", "root", "discard_train", "discard_test", "minimum_frames", "identities")
SWITCHES = ("auxiliary", "fake_infrared", "exif_rotation")
SETTINGS = {"identities": "identities_per_batch"}  # of options with other names


def flags() -> tuple[argparse.Namespace, ConfigDict]:
    """The options, and the configuration with what they change in it."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--config", type=path, help="file with get_config(); --config.section.key=value"
    )
    parser.add_argument("--dataset", choices=sorted(DATASETS), help="default vcm")
    parser.add_argument("--root", type=path, help="the data set's folder; the manifest")
    parser.add_argument("--json", type=path, help="file for the report")
    parser.add_argument(
        "--frames", choices=FRAME_CHECKS, default="decode", help="how to look at them"
    )
    parser.add_argument("--workers", type=whole_number(0), default=2, help="processes, default 2")
    parser.add_argument(
        "--minimum-frames", type=whole_number(0), help="default: as training with the settings"
    )
    parser.add_argument("--identities", type=whole_number(1), help="in a batch")
    parser.add_argument("--discard-train", type=path, help="file of frames to leave out")
    parser.add_argument("--discard-test", type=path)
    for name in SWITCHES:
        option, meaning = f"--{name.replace('_', '-')}", DATA[name].meaning
        parser.add_argument(option, action="store_true", default=None, help=meaning)
    options, rest = parser.parse_known_args()
    settings = [word for word in rest if word.startswith("--config.")]
    if len(settings) < len(rest):
        parser.error(f"unknown: {' '.join(word for word in rest if word not in settings)}")
    config = configuration(options.config, options.dataset, settings)
    with config.unlocked():
        for option in (*OPTIONS, *SWITCHES):
            if (value := getattr(options, option)) is not None:
                config.data[SETTINGS.get(option, option)] = value
    return options, config


def configuration(file: str | None, dataset: str | None, settings: list[str]) -> ConfigDict:
    """The configuration in a file, or what all have; InputError for one that cannot be read."""
    if file is None:
        if settings:
            raise InputError(f"command line: {settings[0]} changes a --config, which is not named")
        config = ConfigDict(shared())
        config.update_from_flattened_dict(CHANGES.get(dataset, {}))
        return config
    return config_of(file, settings)


def main() -> int:
    options, config = flags()
    if not config.data.root:
        raise InputError("command line: say where the data set lies, --root DIR")
    evaluation = config.evaluation
    filtered = filters_cameras(evaluation.protocol, evaluation.camera_filter)
    rule = protocol_rule(evaluation.protocol)
    report = validate(
        config.data,
        asked=demands(config, filtered, rule.visible_multiple, rule.exchanged),
        frame_check=options.frames,
        workers=options.workers,
    )
    if options.json:
        write_json(Path(options.json), report.as_json())
    print(report.text(MAX_SHOWN))
    return 1 if report.fatal else 0


if __name__ == "__main__":
    run(main)
