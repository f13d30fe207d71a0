"""Copy a data set into a few large files, which network disks read faster and copy at once:

    dinogrl_jax prepare --dataset vcm --root DIR --out DIR
    dinogrl_jax prepare --verify DIR

Training and evaluation take the new folder as data.root and see the same batches. Frames keep their
bytes, unless --encode encodes them anew at the size of training: "png" changes no batch either,
"jpeg" is smaller. Only what decodes as a picture is copied. The same command continues a
preparation that was stopped.
"""

import argparse

from ml_collections import ConfigDict

from dinogrl_jax.config import DATA, shared
from dinogrl_jax.data.datasets import DATASETS
from dinogrl_jax.data.preparation import Encoding, prepare
from dinogrl_jax.data.readers import prepared
from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.errors import InputError, run


def flags() -> argparse.Namespace:
    data = ConfigDict(shared()["data"])
    parser = Parser(__doc__)
    parser.add_argument("--dataset", choices=sorted(DATASETS), default=data.dataset)
    parser.add_argument("--root", type=path, help="the data set's folder; of a manifest the file")
    parser.add_argument("--out", type=path, help="folder to make, or to continue")
    parser.add_argument(
        "--verify", type=path, metavar="DIR", help="only compare checksums of a folder"
    )
    parser.add_argument("--encode", choices=("original", "jpeg", "png"), default="original")
    parser.add_argument(
        "--height", type=whole_number(1), default=data.height, help="pixels, with --encode"
    )
    parser.add_argument(
        "--width", type=whole_number(1), default=data.width, help="pixels, with --encode"
    )
    parser.add_argument(
        "--quality", type=whole_number(1), default=95, help="of --encode jpeg, default 95"
    )
    rotation = f"with --encode: {DATA['exif_rotation'].meaning}"
    parser.add_argument("--exif-rotation", action="store_true", help=rotation)
    parser.add_argument("--auxiliary", action="store_true", help=DATA["auxiliary"].meaning)
    parser.add_argument("--fake-infrared", action="store_true", help=DATA["fake_infrared"].meaning)
    parser.add_argument(
        "--frames-per-shard", type=whole_number(1), default=16384, help="default 16384"
    )
    parser.add_argument("--workers", type=whole_number(0), default=2, help="processes, default 2")
    return parser.parse_args()


def main() -> None:
    options = flags()
    if options.verify:
        print(f"{options.verify}: {prepared.verify(options.verify)} files are as they were written")
        return
    if not options.root or not options.out:
        raise InputError("command line: say --root and --out, or --verify")
    config = ConfigDict(shared()["data"])
    names = ("dataset", "root", "auxiliary", "fake_infrared")
    config.update({name: getattr(options, name) for name in names})
    encoding = Encoding()
    if options.encode != "original":
        size = options.height, options.width
        encoding = Encoding(options.encode, *size, options.quality, options.exif_rotation)
    about = prepare(
        config,
        options.out,
        encoding=encoding,
        frames_per_shard=options.frames_per_shard,
        workers=options.workers,
    )
    size = sum(facts["bytes"] for facts in about["files"].values())
    counts = ", ".join(f"{count} {split}" for split, count in about["tracklets"].items())
    print(f"{options.out}: {counts} tracklets, {len(about['files'])} files, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
