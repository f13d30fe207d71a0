"""Identities and cameras from outside: one rule for manifests, lists and files of features.

A whole number is a number however JSON or NumPy writes it: 7 and 7.0 are one identity. Text is
taken as it is written. Two spellings that a reader would take for one name (7 and "7", "7" and
"0007", "Anna" and "anna ") are refused, with both places. None, -1, NaN and the texts "", "-1" and
"nan" are unknown. A camera may have a name, from which its number follows in every file.
"""

import math
import re
import unicodedata
import zlib
from datetime import datetime

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.text import UNPRINTABLE, shortened

UNKNOWN = -1
UNKNOWN_WORDS = ("", "-1", "nan")
LONGEST = 200  # letters of a name
LARGEST = 1 << 63  # numbers are stored with 64 bits
LARGEST_CAMERA = 1 << 31  # in a batch with 32
EXACT = 1 << 53  # floating-point numbers from here on stand for several whole numbers
WHOLE = re.compile(r"([+-]?[0-9]+)(\.0*)?")
ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


class NamedCamera(int):
    """A camera's number, which follows from its name; as text it is the name."""

    def __new__(cls, name: str) -> "NamedCamera":
        made = super().__new__(cls, zlib.crc32(name.encode()) >> 1)
        made.name = name
        return made

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple:
        return NamedCamera, (self.name,)


def whole_number(value: object) -> int | None:
    """A number from JSON that is whole, also if it is written as 7.0; None for anything else."""
    if type(value) is float and abs(value) < EXACT and value == int(value):
        return int(value)
    return value if type(value) is int else None


def identity_of(value: object) -> int | str:
    """An identity from JSON: a number or a name, -1 if it is unknown; InputError for others."""
    number = whole_number(value)
    if value is None or (number is None and _is_unknown_word(value)):
        return UNKNOWN
    if number is not None and -LARGEST <= number < LARGEST:
        return number
    if not isinstance(value, str):
        raise InputError("identity is neither a whole number nor a name")
    return checked_name("identity", value)


def camera_of(value: object) -> int:
    """A camera from JSON: its number, also where it has a name; -1 if it is unknown.

    Raises InputError for what is neither.
    """
    number = whole_number(value)
    if value is None or (number is None and _is_unknown_word(value)):
        return UNKNOWN
    if isinstance(value, str):
        digits = re.fullmatch(r"[0-9]{1,18}", checked_name("camera", value).strip())
        number = int(digits[0]) if digits else NamedCamera(value)
    if number is None or not UNKNOWN <= number < LARGEST_CAMERA:
        raise InputError("camera is no whole number of 0 or more, nor a name")
    return number


def _is_unknown_word(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() in UNKNOWN_WORDS


def checked_name(what: str, name: str) -> str:
    """The name of an identity or a camera; InputError if it is too long or cannot be printed."""
    if len(name) > LONGEST:
        raise InputError(f"{what} has {len(name)} letters, more than {LONGEST}")
    if UNPRINTABLE.search(name):
        raise InputError(f"{what} {shortened(name)} holds letters that cannot be printed")
    return name


class Spellings:
    """The names of one kind that a file has so far, to find one name in two spellings."""

    def __init__(self, what: str) -> None:
        self.what = what  # "identity" or "camera"
        self.seen: dict[str, dict[int | str, str]] = {}  # by key: spellings, and where each began

    def problem(self, value: int | str, place: str) -> str:
        """Why a value at a place cannot be told from an earlier one; empty if it can, or is known.

        A spelling is reported where it first occurs.
        """
        found = self.seen.setdefault(spelling_key(value), {})
        if found.setdefault(value, place) != place or len(found) == 1:
            return ""
        first, where = next(iter(found.items()))
        both = f"{shortened_value(value)} here and {shortened_value(first)} in {where}"
        return f"{self.what} is {both}: write it in one way, or give different ones other names"


def spelling_key(value: int | str) -> str:
    """What is equal for all spellings of a name that a reader would take for one."""
    text = unicodedata.normalize("NFKC", str(value)).casefold()
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if number := WHOLE.fullmatch(text):
        text = number[1].removeprefix("+")
    return ZEROS.sub("", text)


def shortened_value(value: int | str) -> str:
    return shortened(value) if isinstance(value, str) else str(value)


def seconds_since_1970(value: object) -> float:
    """Of a time like 2026-11-28T14:00:00+01:00, or of that number; InputError for others."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise InputError("is no time like 2026-11-28T14:00:00+01:00") from error
    if time.tzinfo is None:
        raise InputError("has no offset from UTC: write +01:00 or Z behind it")
    return time.timestamp()
