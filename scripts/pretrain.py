"""Train a stand-in of a demo: dinogrl_jax pretrain --what clip --out walker_clip.pth

No published weights can be shipped, and random transformers know nothing of people. What is trained
here knows other synthetic people than those of the demos (other seeds), and is shipped:

    vit    for DINOv2, of the size in configs/synthetic.py: outlines people
    clip   for CLIP, of the size in configs/synthetic_vld.py: brings frames and captions together
"""

import argparse
import runpy
from pathlib import Path

from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.errors import run
from dinogrl_jax.training.pretraining import walker_clip, walker_vit
from dinogrl_jax.weights.files import torch_files

CONFIGS = Path(__file__).parents[1] / "configs"
KINDS = {
    "vit": ("synthetic.py", walker_vit.trained_state),
    "clip": ("synthetic_vld.py", walker_clip.trained_state),
}


def options_from_command_line() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--what", required=True, choices=KINDS, help="is trained")
    parser.add_argument("--out", required=True, type=path, help="PyTorch file to write")
    counts = {
        "identities": "people; default 300, clip 3000",
        "steps": "default 700, clip 2400",
        "batch": "frames of a step; default 96, clip 64",
    }
    for name, text in counts.items():
        parser.add_argument(f"--{name}", type=whole_number(1), help=text)
    return parser.parse_args()


def main() -> None:
    args = options_from_command_line()
    config, trained_state = KINDS[args.what]
    config = runpy.run_path(str(CONFIGS / config))["get_config"]()
    counts = {name: getattr(args, name) for name in ("identities", "steps", "batch")}
    given = {name: count for name, count in counts.items() if count}
    torch_files.write(args.out, trained_state(config, **given))


if __name__ == "__main__":
    run(main)
