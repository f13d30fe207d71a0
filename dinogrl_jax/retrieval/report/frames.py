"""Frames as small JPEGs, and as elements of a page."""

import base64
import io

from PIL import Image

from dinogrl_jax.data.pictures import decoded
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.report.page import Html, element

HEIGHT = 112  # pixels of a frame; larger ones are made smaller
WIDEST = 4 * HEIGHT
QUALITY = 78  # of JPEG


def small_jpeg(frame: str) -> bytes:
    """A small picture of a frame; empty if the frame cannot be read."""
    try:
        picture = decoded(frame).convert("RGB")
    except (InputError, OSError, ValueError):  # a frame must not stop what shows it
        return b""
    width = max(1, round(picture.width * HEIGHT / picture.height))
    size = min(width, WIDEST), HEIGHT
    large = picture.height > HEIGHT or picture.width > WIDEST
    return jpeg(picture.resize(size) if large else picture)


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def frame_element(frame: str) -> Html | None:
    """The small picture of a frame as an element; None if the frame cannot be read."""
    content = small_jpeg(frame)
    return jpeg_element(content) if content else None


def jpeg_element(content: bytes) -> Html:
    """A JPEG that lies in the page."""
    data = base64.b64encode(content).decode()
    return element("img", src=f"data:image/jpeg;base64,{data}", alt="")
