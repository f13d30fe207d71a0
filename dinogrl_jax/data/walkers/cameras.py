"""Random cameras with their backgrounds and light, and how people pass in front of them."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dinogrl_jax.data.walkers.garments import MATERIALS
from dinogrl_jax.data.walkers.people import Person

SECONDS_PER_FRAME = 0.12  # nine frames or so show one cycle of walking
CAMERAS = 12
GROUND = 0.95  # where people stand, of the box's height


class Nuisance(NamedTuple):
    """How strongly everything but identity varies; only this sets how hard the data set is."""

    views: float = 0.45  # 0 shows every person from the side, 1 from all sides equally
    heading: float = 7.0  # degrees, deviation from the camera's walkway between tracklets
    turn: float = 6.0  # degrees, deviation of the change of heading over a tracklet
    shift: float = 0.018  # of the box, deviation of its place
    scale: float = 0.032  # deviation of the box's size, logarithmic
    shake: float = 0.01  # of the box, deviation of its place from frame to frame
    stature: float = 0.7  # share of a person's height that the box does not normalise away
    clutter: float = 0.12  # 0 sets every background apart from people, 1 gives both the same range
    occlusion: float = 0.12  # probability of a foreground object
    noise: float = 1.0  # times each camera's own sensor noise
    blur: float = 1.0  # times each camera's own blur
    light: float = 0.5  # times the tracklets' own deviations of gain (15 %) and contrast (10 %)
    redrawn: float = 0.8  # probability that a garment's colour or reflectance is drawn anew
    mood: float = 0.035  # deviation of cadence and amplitudes between tracklets, logarithmic


NUISANCE = Nuisance()


class Camera(NamedTuple):
    """The properties of a camera; colours and intensities are from 0 to 1."""

    pitch: float  # radians, looking down
    walkway: float  # degrees, heading of people on their usual way, or of its reverse
    backgrounds: dict[str, np.ndarray]  # modality → (c, rows, columns), periodic in columns
    tint: np.ndarray  # (3,)
    gain: float
    contrast: float
    side_light: float  # of shading across a limb, negative from the left
    noise: float
    blur: float  # 0 none, 1/3 a box of three pixels
    glare: tuple[float, float, float]  # infrared lamp: column, row (of the box), strength
    ambient: float  # infrared intensity without the lamp


class Shot(NamedTuple):
    """A walk through the picture of a camera: everything but the person and the colours."""

    phase: np.ndarray  # (t,) cycles
    heading: np.ndarray  # (t,) radians
    scale: np.ndarray  # (t,) pixels per metre
    origin: np.ndarray  # (t, 2) column and row of the ground below the walker
    pan: np.ndarray  # (t,) columns of background that have passed
    occluder: np.ndarray | None  # (t, 4) left, top, right, bottom in pixels
    gain: float
    contrast: float
    noise: float
    blur: float


@lru_cache(maxsize=2 * CAMERAS)
def random_camera(seed: int, number: int, size: tuple[int, int], clutter: float) -> Camera:
    """The camera with this number (1 to 12) for pictures of (rows, columns) pixels."""
    rng = np.random.default_rng([seed, 2, number])
    return Camera(
        pitch=np.radians(rng.uniform(4, 26)),
        walkway=(number * 67.0) % 180 + rng.uniform(-7, 7),
        backgrounds=random_backgrounds(rng, size, clutter),
        tint=rng.uniform(0.9, 1.08, 3),
        gain=rng.uniform(0.8, 1.15),
        contrast=rng.uniform(0.8, 1.1),
        side_light=rng.uniform(-0.3, 0.3),
        noise=rng.uniform(0.005, 0.02),
        blur=rng.uniform(0.0, 0.2),
        glare=(rng.uniform(-0.2, 1.2), rng.uniform(-0.1, 0.7), rng.uniform(0.3, 0.8)),
        ambient=rng.uniform(0.3, 0.6),
    )


def random_backgrounds(
    rng: np.random.Generator, size: tuple[int, int], clutter: float
) -> dict[str, np.ndarray]:
    """A wall with windows, doors and posts above a paved ground, in both modalities.

    The structure is shared; each piece has a colour and, independent of it, a reflectance.
    """
    height, width = size
    rows, columns = height + height // 4, 6 * width
    edge = int(rows * rng.uniform(0.15, 0.7))
    canvas = np.empty((4, rows, columns), np.float32)  # three colours and the reflectance
    canvas[:, :edge] = random_paint(rng, clutter)
    canvas[:, edge:] = random_paint(rng, clutter)
    for _ in range(14):  # windows, doors, posters
        left, top = rng.integers(columns), int(edge * rng.uniform(-0.3, 0.8))
        box = np.arange(left, left + rng.integers(width // 6, width)) % columns
        canvas[:, max(top, 0) : top + int(rows * rng.uniform(0.1, 0.6)), box] = random_paint(
            rng, clutter
        )
    for row in np.geomspace(max(edge, 4), rows, 7).astype(int)[1:-1]:  # kerbs and paving
        canvas[:, row : row + max(height // 48, 1)] *= 1 + rng.uniform(-0.3, 0.3)
    for _ in range(5):  # posts and trunks stand on the ground
        left, foot = rng.integers(columns), edge + rng.integers(1, max(rows - edge, 2))
        box = np.arange(left, left + rng.integers(1, max(width // 6, 2))) % columns
        canvas[:, :foot, box] = random_paint(rng, clutter)
    canvas *= 1 + 0.04 * random_texture(rng, rows, columns)
    canvas = np.concatenate([canvas, canvas[:, :, :width]], 2)
    return {"visible": canvas[:3], "infrared": canvas[3:]}


def random_paint(rng: np.random.Generator, clutter: float) -> np.ndarray:
    """A muted colour and a reflectance (4, 1, 1) of something that is not a person.

    Darker than people, as asphalt is and all that lies beyond a lamp's reach; `clutter` widens
    the range towards that of clothes.
    """
    grey, reflectance = 0.1 + clutter * rng.uniform(-0.05, 0.7, 2)
    return np.float32([*(grey + rng.normal(0, 0.02, 3)), reflectance])[:, None, None]


def random_texture(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Noise (rows, columns) with a grain of about three pixels."""
    noise = rng.standard_normal((rows + 2, columns + 2), np.float32)
    for axis in (0, 1):
        first, middle, last = (
            np.take(noise, np.arange(k, noise.shape[axis] - 2 + k), axis) for k in range(3)
        )
        noise = (first + middle + last) * np.float32(3**-0.5)
    return noise


