"""Convert between PyTorch files and checkpoints, and print what went where.

    dinogrl_jax convert --from dinogrl --model best_model.pth --pbmge best_model2.pth \\
        --gait best_shape.pth --out DIR
    dinogrl_jax convert --from vld --model best_model.pth --out DIR
    dinogrl_jax convert --from dinov2|resnet50|mask_branch|clip FILE --out DIR
    dinogrl_jax convert --to torch --checkpoint DIR --out DIR

Nothing is written where anything does not fit, and nothing is overwritten.
"""

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.interface.arguments import Parser, path
from dinogrl_jax.interface.command_line import WHICH
from dinogrl_jax.interface.config_files import read_config
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import new_folder
from dinogrl_jax.methods import METHODS
from dinogrl_jax.methods.released import released_model, released_states
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.start import starting_variables_of_file
from dinogrl_jax.training.stored import stored_model
from dinogrl_jax.weights.conversion import Report, report_lines
from dinogrl_jax.weights.files import torch_files


def starting_names() -> dict[str, str]:
    """The names of all methods' starting weights → the method whose settings are the default."""
    methods_of = {}
    for name, method in METHODS.items():
        for weights in method.starting_weights(methods.default(name)):
            methods_of.setdefault(weights, name)
    return methods_of


def options_from_command_line() -> argparse.Namespace:
    """The options; those of released files are in `files`, by name."""
    parser = Parser(__doc__)
    way = parser.add_mutually_exclusive_group(required=True)
    files = {name: m.released_files(methods.default(name)) for name, m in METHODS.items()}
    models = (name for name in METHODS if files[name])
    way.add_argument("--from", dest="source", choices=(*models, *starting_names()))
    way.add_argument("--to", choices=("torch",))
    names = ", ".join(starting_names())
    help_of_file = f"file, folder or index of weights of --from {names}, in any usual spelling"
    parser.add_argument("file", nargs="?", type=path, help=help_of_file)
    released: dict[str, list[str]] = {}  # the option's name → what it names
    for name, of_method in files.items():
        for option, file in of_method.items():
            released.setdefault(option, []).append(f"{file.name} of --from {name}")
    for name, titles in released.items():
        meaning = {"metavar": "FILE", "type": path, "help": ", ".join(titles)}
        parser.add_argument(f"--{name}", dest=f"file_{name}", **meaning)
    parser.add_argument("--checkpoint", type=path, help="run, converted model, or step of one")
    parser.add_argument("--which", default=WHICH, help=f"best, last or a step; default {WHICH}")
    parser.add_argument("--config", help="configuration file; default the method as published")
    parser.add_argument("--out", required=True, type=path, help="folder to make")
    options = parser.parse_args()
    given = {name: getattr(options, f"file_{name}") for name in released}
    options.files = {name: place for name, place in given.items() if place}
    check_options(options, files)
    return options


def check_options(options: argparse.Namespace, released: Mapping[str, Mapping]) -> None:
    """Raise InputError for an option that is missing, or that this way does not take.

    released: the files of each method's released model, by their options.
    """
    way = "--to torch" if options.to else f"--from {options.source}"
    own = released.get(options.source, {})
    needed = {f"--{name} {file.name}": name in options.files for name, file in own.items()}
    if options.to:
        needed = {"--checkpoint DIR": options.checkpoint}
    elif options.source not in METHODS:
        needed = {"a FILE": options.file}
    if not any(needed.values()):
        raise InputError(f"{way} needs {' '.join(needed)}")
    foreign = {f"--{name}": name not in own for name in options.files} | {
        "--checkpoint": options.checkpoint and not options.to,
        "--config": options.config and options.to,
        f"FILE ({options.file})": options.file and (options.to or own),
    }
    if refused := [name for name, is_foreign in foreign.items() if is_foreign]:
        raise InputError(f"{way} takes no {' and no '.join(refused)}")


def main() -> None:
    options = options_from_command_line()
    with new_folder(options.out) as folder:
        if options.to:
            reports = write_torch(options, folder)
        elif options.source in METHODS:
            reports = write_model(options, folder)
        else:
            reports = write_starting_weights(options, folder)
    for report in reports:
        print("\n".join(report_lines(report)))


def write_model(options: argparse.Namespace, folder: Path) -> list[Report]:
    """Write the checkpoint of a released model."""
    method, config = configured_method(options.config, options.source)
    if config.method != options.source:
        raise InputError(f"{options.config}: is a configuration of {config.method}")
    variables, facts, reports = released_model(method, options.files, config)
    metadata = checkpoint.Metadata(config, list(range(facts.identities)), list(facts.cameras))
    checkpoint.write_checkpoint(folder, variables, metadata)
    return reports


def write_starting_weights(options: argparse.Namespace, folder: Path) -> list[Report]:
    """Write the checkpoint of published weights, which hold no whole model."""
    method, config = configured_method(options.config, starting_names()[options.source])
    if options.source not in method.starting_weights(config):
        raise InputError(f"{options.config}: {config.method} does not start from {options.source}")
    given = method, options.source, options.file, config
    variables, config, report = starting_variables_of_file(*given)
    checkpoint.write_checkpoint(folder, variables, checkpoint.Metadata(config, [], []))
    return [report]


def write_torch(options: argparse.Namespace, folder: Path) -> list[Report]:
    """Write the PyTorch files of a checkpoint."""
    manager, trained, _ = stored_model(options.checkpoint, options.which)
    with contextlib.closing(manager):
        method = methods.named(trained.config.method)
        variables = checkpoint.stored_variables(method, manager, trained.step)
    states = released_states(method, variables, trained.config)
    for name, (state, _) in states.items():
        torch_files.write(folder / name, state)
    return [report for _, report in states.values()]


def configured_method(name: str | None, default: str) -> tuple[ModuleType, ConfigDict]:
    """The method and the configuration of a file; without one those of a method as published."""
    if name is None:
        return methods.named(default), methods.default(default)
    config = read_config(name)
    return methods.named(config.method), config


if __name__ == "__main__":
    run(main)
