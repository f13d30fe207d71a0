"""The shapes that a camera sees of a walker: limbs, clothes, hair and luggage as strips."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dinogrl_jax.data.walkers.people import Person, joint_positions

MATERIALS = ("skin", "hair", "upper", "lower", "tights", "shoes", "bag", "hat")


class Strip(NamedTuple):
    """A strip with round ends between two points: one limb or piece of clothing."""

    material: str
    start: np.ndarray  # (t, 3) metres, in the walker's frame
    end: np.ndarray  # (t, 3)
    widths: tuple  # half widths in metres at start, middle and end, each a float or (t,)
    lift: float = 0.0  # metres towards the camera, for the order of painting only
    flat: float = 1.0  # 1 has round ends, more flattens them


class Stance(NamedTuple):
    """A walker at t moments as a camera meets it."""

    who: Person
    joints: dict[str, np.ndarray]  # (t, 3) each
    heading: np.ndarray  # (t,) radians from the direction towards the camera

    def apparent_half_width(self, extent: tuple[float, float], scale: float = 1.0) -> np.ndarray:
        """The half width (t,) that an ellipse of (lateral, depth) shows."""
        return scale * np.hypot(extent[0] * np.cos(self.heading), extent[1] * np.sin(self.heading))

    def picture_right(self) -> np.ndarray:
        """The picture's rightward direction (t, 3) in the walker's frame."""
        zero = np.zeros_like(self.heading)
        return np.stack([np.sin(self.heading), np.cos(self.heading), zero], -1)

    def leg_point(self, side: str, length: float) -> np.ndarray:
        """The point (t, 3) at `length` along a leg: 1 is the knee, 2 the ankle."""
        names = ("hip", "knee") if length < 1 else ("knee", "ankle")
        upper, lower = (self.joints[side + name] for name in names)
        return upper + (length - int(length >= 1)) * (lower - upper)


SIDES = ("left ", "right ")


def person_strips(
    who: Person, phase: Float[np.ndarray, " t"], heading: Float[np.ndarray, " t"]
) -> list[Strip]:
    """All shapes of a walker at t moments.

    phase: cycles of the left leg. heading: radians between the direction of walking
    and the direction towards the camera; at pi / 2 the person walks to the picture's right.
    """
    stance = Stance(who, joint_positions(who, phase), heading)
    pieces = (
        leg_strips,
        skirt_and_coat_strips,
        torso_strips,
        arm_strips,
        head_strips,
        hair_strips,
        hat_strips,
        luggage_strips,
    )
    return [strip for piece in pieces for strip in piece(stance)]


def tapered_widths(start: float, end: float) -> tuple[float, float, float]:
    return start, (start + end) / 2, end


def leg_strips(s: Stance) -> list[Strip]:
    body, clothes = s.who.body, s.who.wardrobe
    trousers = clothes.legs == "trousers"
    material = "lower" if trousers else "tights" if clothes.tights else "skin"
    wide = clothes.legs_width if trousers else 1.0
    thigh, calf = body.thigh_width * wide, body.calf_width * wide
    hem = 0.6 * body.calf_width * (max(wide * clothes.flare, 1) if trousers else 1)
    shapes = []
    for side in SIDES:
        hip, knee, ankle, toe = (s.joints[side + n] for n in ("hip", "knee", "ankle", "toe"))
        shapes.append(Strip("shoes", ankle, toe, (0.042, 0.04, 0.026)))
        shapes.append(Strip(material, knee, ankle, (0.85 * calf, calf, hem), flat=1.5))
        shapes.append(Strip(material, hip, knee, tapered_widths(thigh, 0.9 * calf)))
        if clothes.boots:
            top = s.leg_point(side, 2 - clothes.boots)
            shapes.append(Strip("shoes", top, ankle, tapered_widths(1.15 * calf, 0.045), 0.001))
        if clothes.legs == "shorts":
            width = body.thigh_width * clothes.legs_width
            end = s.leg_point(side, clothes.hem)
            shapes.append(Strip("lower", hip, end, tapered_widths(1.05 * width, width), 0.002, 3))
    return shapes


def skirt_and_coat_strips(s: Stance) -> list[Strip]:
    clothes = s.who.wardrobe
    shapes = []
    if clothes.legs == "skirt":
        shapes.append(hanging_strip(s, "lower", clothes.hem, max(clothes.flare, 1.1), 0.11))
    if clothes.coat:
        shapes.append(hanging_strip(s, "upper", clothes.coat, clothes.coat_flare, 0.14))
    return shapes


def hanging_strip(s: Stance, material: str, hem: float, flare: float, lift: float) -> Strip:
    """A skirt: from the hips to the hem, wide enough for the legs inside it."""
    body = s.who.body
    left, right = (s.leg_point(side, hem) for side in SIDES)
    spread = np.abs(((left - right) * s.picture_right()).sum(-1)) / 2
    hips = s.apparent_half_width(body.hips, 1.06)
    bottom = np.maximum(hips * flare, spread + 1.2 * body.calf_width)
    start = s.joints["pelvis"] + [0, 0, 0.08]
    middle = np.maximum(0.55 * hips + 0.45 * bottom, hips)
    return Strip(material, start, (left + right) / 2, (hips, middle, bottom), lift, 6)


def torso_strips(s: Stance) -> list[Strip]:
    body, clothes = s.who.body, s.who.wardrobe
    pelvis, neck = s.joints["pelvis"], s.joints["neck"]
    wide = clothes.upper_width
    widths = (
        s.apparent_half_width(body.chest, wide),
        s.apparent_half_width(body.waist, wide),
        s.apparent_half_width(body.hips, 1.02 * wide),
    )
    top = neck + 0.2 * (pelvis - neck)
    shoulders = [s.joints[side + "shoulder"] for side in SIDES]
    yoke = 0.8 * body.arm_width + 0.015
    seat = (s.apparent_half_width(body.hips),) * 3
    return [
        Strip("lower", pelvis, pelvis - [0, 0, 0.07], seat, -0.03, 2.5),
        Strip("upper", top, pelvis - [0, 0, 0.02], widths, 0.06, 1.6),
        Strip("upper", shoulders[0], shoulders[1], (yoke,) * 3, 0.061),
        Strip("skin", neck - [0, 0, 0.05], s.joints["head"], (0.6 * body.head,) * 3, 0.062),
    ]


def arm_strips(s: Stance) -> list[Strip]:
    body, clothes = s.who.body, s.who.wardrobe
    width, sleeve = body.arm_width, clothes.sleeve
    cloth = width * (clothes.upper_width + 0.1)
    lower = ("upper", cloth, 0.8 * cloth) if sleeve > 1 else ("skin", 0.85 * width, 0.6 * width)
    shapes = []
    for side in SIDES:
        shoulder, elbow, hand = (s.joints[side + n] for n in ("shoulder", "elbow", "hand"))
        tip = hand + 0.09 * (hand - elbow) / body.arm
        shapes.append(Strip("skin", hand, tip, (0.036, 0.04, 0.03), 0.169))
        shapes.append(Strip(lower[0], elbow, hand, tapered_widths(*lower[1:]), 0.171))
        shapes.append(Strip("skin", shoulder, elbow, tapered_widths(width, 0.85 * width), 0.17))
        if sleeve:
            end = shoulder + min(sleeve, 1) * (elbow - shoulder)
            shapes.append(
                Strip("upper", shoulder, end, tapered_widths(1.1 * cloth, cloth), 0.172, 1.5)
            )
    return shapes


def head_strips(s: Stance) -> list[Strip]:
    r, centre = s.who.body.head, s.joints["head"]
    up = [0, 0, 0.42 * r]
    return [Strip("skin", centre + up, centre - up, (1.0 * r, r, 0.82 * r), 0.06)]


def hair_strips(s: Stance) -> list[Strip]:
    kind, size = s.who.wardrobe.hair, s.who.wardrobe.hair_size
    r, centre = s.who.body.head, s.joints["head"]

    def at(x: float, z: float) -> np.ndarray:
        return centre + [x * r, 0, z * r]

    def lock(start: np.ndarray, end: np.ndarray, *widths: float, flat: float = 1.0) -> Strip:
        return Strip("hair", start, end, tuple(w * r for w in widths), 0.065, flat)

    if kind == "bald":
        return []
    if kind == "afro":
        return [lock(at(-0.3, 0.5), at(-0.3, 0.1), *(3 * [1.15 + 0.5 * size]))]
    shapes = [
        lock(at(-0.2, 0.55), at(-0.35, -0.2), 1.1, 1.1, 0.8),
        lock(at(0.1, 0.9), at(-0.1, 0.85), *(3 * [0.66 + 0.1 * size])),
    ]
    if kind in ("bob", "long"):
        length = 1.2 + 0.6 * size if kind == "bob" else 2.6 + 1.8 * size
        shapes.append(lock(at(-0.4, 0.4), at(-0.75, -length), 1.1, 1.35, 1.3, flat=2.0))
    if kind == "bun":
        shapes.append(lock(at(-1.2, 1.1), at(-1.2, 1.0), *(3 * [0.5 * size + 0.15])))
    if kind == "tail":
        shapes.append(lock(at(-1.1, 0.7), at(-1.7, -1.6 * size), 0.3, 0.5, 0.3))
    return shapes


def hat_strips(s: Stance) -> list[Strip]:
    kind, r, centre = s.who.wardrobe.hat, s.who.body.head, s.joints["head"]
    if kind == "none":
        return []
    if kind == "hood":
        start, end = centre + [-0.25 * r, 0, 0.45 * r], centre - [0.35 * r, 0, 1.3 * r]
        return [Strip("upper", start, end, (1.3 * r, 1.35 * r, 1.3 * r), 0.075)]
    top, rim = centre + [0, 0, 0.9 * r], centre + [0, 0, 0.75 * r]
    height = 1.35 if kind == "beanie" else 1.05
    shapes = [
        Strip("hat", centre + [0, 0, height * r], rim, (0.85 * r, 1.1 * r, 1.15 * r), 0.08, 2)
    ]
    if kind == "cap":
        shapes.append(Strip("hat", rim, rim + [1.9 * r, 0, -0.1 * r], (0.2 * r,) * 3, 0.081))
    if kind == "brim":
        out = 2.1 * r * s.picture_right()
        shapes.append(Strip("hat", rim - out, rim + out, (0.2 * r,) * 3, 0.082))
        shapes.append(Strip("hat", top, rim, (0.9 * r,) * 3, 0.082))
    return shapes


def luggage_strips(s: Stance) -> list[Strip]:
    pieces = {
        "none": no_strips,
        "backpack": backpack_strips,
        "shoulder": shoulder_bag_strips,
        "hand": hand_bag_strips,
    }
    return pieces[s.who.wardrobe.bag](s)


def no_strips(s: Stance) -> list[Strip]:
    return []


def backpack_strips(s: Stance) -> list[Strip]:
    body, size = s.who.body, s.who.wardrobe.bag_size
    pelvis, neck = s.joints["pelvis"], s.joints["neck"]
    depth = 0.1 * size
    back = [-body.chest[1] - 0.8 * depth, 0, 0]
    top = neck + 0.1 * (pelvis - neck) + back
    end = neck + (0.35 + 0.4 * size) * (pelvis - neck) + back
    width = s.apparent_half_width((0.15 * np.sqrt(size), depth))
    shapes = [Strip("bag", top, end, (0.85 * width, 1.1 * width, width), 0.1, 2.5)]
    for side in SIDES:
        shoulder = neck + 0.6 * (s.joints[side + "shoulder"] - neck)
        front = [body.chest[1], 0, 0]
        strap = (shoulder + front, 0.5 * (shoulder + pelvis) + front)
        shapes.append(Strip("bag", *strap, (0.016,) * 3, 0.0))
    return shapes


def shoulder_bag_strips(s: Stance) -> list[Strip]:
    body, size, side = s.who.body, s.who.wardrobe.bag_size, s.who.wardrobe.bag_side
    neck = s.joints["neck"]
    hang = s.joints["pelvis"] + [-0.03, side * (1.15 * body.hips[0] + 0.04), 0.04]
    width = s.apparent_half_width((0.06, 0.16 * size))
    bag = Strip("bag", hang, hang - [0, 0, 0.24 * size], (width, 1.05 * width, width), 0.15, 3)
    strap = Strip("bag", neck - [0, side * 0.5 * body.shoulder, 0], hang, (0.018,) * 3, 0.145)
    return [bag, strap]


def hand_bag_strips(s: Stance) -> list[Strip]:
    size = s.who.wardrobe.bag_size
    side = SIDES[0] if s.who.wardrobe.bag_side > 0 else SIDES[1]
    hand = s.joints[side + "hand"]
    width = s.apparent_half_width((0.06, 0.17 * size))
    start = hand - [0, 0, 0.14]
    bag = Strip("bag", start, start - [0, 0, 0.3 * size], (0.9 * width, width, width), 0.15, 3)
    return [bag, Strip("bag", hand, start, (0.014,) * 3, 0.145)]