def random_palette(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Colours and, independent of them, infrared reflectances, (materials, c) each."""
    grey = rng.uniform(0.45, 0.9, (len(MATERIALS), 1))
    colours = np.clip(grey + rng.normal(0, 0.12, (len(MATERIALS), 3)), 0.2, 1)
    colours[MATERIALS.index("skin")] = rng.uniform(0.6, 1) * np.array([1.0, 0.75, 0.6])
    colours[MATERIALS.index("hair")] = rng.uniform(0.45, 1) * np.array([1.0, 0.85, 0.65])
    reflectance = rng.uniform(0.45, 1.0, (len(MATERIALS), 1))
    return {"visible": colours, "infrared": reflectance}


def random_shot(
    rng: np.random.Generator,
    who: Person,
    place: Camera,
    frames: int,
    size: tuple[int, int],
    nuisance: Nuisance,
) -> Shot:
    """A passage of the walker through pictures of (rows, columns) pixels."""
    n = nuisance
    turn = rng.normal(0, n.turn) * np.linspace(-0.5, 0.5, frames)
    reverse = 180 * rng.integers(2)
    walkway = 90 + n.views * (place.walkway - 90)
    heading = np.radians(walkway + reverse + rng.normal(0, n.heading) + turn)
    scale, origin = walker_placement(rng, who, place, frames, size, n)
    speed = 0.8 * SECONDS_PER_FRAME * scale * np.sin(heading)
    occluded = rng.random() < n.occlusion
    return Shot(
        phase=rng.random() + who.gait.cadence * SECONDS_PER_FRAME * np.arange(frames),
        heading=heading,
        scale=scale,
        origin=origin,
        pan=rng.uniform(0, 6 * size[1]) + np.cumsum(speed),
        occluder=occluder_edges(rng, speed, size) if occluded else None,
        gain=place.gain * np.exp(rng.normal(0, 0.15 * n.light)),
        contrast=place.contrast * np.exp(rng.normal(0, 0.1 * n.light)),
        noise=place.noise * n.noise * rng.uniform(0.7, 1.4),
        blur=min(place.blur * n.blur * rng.uniform(0.3, 1.7), 1 / 3),
    )


def walker_placement(
    rng: np.random.Generator,
    who: Person,
    place: Camera,
    frames: int,
    size: tuple[int, int],
    n: Nuisance,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels per metre (t,) and the walker's place (t, 2) in an imperfect box."""
    rows, columns = size
    fitted = who.body.height ** (1 - n.stature) * 1.75**n.stature
    extent = 1.16 * fitted * np.cos(place.pitch) + 0.25 * np.sin(place.pitch)
    zoom = rng.normal(0, n.scale) + rng.normal(0, 0.2 * n.scale, frames)
    shift = rng.normal(0, n.shift, 2) + rng.normal(0, n.shake, (frames, 2))
    origin = np.array([0.5 * columns, GROUND * rows]) + shift * [1.5 * columns, rows]
    return rows / extent * np.exp(zoom), origin


def occluder_edges(
    rng: np.random.Generator, speed: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Edges (t, 4) of a pole, a low wall or a corner in front of the walker."""
    rows, columns = size
    kind = rng.choice(("pole", "low", "corner"))
    left = np.full_like(speed, -columns)
    right, top, bottom = left + 3 * columns, np.zeros_like(speed), np.full_like(speed, 2 * rows)
    if kind == "pole":
        middle = columns * rng.uniform(0.1, 0.9) - np.cumsum(speed - speed[0])
        half = columns * rng.uniform(0.03, 0.12)
        left, right = middle - half, middle + half
    else:
        top = top + rows * rng.uniform(0.66, 0.85)
    if kind == "corner":
        top = top - rows * rng.uniform(0.1, 0.3)
        edge = columns * rng.uniform(0.2, 0.42)
        if rng.random() < 0.5:
            right = left + columns + edge
        else:
            left = right - columns - edge
    return np.stack([left, top, right, bottom], -1)
