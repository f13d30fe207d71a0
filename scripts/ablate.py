"""Train the ablations of a configuration over several seeds: python scripts/ablate.py --config FILE

Each run is scripts/train.py with settings of its own, so runs that are done are not repeated and a
stopped one continues. Prints a table in Markdown and writes it with all figures to --out.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import read_json, write_json
from dinogrl_jax.retrieval.tables import DIRECTIONS

VARIANTS = {
    "appearance stream": {"model.streams": "('appearance',)", "model.pbmge": "False"},
    "+ SASGL": {"model.pbmge": "False"},
    "+ PBMGE (complete)": {},
}
COLUMNS = ("rank1", "mAP", "mINP")


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--config", required=True, type=path, help="a file with get_config()")
    out = "folder of the runs and the table; default runs/ablation"
    parser.add_argument("--out", default="runs/ablation", type=path, help=out)
    parser.add_argument("--seeds", type=whole_number(1), default=3, help="how many; default 3")
    parser.add_argument("settings", nargs="*", type=setting, help="more settings: data.root=DIR …")
    return parser.parse_args()


def setting(text: str) -> tuple[str, str]:
    """A name and a value: data.root=DIR."""
    name, equal, value = text.partition("=")
    if not equal:
        raise argparse.ArgumentTypeError(f"{text!r} is no setting like data.root=DIR")
    return name, value


def trained(config: str, workdir: Path, settings: dict[str, str]) -> dict:
    """The results of a run, which is trained if need be."""
    options = [f"--config.{key}={value}" for key, value in settings.items()]
    script = Path(__file__).with_name("train.py")
    command = [sys.executable, str(script), "--config", config, "--workdir", str(workdir), *options]
    if subprocess.run(command).returncode:
        raise InputError(f"{workdir}: the run did not end; see above")
    return read_json(workdir / "results.json")


def table(results: dict[str, list[dict]]) -> str:
    """Mean ± deviation over the seeds, in percent, of the last checkpoint."""
    heads = [f"{d.replace('_', ' ')} {c}" for d in DIRECTIONS for c in COLUMNS]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for variant, runs in results.items():
        values = 100 * np.array([[r[d][c] for d in DIRECTIONS for c in COLUMNS] for r in runs])
        pairs = zip(values.mean(0), values.std(0), strict=True)
        lines.append(f"| {variant} | " + " | ".join(f"{m:.1f} ± {s:.1f}" for m, s in pairs) + " |")
    chance = results[variant][0][DIRECTIONS[0]]["chance_rank1"]
    return "\n".join([*lines, "", f"Chance rank-1: {100 * chance:.1f}."])


def main() -> None:
    args = flags()
    more = dict(args.settings)
    out = Path(args.out)
    results = {
        variant: [
            trained(
                args.config,
                out / f"{number}-{seed}",
                {"seed": str(seed), **settings, **more},
            )
            for seed in range(args.seeds)
        ]
        for number, (variant, settings) in enumerate(VARIANTS.items())
    }
    write_json(out / "ablation.json", results)
    (out / "ablation.md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    run(main)
