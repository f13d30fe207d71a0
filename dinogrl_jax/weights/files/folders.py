"""Folders of weights as the Hugging Face Hub has them: one file, or an index and its shards."""

from pathlib import Path

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.interface.files import read_json
from dinogrl_jax.weights.files.torch_types import LARGEST_HEADER, printable

INDEX = ".index.json"
NAMES = (  # what is looked for in a folder, the best first
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def weights_in_folder(folder: Path) -> Path | None:
    """The file or index of weights in a folder; None where there is none.

    That is one of NAMES or the only file that ends in one of SUFFIXES. A model's folder in the
    Hub's cache is that of its only snapshot.

    Raises InputError where several files could be meant, or the folder cannot be read.
    """
    try:
        return _weights_in_folder(folder)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def _weights_in_folder(folder: Path) -> Path | None:
    snapshots = sorted(folder.glob("snapshots/*/"))
    if len(snapshots) == 1:
        return _weights_in_folder(snapshots[0])
    named = [folder / name for name in NAMES if (folder / name).is_file()]
    if named:
        return named[0]
    files = (path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    found = sorted(path for path in files if path.name[0] != ".")
    if len(found) > 1:
        names = printable(", ".join(path.name for path in found[:8]))
        raise InputError(f"is a folder of several files of weights: name one of {names}")
    return found[0] if found else None


def files_of_weights(place: Path) -> list[Path]:
    """All files whose content are the weights of a place: a file, an index or a folder of either.

    Raises InputError where there are none.
    """
    if place.is_dir():
        place, folder = weights_in_folder(place), place
        if place is None:
            raise InputError(f"{folder}: is a folder without weights ({', '.join(NAMES)})")
    if not place.name.endswith(INDEX):
        return [place]
    with errors_naming(place):
        return [place, *(place.parent / name for name in shards_of_index(place))]


def shards_of_index(index: Path) -> dict[str, list[str]]:
    """The names of the files that an index lists, each with the keys that it should hold.

    Raises InputError where it is no index, or lists what is no file beside it.
    """
    try:
        places = read_json(index, {"weight_map": {...: str}}, LARGEST_HEADER)["weight_map"]
    except InputError as error:
        reason = str(error).removeprefix(f"{index} ")
        raise InputError(f"is no index of weights, from keys to files ({reason})") from error
    shards: dict[str, list[str]] = {}
    for key, file in places.items():
        shards.setdefault(file, []).append(key)
    wrong = [file for file in shards if Path(file).name != file or file.endswith(".json")]
    if wrong:
        raise InputError(f"lists {printable(wrong[0])}, which is no file beside it")
    missing = [file for file in shards if not (index.parent / file).is_file()]
    if missing:
        count = f"{len(missing)} of its {len(shards)} files are missing"
        raise InputError(f"{count}: download {printable(', '.join(missing))}")
    return shards
