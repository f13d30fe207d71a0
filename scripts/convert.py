"""Convert between PyTorch files and checkpoints, and print what went where.

    python scripts/convert.py --from dinogrl --model best_model.pth --pbmge best_model2.pth \\
        --gait best_shape.pth --out DIR
    python scripts/convert.py --from dinov2|resnet50|mask_branch FILE --out DIR
    python scripts/convert.py --to torch --checkpoint DIR --out DIR

Nothing is written where anything does not fit, and nothing is overwritten.
"""

import argparse
import runpy
from pathlib import Path

from dinogrl_jax.devices import sharding
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.retrieval.embedding import loaded
from dinogrl_jax.training import checkpoint
from dinogrl_jax.weights import pretrained, torch_files
from dinogrl_jax.weights.conversion import table

CONFIG = Path(__file__).parents[1] / "configs" / "vcm.py"
RELEASED = ("model", "pbmge", "gait")


def flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--from", dest="source", choices=("dinogrl", "dinov2", "resnet50", "mask_branch")
    )
    way.add_argument("--to", choices=("torch",))
    parser.add_argument("file", nargs="?", help="of --from dinov2, resnet50 or mask_branch")
    parser.add_argument("--model", help="best_model.pth of a released DinoGRL")
    parser.add_argument("--pbmge", help="its best_model2.pth")
    parser.add_argument("--gait", help="its best_shape.pth")
    parser.add_argument("--checkpoint", help="folder of a run or of a converted model")
    parser.add_argument("--which", default="best", help="best, last or a step; default best")
    parser.add_argument("--config", default=str(CONFIG), help="default configs/vcm.py")
    parser.add_argument("--out", required=True, help="folder to make")
    return parser.parse_args()


def main() -> None:
    options = flags()
    with pretrained.new_folder(options.out) as folder:
        if options.to:
            reports = write_torch(options, folder)
        elif options.source == "dinogrl":
            reports = write_model(options, folder)
        else:
            reports = write_part(options, folder)
    for report in reports:
        print("\n".join(table(report)))


def write_model(options: argparse.Namespace, folder: Path) -> list:
    paths = {name: path for name in RELEASED if (path := getattr(options, name))}
    config = configuration(options.config)
    variables, identities, reports = pretrained.released_model(paths, config)
    metadata = checkpoint.Metadata(config, list(range(identities)), 0, None, None)
    pretrained.write_checkpoint(folder, variables, metadata)
    return reports


def write_part(options: argparse.Namespace, folder: Path) -> list:
    if not options.file:
        raise InputError(f"--from {options.source} needs a FILE")
    variables, config, report = pretrained.released_part(
        options.source, options.file, configuration(options.config)
    )
    metadata = checkpoint.Metadata(config, [], 0, None, None)
    pretrained.write_checkpoint(folder, variables, metadata)
    return [report]


def write_torch(options: argparse.Namespace, folder: Path) -> list:
    if not options.checkpoint:
        raise InputError("--to torch needs --checkpoint DIR")
    manager = pretrained.checkpoints_of(options.checkpoint)
    step = checkpoint.chosen_step(manager, options.which)
    pretrained.check_whole(manager, step)
    _, variables, metadata = loaded(manager, step, sharding.device_mesh())
    states = pretrained.released_states(variables, metadata.config)
    for name, (state, _) in states.items():
        torch_files.write(folder / name, state)
    return [report for _, report in states.values()]


def configuration(path: str):
    """What the `get_config` of a configuration file returns."""
    try:
        return runpy.run_path(path)["get_config"]()
    except (OSError, KeyError, SyntaxError) as error:
        raise InputError(f"{path}: is not a configuration file ({error})") from error


if __name__ == "__main__":
    run(main)
