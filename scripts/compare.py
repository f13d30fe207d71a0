"""Compare runs: figures with intervals, and paired differences to the first run.

    dinogrl_jax compare runs/base runs/new --out compare.html

A RUN is a folder in which dinogrl_jax train or evaluate wrote queries.json, or a features file
(.npz, dinogrl_jax extract writes one), which is scored by --protocol, --distance and
--camera_filter. Queries and galleries of all have to be the same tracklets. No model is needed.
"""

import argparse
from pathlib import Path

from dinogrl_jax.interface.arguments import Parser, path
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.retrieval.comparison.document import comparison_html
from dinogrl_jax.retrieval.comparison.figures import compared, text_of
from dinogrl_jax.retrieval.comparison.runs import MOST_RUNS, read_runs
from dinogrl_jax.retrieval.distances import FORMULAS
from dinogrl_jax.retrieval.protocols import CAMERA_FILTERS, PROTOCOLS, filters_cameras
from dinogrl_jax.retrieval.scoring import ScoringOptions

MANY = f"2 to {MOST_RUNS}; the first is the base"


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=path, metavar="RUN", help=MANY)
    add("--out", default="compare.html", type=path, help="HTML file; default compare.html")
    add("--protocol", choices=PROTOCOLS, default="vcm", help="of features files; default vcm")
    add("--distance", choices=FORMULAS, default="", help="of features files; default each one's")
    add("--camera_filter", choices=CAMERA_FILTERS, default="protocol", help="of features files")
    return parser.parse_args()


def main() -> None:
    args = flags()
    filtered = filters_cameras(args.protocol, args.camera_filter)
    if Path(args.out).resolve() in (Path(run).resolve() for run in args.runs):
        raise InputError(f"--out {args.out} is one of the runs, and would be lost: choose another")
    runs = read_runs(args.runs, ScoringOptions(args.protocol, filtered, args.distance))
    found = compared(runs)
    with atomic_write(Path(args.out)) as file:
        file.write(comparison_html(runs, found).encode(errors="replace"))
    print(text_of(found))
    print(f"{args.out}: settings that differ, CMC curves, opens in a browser")


if __name__ == "__main__":
    run(main)
