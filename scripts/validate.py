"""Find everything that is wrong with a data set:

    python scripts/validate.py --dataset vcm --root DIR [--json FILE]

Compares the size with the published one and names every problem with its file and line. Exit
status: 0 if training would work, 1 if it would not (or figures would mean nothing), 2 for a wrong
command line.
"""

import argparse
from pathlib import Path

from ml_collections import ConfigDict

from dinogrl_jax.config import shared
from dinogrl_jax.data.datasets import DATASETS
from dinogrl_jax.data.problems import MAX_SHOWN
from dinogrl_jax.data.validation import FRAME_CHECKS, validate
from dinogrl_jax.interface.errors import run
from dinogrl_jax.interface.files import write_json
from dinogrl_jax.retrieval.protocols import filters_cameras

MINIMUM_FRAMES = {"bupt": 1, "manifest": 1}  # of a data set; the shared setting otherwise
PROTOCOL = {"bupt": "bupt-full"}  # of a data set; "vcm" otherwise


def flags() -> argparse.Namespace:
    data = ConfigDict(shared()["data"])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=sorted(DATASETS), default=data.dataset)
    parser.add_argument("--root", required=True, help="the data set's folder; the manifest")
    parser.add_argument("--json", help="file for the report")
    parser.add_argument(
        "--frames", choices=FRAME_CHECKS, default="decode", help="how to look at them"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes, default 2")
    parser.add_argument("--minimum-frames", type=int, help="default: as published")
    parser.add_argument("--identities", type=int, default=data.identities_per_batch)
    parser.add_argument("--discard-train", default="", help="file of frames to leave out")
    parser.add_argument("--discard-test", default="")
    parser.add_argument("--auxiliary", action="store_true", help="bupt: see config.py")
    parser.add_argument("--fake-infrared", action="store_true", help="bupt: see config.py")
    return parser.parse_args()


def main() -> int:
    options = flags()
    data = ConfigDict(shared()["data"])
    data.minimum_frames = MINIMUM_FRAMES.get(options.dataset, data.minimum_frames)
    for name in ("dataset", "root", "discard_train", "discard_test", "auxiliary", "fake_infrared"):
        data[name] = getattr(options, name)
    if options.minimum_frames is not None:
        data.minimum_frames = options.minimum_frames
    data.identities_per_batch = options.identities
    protocol = PROTOCOL.get(options.dataset, "vcm")
    report = validate(
        data,
        frame_check=options.frames,
        workers=options.workers,
        camera_filter=filters_cameras(protocol),
    )
    if options.json:
        write_json(Path(options.json), report.as_json())
    print(report.text(MAX_SHOWN))
    return 1 if report.fatal else 0


if __name__ == "__main__":
    run(main)
