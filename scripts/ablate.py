"""Train variants of a configuration over several seeds: dinogrl_jax ablate --config FILE

    dinogrl_jax ablate --config vcm --variant everything \\
        --variant "no erasing: augment.erase=0" --variant "long: train.epochs=240"

A variant is a name, a colon and settings; without --variant there are the method's own. Each run is
dinogrl_jax train with settings of its own in a folder of the variant's name and the seed, so runs
that are done are not repeated and a stopped one continues. All settings are looked up before the
first run. Prints a table in Markdown and writes it with all figures to --out.
"""

import argparse
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dinogrl_jax import methods
from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.command_line import config_of
from dinogrl_jax.interface.config_files import read_config
from dinogrl_jax.interface.errors import InputError, errors_naming, run
from dinogrl_jax.interface.files import atomic_write, read_json, write_json
from dinogrl_jax.methods.contract import variants_of
from dinogrl_jax.retrieval.tables import DIRECTIONS
from dinogrl_jax.training.interruption import STOPPED, Interruption

COLUMNS = ("rank1", "mAP", "mINP")
# Of results.json, which lacks a direction without queries.
RESULTS = {
    f"{direction}?": {**dict.fromkeys(COLUMNS, float), "chance_rank1": float}
    for direction in DIRECTIONS
}
LONGEST = 100  # bytes of a folder's name


class Variant(NamedTuple):
    name: str
    settings: dict[str, str]  # name with dots → text of the value

    @property
    def slug(self) -> str:
        """Its name as that of a folder: "+ PBMGE (complete)" is pbmge-complete."""
        return re.sub(r"\W+", "-", self.name.casefold()).strip("-_")


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--config", required=True, type=path, help="a file with get_config()")
    out = "folder of the runs and the table; default runs/ablation"
    parser.add_argument("--out", default="runs/ablation", type=path, help=out)
    parser.add_argument("--seeds", type=whole_number(1), default=3, help="how many; default 3")
    several = '"NAME: section.key=value …", as often as there are variants'
    parser.add_argument("--variant", action="append", type=variant, metavar="TEXT", help=several)
    more = "settings of all variants: data.root=DIR …"
    parser.add_argument("settings", nargs="*", type=setting, help=more)
    words = [word.removeprefix("--config.") for word in sys.argv[1:]]  # as other scripts take them
    args = parser.parse_intermixed_args(words)
    try:
        args.settings = named_once(args.settings)
    except ValueError as error:
        parser.error(str(error))
    return args


def variant(text: str) -> Variant:
    """A name, a colon, and settings with spaces between them; values with spaces in quotes."""
    name, _, settings = text.partition(":")
    try:
        return Variant(name.strip(), named_once(map(setting, shlex.split(settings))))
    except ValueError as error:  # of quotes, or a name twice
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def setting(text: str) -> tuple[str, str]:
    """A name and a value: data.root=DIR."""
    name, equal, value = text.partition("=")
    if not equal:
        raise argparse.ArgumentTypeError(f"{text!r} is no setting like data.root=DIR")
    return name, value


def named_once(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Settings by name; ValueError for a name that is set twice."""
    pairs = list(settings)
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is set twice")
    return dict(pairs)


def chosen_variants(args: argparse.Namespace) -> list[Variant]:
    """Those of the command line, or the method's own; InputError for what cannot be trained."""
    own = variants_of(methods.named(read_config(args.config).method))
    variants = args.variant or [Variant(name, dict(settings)) for name, settings in own.items()]
    check_names(variants)
    for one in variants:
        with errors_naming(f"--variant {one.name!r}"):
            check_settings(args.config, one.settings, args.settings)
    return variants


def check_names(variants: Sequence[Variant]) -> None:
    """Raise InputError for names that make no folder, or the same one."""
    seen: dict[str, str] = {}
    for name, slug in ((one.name, one.slug) for one in variants):
        if not 0 < len(slug.encode()) <= LONGEST:
            raise InputError(f"--variant {name[:80]!r}: give it a name of 1 to {LONGEST} letters")
        if slug in seen:
            raise InputError(
                f"--variant {name!r} and {seen[slug]!r} would have the same folder, {slug}: "
                "rename one"
            )
        seen[slug] = name


def check_settings(config: str, own: Mapping[str, str], shared: Mapping[str, str]) -> None:
    """Raise InputError for settings that are not there, out of range, or set twice."""
    if "seed" in {**own, **shared}:
        raise InputError("seed: --seeds says how many there are, from 0 on")
    if twice := sorted(own.keys() & shared.keys()):
        raise InputError(f"{twice[0]} is also set for all variants: leave one out")
    config_of(config, options({**own, **shared}))


def options(settings: Mapping[str, str]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in settings.items()]


def results_of_run(config: str, workdir: Path, settings: Mapping[str, str]) -> dict | None:
    """The results of a run, which is trained if need be; None where a signal stopped it."""
    script = Path(__file__).with_name("train.py")
    command = [sys.executable, str(script), "--config", config, "--workdir", str(workdir)]
    status = followed([*command, *options(settings)])
    if status == STOPPED:
        return None
    if status:
        raise InputError(f"{workdir}: the run did not end; see above")
    return read_json(workdir / "results.json", RESULTS)


def followed(command: Sequence[str]) -> int:
    """The exit status of a command, which saves where this process is asked to stop.

    Ctrl-C reaches both in a terminal; other signals are passed on. A command that ends before it
    has anything to save counts as stopped.
    """
    heard = []

    def pass_on(number: int, _: object) -> None:
        heard.append(number)
        if number != signal.SIGINT:
            process.send_signal(number)

    with subprocess.Popen(command) as process:
        before = {n: signal.signal(n, pass_on) for n in Interruption.SIGNALS}
        try:
            status = process.wait()
            return STOPPED if heard and status else status
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def table(results: Mapping[str, list[dict]]) -> str:
    """Mean ± deviation over the seeds, in percent, of the last checkpoint."""
    everything = [run for runs in results.values() for run in runs]
    shown = [d for d in DIRECTIONS if all(d in run for run in everything)]
    heads = [f"{d.replace('_', ' ')} {c}" for d in shown for c in COLUMNS]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, runs in results.items():
        values = 100 * np.array([[r[d][c] for d in shown for c in COLUMNS] for r in runs])
        pairs = zip(values.mean(0), values.std(0), strict=True)
        cells = [name.replace("|", "\\|"), *(f"{m:.1f} ± {s:.1f}" for m, s in pairs)]
        lines.append(f"| {' | '.join(cells)} |")
    chance = [100 * everything[0][d]["chance_rank1"] for d in shown[:1]]
    return "\n".join([*lines, "", *(f"Chance rank-1: {value:.1f}." for value in chance)])


def main() -> int:
    args = flags()
    out, results = Path(args.out), {}
    for one in chosen_variants(args):
        results[one.name] = []
        for seed in range(args.seeds):
            folder, settings = out / f"{one.slug}-{seed}", {**one.settings, **args.settings}
            found = results_of_run(args.config, folder, {"seed": str(seed), **settings})
            if found is None:
                return STOPPED
            results[one.name].append(found)
    write_json(out / "ablation.json", results)
    with atomic_write(out / "ablation.md") as file:
        file.write(f"{table(results)}\n".encode())
    print(table(results))
    return 0


if __name__ == "__main__":
    run(main)
