"""Pictures in the page: small JPEGs as data URIs."""

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dinogrl_jax.data.frames import decoder_input
from dinogrl_jax.retrieval.report.page import Html, element

HEIGHT = 112  # pixels; larger frames are made smaller
QUALITY = 78  # of JPEG


def frame_image(frame: str) -> Html | None:
    """A small picture of a frame, or None if the frame cannot be read."""
    try:
        with Image.open(decoder_input(frame)) as image:
            picture = image.convert("RGB")
    except Exception:  # a frame must not stop the report; decoders raise a dozen types
        return None
    width = max(1, round(picture.width * HEIGHT / picture.height))
    return jpeg_element(picture.resize((width, HEIGHT)) if picture.height > HEIGHT else picture)


def array_image(picture: UInt8[np.ndarray, "h w 3"]) -> Html:
    """A picture at its own size."""
    return jpeg_element(Image.fromarray(picture))


def jpeg_element(picture: Image.Image) -> Html:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return element("img", src=f"data:image/jpeg;base64,{data}", alt="")
