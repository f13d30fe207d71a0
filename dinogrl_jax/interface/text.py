"""Text and bytes from outside: how they are printed, and what they are instead."""

import re

UNPRINTABLE = re.compile(
    "[\0-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)
WIDE = re.compile(rb"([\t\r\n -~]\0){3,4}[\t\r\n -~]?")
HEAD = 512  # bytes of a file that say what it is

KINDS = (  # how files begin, and what they are then
    (rb"version https://git-lfs", "a pointer of Git LFS: fetch the file itself with git lfs pull"),
    (rb"\x00\x05\x16[\x00\x07]", "what a Mac leaves beside a file (._name): delete it"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript, which is a program and never run: save it as PNG"),
    (rb"%PDF", "a PDF: save its pictures as PNG"),
    (rb".{4}ftyp(heic|heix|hevc|mif1|msf1)", "HEIC: convert it to JPEG or PNG"),
    (
        rb".{4}(ftyp(?!avi)|moov|mdat|free|wide)|RIFF.{4}AVI |\x1aE\xdf\xa3|\x00\x00\x01[\xba\xb3]"
        rb"|FLV\x01|\x30\x26\xb2\x75|OggS|G.{187}G.{187}G",
        "a video: take its frames out first, with ffmpeg -i VIDEO FOLDER/%05d.png, say",
    ),
    (rb"\s*<(!doctype html|html|head|\?xml|svg)", "a web page or XML: download the file again"),
    (
        rb"PK[\x03\x05\x07]|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|.{257}ustar",
        "an archive: unpack it first",
    ),
    (rb"\x89HDF|\x93NUMPY", "an array file of NumPy or HDF5: save its pictures as PNG"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0\0\0\0", "a picture"),
)
PATTERNS = [(re.compile(begin, re.DOTALL | re.IGNORECASE), words) for begin, words in KINDS]


def printable(text: object) -> str:
    """Text in which no character moves a terminal's cursor, hides others or cannot be written.

    Such characters, ESC and line ends for instance, become codes like \\x1b.
    """
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], str(text))


def shortened(text: object, most: int = 60) -> str:
    """The beginning of a text, printable and in quotes if it is text."""
    words = repr(text[: most + 1]) if isinstance(text, str) else str(type(text).__name__)
    return printable(words if len(words) <= most + 2 else f"{words[:most]}…")


def content_words(head: bytes) -> str:
    """What a file is by its first bytes, and what to do with it; empty if nothing is known."""
    if not head.strip(b"\0"):
        return "full of zeros: copy it again" if head else "empty: copy it again"
    if wide_encoding(head):
        return f"{wide_encoding(head)}: save it as UTF-8"
    return next((words for pattern, words in PATTERNS if pattern.match(head)), "")


def wide_encoding(head: bytes) -> str:
    """The name of the encoding of a text whose letters have two or four bytes, else empty."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32 text"
    without_mark = any(WIDE.fullmatch(head[start:8:1]) for start in (0, 1))
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or without_mark:
        return "UTF-16 text, as PowerShell's > writes"
    return ""
