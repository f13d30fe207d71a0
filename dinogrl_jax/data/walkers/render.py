"""Pictures of walkers: strips with smooth edges, painted from far to near over a background.

Planes hold channels, frames, rows, columns: each shape is painted in all frames at once.
"""

import numpy as np
from jaxtyping import Float, UInt8

from dinogrl_jax.data.walkers.cameras import GROUND, Camera, Shot, random_paint
from dinogrl_jax.data.walkers.garments import MATERIALS, Strip, person_strips
from dinogrl_jax.data.walkers.people import Person


def render_passage(
    who: Person,
    place: Camera,
    shot: Shot,
    modality: str,
    colours: Float[np.ndarray, "materials c"],
    rng: np.random.Generator,
    size: tuple[int, int],
) -> tuple[UInt8[np.ndarray, "t h w c"], UInt8[np.ndarray, "t h w"]]:
    """The pictures of a passage, and the walker's silhouettes without what something hides.

    colours: of each material, from `random_palette`. size: rows and columns.
    """
    planes = background_views(place, shot, modality, size)
    mask = np.zeros(planes.shape[1:], np.float32)
    cast_shadow(planes, shot)
    tones = dict(zip(MATERIALS, colours, strict=True))
    for strip in far_to_near(person_strips(who, shot.phase, shot.heading), place, shot):
        drawn = rasterized_strip(strip, place, shot, size)
        if drawn is not None:
            window, cover, shade = drawn
            composite(planes[window], cover, shade, tones[strip.material])
            seen = mask[window[1:]]
            seen += cover * (1 - seen)
    if shot.occluder is not None:
        paint_occluder(planes, mask, shot.occluder, random_paint(rng, 1.0))
    look = apply_visible_light if modality == "visible" else apply_infrared_lamp
    blur_planes(planes, shot.blur)
    look(planes, place, shot)
    planes += np.float32(shot.noise) * rng.standard_normal(mask.shape, np.float32)
    pictures = (np.clip(planes, 0, 1, out=planes) * 255).astype(np.uint8)
    return np.moveaxis(pictures, 0, -1), (mask * 255).astype(np.uint8)


def material_covers(
    who: Person, place: Camera, shot: Shot, size: tuple[int, int]
) -> Float[np.ndarray, "m t h w"]:
    """How much of each pixel of a passage shows each of MATERIALS, without what something hides."""
    covers = np.zeros((len(MATERIALS), len(shot.phase), *size), np.float32)
    for strip in far_to_near(person_strips(who, shot.phase, shot.heading), place, shot):
        drawn = rasterized_strip(strip, place, shot, size)
        if drawn is not None:
            window, cover, _ = drawn
            own = np.equal(MATERIALS, strip.material)
            composite(covers[window], cover, np.ones_like(cover), own)
    return covers if shot.occluder is None else covers * (1 - occluder_cover(shot.occluder, size))


def background_views(place: Camera, shot: Shot, modality: str, size: tuple[int, int]) -> np.ndarray:
    """The background (c, t, rows, columns) that passes behind the walker."""
    canvas = place.backgrounds[modality]
    rows, columns = size
    period = canvas.shape[2] - columns
    lefts = shot.pan.astype(int) % period
    tops = (canvas.shape[1] - rows) // 2 + np.clip(
        shot.origin[:, 1] - GROUND * rows, -rows // 8, rows // 8
    ).astype(int)
    views = [canvas[:, y : y + rows, x : x + columns] for x, y in zip(lefts, tops, strict=True)]
    return np.stack(views, 1)


def far_to_near(shapes: list[Strip], place: Camera, shot: Shot) -> list[Strip]:
    """The shapes from far to near, by their mean distance over the tracklet."""

    def nearness(strip: Strip) -> float:
        x, y, _ = (strip.start + strip.end).T / 2
        return strip.lift + float(np.mean(x * np.cos(shot.heading) - y * np.sin(shot.heading)))

    return sorted(shapes, key=nearness)


def projected_points(points: np.ndarray, place: Camera, shot: Shot) -> np.ndarray:
    """Columns and rows (t, 2) of points (t, 3) in the walker's frame."""
    x, y, z = points.T
    cosine, sine = np.cos(shot.heading), np.sin(shot.heading)
    right = x * sine + y * cosine
    near = x * cosine - y * sine
    up = z * np.cos(place.pitch) - near * np.sin(place.pitch)
    return shot.origin + shot.scale[:, None] * np.stack([right, -up], -1)


