"""Pictures are opened here alone: by an allow-list of formats, within limits, starting no program.

A file from outside says itself what format it is, and some formats are programs: without a list
Pillow hands PostScript to Ghostscript, whatever the name of the file says.
"""

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from dinogrl_jax.data.frames import FrameError, HeldFrame, open_frame
from dinogrl_jax.data.readers.listing import missing_words
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.text import HEAD, content_words, printable

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 50_000_000  # of a picture; a frame of 1920×1080 has 2 million
ORIENTATION = 0x0112  # EXIF's tag
TURNS = {  # EXIF's orientation → what shows the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
logger = logging.getLogger(__name__)
warned: list[str] = []  # of turned pictures, in this process
# Pillow's own limits are above this module's, which says more.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decoded(
    frame: str, upright: bool = False, deep_range: Sequence[float | int] = ()
) -> Image.Image:
    """The frame as it is; `upright`: as its EXIF orientation says that viewers show it.

    deep_range: of a frame that is deeper than 8 bits, the values that become 0 and 255.

    Raises FrameError as `opened`, and for a deeper frame where no range is given.
    """
    with opened(frame) as picture:
        picture.load()
        turn = TURNS.get(orientation(picture))
    if deep_range and is_deep(picture):
        picture = scaled_picture(picture, *deep_range)
    check_depth(frame, picture)
    if turn is None:
        return picture
    if upright:
        return picture.transpose(turn)
    warn_once(
        f"{frame} is stored turned, as more may be, and is read so: data.exif_rotation=True turns "
        "frames as viewers do"
    )
    return picture


def warn_once(text: str) -> None:
    """Log a warning of this kind, the first time in a process."""
    if not warned:
        warned.append(text)
        logger.warning("%s", printable(text))


@contextlib.contextmanager
def opened(frame: str, content: bytes | None = None) -> Iterator[Image.Image]:
    """The picture of a frame, or of the `content` of its file, whose pixels are not read yet.

    Raises FrameError, also from the block: it is missing, no file (a FIFO, say), no image, in a
    format that is not in FORMATS, damaged, or has more than MOST_PIXELS.
    """
    file = None
    try:
        if isinstance(frame, HeldFrame):
            check_size(frame, frame.picture.width * frame.picture.height)
            yield frame.picture
            return
        file = open_frame(frame) if content is None else io.BytesIO(content)
        with Image.open(file, formats=known_formats()) as picture:
            check_size(frame, picture.width * picture.height)
            yield picture
    except FrameError:
        raise
    except InputError as error:
        reason = str(error).removeprefix(f"{frame} ")
        raise FrameError(frame, "no image", reason) from error
    except FileNotFoundError as error:
        raise FrameError(frame, "missing frame", missing_words(frame)) from error
    except UnidentifiedImageError as error:
        raise FrameError(frame, "no image", other_content(file)) from error
    except Image.DecompressionBombError as error:
        raise FrameError(frame, "huge image", f"is too large ({error})") from error
    except Exception as error:  # Pillow's decoders raise a dozen types for a damaged file
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        text = f"is a damaged image ({reason}): restore it"
        raise FrameError(frame, "damaged image", text) from error
    finally:
        if file is not None:
            file.close()


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_size(frame: str, pixels: int) -> None:
    """Raise FrameError for a picture of more than MOST_PIXELS."""
    if pixels > MOST_PIXELS:
        size = f"{pixels / 1e6:.0f} megapixels, more than {MOST_PIXELS / 1e6:.0f}"
        raise FrameError(frame, "huge image", f"has {size}: make it smaller or leave it out")


def check_depth(frame: str, picture: Image.Image) -> None:
    """Raise FrameError for a picture of more than 8 bits a channel."""
    if is_deep(picture):
        reason = "has more than 8 bits a channel: say data.deep_range, or convert it to 8 bits"
        raise FrameError(frame, "deep image", reason)


def is_deep(picture: Image.Image) -> bool:
    """Whether a picture has more than 8 bits a channel."""
    return picture.mode.startswith(("I", "F"))


def scaled_picture(picture: Image.Image, low: float | int, high: float | int) -> Image.Image:
    """A deep picture in 8 bits: 0 up to `low`, 255 from `high` on, linear between."""
    values = np.nan_to_num(np.asarray(picture, np.float64), nan=low)
    shares = np.clip((values - low) / (high - low), 0, 1)
    return Image.fromarray(np.rint(255 * shares).astype(np.uint8))


def other_content(file) -> str:
    """What a file that no decoder knows is, for a FrameError."""
    file.seek(0)
    words = content_words(file.read(HEAD))
    return f"is not an image but {words}" if words else "is not an image: restore it"


def orientation(picture: Image.Image) -> int:
    """EXIF's orientation of a picture: 1 is upright, as it is where there is none."""
    with contextlib.suppress(Exception):  # of damaged EXIF data, which no viewer reads either
        return int(picture.getexif().get(ORIENTATION, 1))
    return 1


def has_pages(picture: Image.Image) -> bool:
    """Whether a file holds more than one picture, of which the first is read."""
    with contextlib.suppress(Exception):  # a damaged second page
        return bool(getattr(picture, "is_animated", False))
    return False


def check_picture(frame: str, content: bytes) -> None:
    """Raise FrameError unless the content of a file is a picture that can be decoded."""
    with opened(frame, content) as picture:
        picture.load()
