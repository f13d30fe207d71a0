"""Short videos of moving squares, and the boxes that a tracker would find."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, RATE = 96, 64, 10
COLOURS = ((220, 30, 30), (30, 30, 220))  # of the people, on grey


def box(person: int, number: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a person in a picture."""
    return 4 + 2 * number, 4 + 30 * person, 12, 24


def scene(number: int) -> np.ndarray:
    """A picture in which the people walk to the right."""
    pixels = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for person, colour in enumerate(COLOURS):
        left, top, width, height = box(person, number)
        pixels[top : top + height, left : left + width] = colour
    return pixels


def thermal(number: int) -> np.ndarray:
    """The same in 16 bits, as a thermal camera counts: people are warmer."""
    pixels = np.full((HEIGHT, WIDTH), 28000, np.uint16)
    for person in range(len(COLOURS)):
        left, top, width, height = box(person, number)
        pixels[top : top + height, left : left + width] = 31000 + number
    return pixels


def written(
    path: Path,
    count: int = 20,
    picture: Callable[[int], np.ndarray] = scene,
    codec: str = "mpeg4",
    times: Sequence[int] | None = None,
) -> Path:
    """A video of pictures; times: of each, in tenths of a second, or one after the other."""
    first = picture(0)
    deep = first.dtype == np.uint16
    known = {"rgb": "rgb24", "deep": "gray16le", "grey": "gray"}
    kind = known["deep" if deep else "rgb" if first.ndim == 3 else "grey"]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p" if kind == "rgb24" else kind
        stream.time_base = stream.codec_context.time_base = Fraction(1, RATE)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), kind)
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turned(path: Path) -> None:
    """Let an MP4 say that players show it turned by a quarter, clockwise."""
    content = path.read_bytes()
    at = content.index(b"tkhd") + 4 + 40  # behind version, times, layer and volume
    one = 1 << 16
    matrix = np.array([0, one, 0, -one, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(content[:at] + matrix + content[at + 36 :])


def tracks(path: Path, numbers: Sequence[int] = range(20), between: str = ",") -> Path:
    """The people's boxes in pictures, as MOTChallenge's text; people are tracks 1 and 2."""
    lines = [
        between.join(map(str, (number + 1, person + 1, *box(person, number), 0.9, -1, -1, -1)))
        for number in numbers
        for person in range(len(COLOURS))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