def rasterized_strip(
    strip: Strip, place: Camera, shot: Shot, size: tuple[int, int]
) -> tuple | None:
    """Where a strip is painted: its window of the planes, coverage and shade (t, h, w).

    None where it lies outside the pictures. Coverage falls from 1 to 0 over one pixel of
    distance to the edge.
    """
    start, end = (
        projected_points(strip.start, place, shot),
        projected_points(strip.end, place, shot),
    )
    widths = [np.float32(shot.scale * w)[:, None, None] for w in strip.widths]
    window = strip_window(start, end, float(np.max(widths)), size)
    if window is None:
        return None
    _, _, rows, columns = window
    length = np.maximum(np.hypot(*(end - start).T), 1e-3)
    ux, uy, sx, sy, length = (
        np.float32(v)[:, None, None]
        for v in (*((end - start) / length[:, None]).T, *start.T, length)
    )
    dx = np.arange(columns.start, columns.stop, dtype=np.float32) - sx
    dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - sy
    along = dx * ux + dy * uy
    across = dy * ux - dx * uy
    fraction = np.clip(along / length, 0, 1)
    along -= fraction * length
    along *= strip.flat
    first, middle, last = widths
    bend = 2 * (first + last - 2 * middle)  # the parabola through the three widths
    width = first + fraction * ((last - first - bend) + fraction * bend)
    cover = width + 0.5
    cover -= np.sqrt(across * across + along * along)
    np.clip(cover, 0, 1, out=cover)
    across /= np.maximum(middle, 0.5)
    shade = 1.05 - 0.22 * across * across
    # Across points left of the strip's direction, which hangs down: its right in the picture.
    shade -= np.float32(place.side_light) * across * np.sign(uy)
    return window, cover, shade


def strip_window(
    start: np.ndarray, end: np.ndarray, reach: float, size: tuple[int, int]
) -> tuple[slice, ...] | None:
    """The window (c, t, rows, columns) that holds a strip in all frames, None if empty."""
    low = np.floor(np.minimum(start, end).min(0) - reach - 1).astype(int)
    high = np.ceil(np.maximum(start, end).max(0) + reach + 2).astype(int)
    (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, (size[1], size[0]))
    if left >= right or top >= bottom:
        return None
    return slice(None), slice(None), slice(top, bottom), slice(left, right)


def composite(planes: np.ndarray, cover: np.ndarray, shade: np.ndarray, tone: np.ndarray) -> None:
    """Paint a shaded tone (c,) over planes (c, t, h, w), in place."""
    for plane, value in zip(planes, tone, strict=True):
        plane += cover * (np.float32(value) * shade - plane)


def cast_shadow(planes: np.ndarray, shot: Shot) -> None:
    """Darken the ground around the walker's feet, in place."""
    _, _, rows, columns = planes.shape
    x, y, scale = (np.float32(v)[:, None, None] for v in (*shot.origin.T, shot.scale))
    dx = (np.arange(columns, dtype=np.float32) - x) / (0.45 * scale)
    top = max(int(shot.origin[:, 1].min() - 0.2 * shot.scale.max()), 0)
    dy = (np.arange(top, rows, dtype=np.float32)[:, None] - y) / (0.13 * scale)
    planes[:, :, top:] *= 1 - 0.45 * np.clip(1.5 - dx * dx - dy * dy, 0, 1)


def paint_occluder(
    planes: np.ndarray, mask: np.ndarray, edges: np.ndarray, tone: np.ndarray
) -> None:
    """Paint a foreground object over planes and mask, in place."""
    cover, x = occluder_cover(edges, mask.shape[1:]), np.arange(mask.shape[2], dtype=np.float32)
    shade = 1.1 - 0.3 * (x - x.mean()) / len(x)
    values = tone[:3] if len(planes) == 3 else tone[3:]
    for plane, value in zip(planes, values[:, 0, 0], strict=True):
        plane += cover * (value * shade - plane)
    mask *= 1 - cover


def occluder_cover(edges: np.ndarray, size: tuple[int, int]) -> Float[np.ndarray, "t h w"]:
    """How much of each pixel a foreground object hides."""
    left, top, right, bottom = (np.float32(v)[:, None, None] for v in edges.T)
    rows, columns = size
    x = np.arange(columns, dtype=np.float32)
    y = np.arange(rows, dtype=np.float32)[:, None]
    cover = np.clip(np.minimum(x - left, right - x) + 0.5, 0, 1)
    return cover * np.clip(np.minimum(y - top, bottom - y) + 0.5, 0, 1)


def blur_planes(planes: np.ndarray, blur: float) -> None:
    """Average pixels with their neighbours, in place; `blur` weighs each of two per axis."""
    for axis in (2, 3):
        first, last = [[slice(None)] * 4 for _ in range(2)]
        first[axis], last[axis] = slice(0, -1), slice(1, None)
        step = np.float32(blur) * np.diff(planes, axis=axis)
        planes[tuple(first)] += step
        planes[tuple(last)] -= step


def apply_visible_light(planes: np.ndarray, place: Camera, shot: Shot) -> None:
    """Put planes under the camera's light, in place: gain, tint and contrast."""
    planes *= np.float32(place.tint * shot.gain * shot.contrast)[:, None, None, None]
    planes += np.float32(0.45 * (1 - shot.contrast))


def apply_infrared_lamp(planes: np.ndarray, place: Camera, shot: Shot) -> None:
    """Light planes by a lamp beside the lens, in place: flat, with glare where it is strong."""
    column, row, strength = place.glare
    _, _, rows, columns = planes.shape
    x = np.linspace(-column, 1 - column, columns, dtype=np.float32)
    y = np.linspace(-2 * row, 2 - 2 * row, rows, dtype=np.float32)[:, None]
    lamp = np.exp(-(x * x + y * y) / 0.8)
    planes *= np.float32(0.85 * shot.contrast * shot.gain) * (
        np.float32(place.ambient) + np.float32(strength) * lamp
    )
    planes += np.float32(0.1) + np.float32(0.12) * lamp
