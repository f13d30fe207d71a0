"""Files in folders: which are frames, in which order, and what is none of the data set's."""

import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEOS = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".webm", ".wmv"),
)
TO_FRAMES = "take its frames out first, with ffmpeg -i VIDEO FOLDER/%05d.png, say"
# What systems and tools leave in folders, in small letters, beside all names that begin with a dot.
GHOSTS = {
    *("__macosx", "icon\r", "$recycle.bin", "system volume information", "thumbs.db", "#recycle"),
    *("ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "lost+found", "@eadir", "@recycle"),
    *("@recently-snapshot", "@tmp", "#snapshot", "__pycache__"),
}
LISTED_GHOST = re.compile(r"(^|[/\\])(\._[^/\\]*$|__macosx[/\\]|@eadir[/\\])", re.IGNORECASE)


def is_ghost(name: str) -> bool:
    """Whether a file or folder of that name is left by a system or a tool, as ._1.jpg by a Mac."""
    return name.startswith((".", "~$")) or name.lower() in GHOSTS


def without_ghosts(frames: Iterable[str]) -> list[str]:
    """Frames that a list names, less a Mac's ghosts (._1.jpg) and those in folders of ghosts."""
    return [frame for frame in frames if not LISTED_GHOST.search(frame)]


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, F9 before F10."""
    found = (path for path in folder.iterdir() if not is_ghost(path.name) and path.is_dir())
    return sorted(found, key=lambda path: natural_key(path.name))


def images_in(folder: str | Path) -> list[str]:
    """The paths of the image files in a folder, F9 before F10."""
    names = (x for x in os.listdir(folder) if x.lower().endswith(IMAGES) and not is_ghost(x))
    return [os.path.join(folder, name) for name in sorted(names, key=natural_key)]


def first_video(folder: str | Path) -> str:
    """The name of a video in a folder; empty if there is none."""
    names = sorted(x for x in os.listdir(folder) if not is_ghost(x))
    return next((name for name in names if name.lower().endswith(VIDEOS)), "")


def missing_words(path: str) -> str:
    """What is said of a file that a list names and that is not there."""
    folder, name = os.path.split(path)
    other = _names_in_small_letters(folder).get(name.lower())
    hint = f": its folder has {other!r}, which is another name" if other else ""
    return f"does not exist, though the data set lists it{hint}"


@functools.lru_cache(maxsize=64)
def _names_in_small_letters(folder: str) -> dict[str, str]:
    try:
        return {name.lower(): name for name in os.listdir(folder or ".")}
    except (OSError, ValueError):
        return {}


def natural_key(name: str) -> list:
    """A key that sorts F9 before F10."""
    words = re.split(r"([0-9]+)", name)
    return [int(word) if i % 2 else word for i, word in enumerate(words)]
