"""Random bodies, wardrobes and gaits, and the joints of people while they walk.

Axes of a walker's own frame: x forward, y to the left, z up; metres, the ground at z = 0.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Joint angles of normal walking in degrees, over one cycle from the leg's own heel strike:
# mean, then (amplitude, phase in cycles) of each harmonic. Fitted to the textbook curves
# (hip 33 to -10, knee 5 to 62, ankle 10 to -17 degrees) within 2 degrees, the ankle within 4.
HIP = 13.8, ((20.8, 0.039), (3.8, 0.430))
KNEE = 23.7, ((21.0, 0.268), (16.3, -0.431), (3.8, -0.291))
ANKLE = -0.6, ((6.3, -0.261), (7.5, 0.239), (3.3, -0.417))


class Body(NamedTuple):
    """Lengths and half widths in metres."""

    height: float
    thigh: float
    shank: float
    foot: float
    arm: float  # of each half, shoulder to elbow to wrist
    head: float
    shoulder: float
    chest: tuple[float, float]  # lateral (seen from the front), depth (from the side)
    waist: tuple[float, float]
    hips: tuple[float, float]
    thigh_width: float
    calf_width: float
    arm_width: float


class Wardrobe(NamedTuple):
    """Shapes of clothes, hair and luggage; lengths along a leg count 1 per thigh or shank."""

    legs: str  # trousers, shorts or skirt
    legs_width: float  # times the leg's own width
    flare: float  # times the width at the hem
    hem: float  # of shorts or skirt
    coat: float  # hem of the upper garment, 0 where it ends at the hips
    coat_flare: float
    sleeve: float  # 0 none, 1 to the elbow, 2 to the wrist
    upper_width: float
    hair: str
    hair_size: float
    hat: str
    bag: str
    bag_size: float
    bag_side: int  # 1 left, -1 right
    boots: float  # share of the shank
    tights: bool


class Gait(NamedTuple):
    """How a person walks; angles in degrees."""

    cadence: float  # cycles (two steps) per second
    hip: float  # times the usual amplitude
    knee: float
    crouch: float  # added to the knee's angle
    warp: tuple[float, float]  # amplitude and phase of an own second harmonic of the hip
    spread: float  # outward angle of the legs
    toes: float  # outward angle of the feet
    lean: float
    head_lean: float
    twist: float  # of the shoulders against the pelvis
    sway: float  # metres, sideways
    arm_swing: float
    arm_offset: float
    arm_spread: float
    elbow: float
    elbow_swing: float
    asymmetry: float  # left limbs swing 1 + this, right limbs 1 - this


class Person(NamedTuple):
    body: Body
    wardrobe: Wardrobe
    gait: Gait


def random_person(rng: np.random.Generator) -> Person:
    """A person whose body, clothes and gait are drawn widely, so that shapes tell people apart."""
    return Person(random_body(rng), random_wardrobe(rng), random_gait(rng))


def random_body(rng: np.random.Generator) -> Body:
    height = rng.uniform(1.48, 2.0)
    leg = height * rng.uniform(0.46, 0.55)
    thigh = leg * rng.uniform(0.46, 0.54)
    bulk = np.exp(rng.uniform(-0.28, 0.36))
    belly = rng.uniform(0.75, 1.3)
    limb = np.sqrt(bulk) * height / 1.75
    lateral = height * np.sqrt(bulk)
    return Body(
        height=height,
        thigh=thigh,
        shank=leg - thigh,
        foot=height * rng.uniform(0.11, 0.15),
        arm=height * rng.uniform(0.145, 0.185),
        head=height * rng.uniform(0.043, 0.056),
        shoulder=lateral * rng.uniform(0.085, 0.125),
        chest=(lateral * rng.uniform(0.075, 0.105), height * bulk * rng.uniform(0.05, 0.07)),
        waist=(lateral * belly * rng.uniform(0.07, 0.09), height * bulk * belly * 0.06),
        hips=(lateral * rng.uniform(0.08, 0.115), height * bulk * rng.uniform(0.055, 0.075)),
        thigh_width=limb * rng.uniform(0.068, 0.1),
        calf_width=limb * rng.uniform(0.045, 0.065),
        arm_width=limb * rng.uniform(0.036, 0.054),
    )


def random_wardrobe(rng: np.random.Generator) -> Wardrobe:
    legs = rng.choice(("trousers", "shorts", "skirt"), p=(0.55, 0.2, 0.25))
    hats = ("none", "cap", "beanie", "hood", "brim")
    return Wardrobe(
        legs=legs,
        legs_width=rng.uniform(1.0, 1.55),
        flare=rng.uniform(0.8, 2.2),
        hem=rng.uniform(0.55, 1.1) if legs == "shorts" else rng.uniform(0.5, 1.8),
        coat=rng.uniform(0.35, 1.6) * (rng.random() < 0.35),
        coat_flare=rng.uniform(0.95, 1.6),
        sleeve=rng.choice((0.0, 0.6, 1.0, 2.0), p=(0.1, 0.2, 0.1, 0.6)),
        upper_width=rng.uniform(1.0, 1.35),
        hair=rng.choice(("bald", "short", "bob", "long", "bun", "tail", "afro")),
        hair_size=rng.uniform(0.7, 1.5),
        hat=rng.choice(hats, p=(0.6, 0.1, 0.1, 0.1, 0.1)),
        bag=rng.choice(("none", "backpack", "shoulder", "hand"), p=(0.34, 0.28, 0.2, 0.18)),
        bag_size=rng.uniform(0.7, 1.4),
        bag_side=int(rng.choice((-1, 1))),
        boots=rng.uniform(0.3, 0.9) * (rng.random() < 0.25),
        tights=bool(rng.random() < 0.5),
    )


def random_gait(rng: np.random.Generator) -> Gait:
    return Gait(
        cadence=rng.uniform(0.7, 1.15),
        hip=rng.uniform(0.6, 1.1),
        knee=rng.uniform(0.75, 1.12),
        crouch=rng.uniform(-3, 6),
        warp=(rng.uniform(0, 5), rng.random()),
        spread=rng.uniform(-1, 5),
        toes=rng.uniform(-5, 30),
        lean=rng.uniform(-4, 11),
        head_lean=rng.uniform(-8, 30),
        twist=rng.uniform(0, 14),
        sway=rng.uniform(0, 0.045),
        arm_swing=rng.uniform(2, 38),
        arm_offset=rng.uniform(-10, 10),
        arm_spread=rng.uniform(1, 15),
        elbow=rng.choice((rng.uniform(5, 25), rng.uniform(25, 75)), p=(0.65, 0.35)),
        elbow_swing=rng.uniform(0, 30),
        asymmetry=rng.uniform(-0.12, 0.12),
    )


def person_in_mood(who: Person, rng: np.random.Generator, deviation: float) -> Person:
    """The same person on another day: cadence and amplitudes deviate a little."""
    names = ("cadence", "hip", "knee", "arm_swing")
    factors = np.exp(rng.normal(0, deviation, len(names)))
    own = {n: getattr(who.gait, n) * f for n, f in zip(names, factors, strict=True)}
    return who._replace(gait=who.gait._replace(**own))


def joint_angle(
    harmonics: tuple[float, tuple[tuple[float, float], ...]], phase: np.ndarray
) -> np.ndarray:
    """The angle in degrees at a phase, from a Fourier series."""
    mean, waves = harmonics
    return mean + sum(
        a * np.cos(2 * np.pi * (k * phase + p)) for k, (a, p) in enumerate(waves, start=1)
    )


def limb_direction(
    angle: float | np.ndarray, outward: float, side: int
) -> Float[np.ndarray, "... 3"]:
    """Unit vectors of a hanging limb: `angle` forward and `outward`, in degrees."""
    a, b = np.broadcast_arrays(np.radians(angle), np.radians(outward))
    return np.stack([np.sin(a) * np.cos(b), side * np.sin(b), -np.cos(a) * np.cos(b)], -1)


def joint_positions(who: Person, phase: Float[np.ndarray, " t"]) -> dict[str, np.ndarray]:
    """Positions (t, 3) of all joints; left ones start with "left ", right ones with "right "."""
    joints = {"pelvis": np.zeros((len(phase), 3))}
    joints["pelvis"][:, 1] = who.gait.sway * np.sin(2 * np.pi * phase)
    for name, side, own in (("left ", 1, phase), ("right ", -1, phase + 0.5)):
        joints |= leg_joints(who, joints["pelvis"], own, side, name)
    joints |= trunk_joints(who, joints["pelvis"])
    for name, side, own in (("left ", 1, phase), ("right ", -1, phase + 0.5)):
        joints |= arm_joints(who, joints["neck"], phase, own, side, name)
    feet = [
        joints[side + joint][:, 2] for side in ("left ", "right ") for joint in ("ankle", "toe")
    ]
    ground = np.min(feet, 0) - 0.02 * who.body.height  # the sole is below the foot's bones
    for position in joints.values():
        position[:, 2] -= ground
    return joints


def leg_joints(
    who: Person, pelvis: np.ndarray, phase: np.ndarray, side: int, name: str
) -> dict[str, np.ndarray]:
    body, gait = who.body, who.gait
    scale = 1 + side * gait.asymmetry
    own, shift = gait.warp
    hip_angle = HIP[0] + gait.hip * scale * (joint_angle(HIP, phase) - HIP[0])
    hip_angle = hip_angle + own * np.cos(2 * np.pi * (2 * phase + shift)) + 0.4 * gait.crouch
    knee_angle = gait.knee * scale * joint_angle(KNEE, phase) + gait.crouch
    shank_angle = hip_angle - knee_angle
    hip = pelvis + [0, side * 0.6 * body.hips[0], 0]
    knee = hip + body.thigh * limb_direction(hip_angle, gait.spread, side)
    ankle = knee + body.shank * limb_direction(shank_angle, 0.5 * gait.spread, side)
    # A foot stands at right angles to the shank, give or take the ankle.
    toe = ankle + body.foot * limb_direction(
        90 + shank_angle + joint_angle(ANKLE, phase), 0.0, side
    ) * [
        np.cos(np.radians(gait.toes)),
        0,
        1,
    ]
    toe[:, 1] += side * body.foot * np.sin(np.radians(gait.toes))
    return {name + "hip": hip, name + "knee": knee, name + "ankle": ankle, name + "toe": toe}


def trunk_joints(who: Person, pelvis: np.ndarray) -> dict[str, np.ndarray]:
    body, gait = who.body, who.gait
    trunk = body.height - body.thigh - body.shank - 4.1 * body.head
    neck = pelvis + trunk * limb_direction(180 - gait.lean, 0.0, 1)
    return {
        "neck": neck,
        "head": neck + 2.1 * body.head * limb_direction(180 - gait.lean - gait.head_lean, 0.0, 1),
    }


def arm_joints(
    who: Person, neck: np.ndarray, phase: np.ndarray, own: np.ndarray, side: int, name: str
) -> dict[str, np.ndarray]:
    body, gait = who.body, who.gait
    back = np.cos(2 * np.pi * own)  # an arm is back when the leg of its side is in front
    twist = np.radians(gait.twist) * np.cos(2 * np.pi * phase)
    drop = np.full(len(phase), -0.25)
    across = np.stack([-side * np.sin(twist), side * np.cos(twist), drop], -1)
    scale = 1 + side * gait.asymmetry
    shoulder = neck + body.shoulder * across
    angle = gait.arm_offset - scale * gait.arm_swing * back
    bend = gait.elbow + gait.elbow_swing * (0.5 - 0.5 * back)
    elbow = shoulder + body.arm * limb_direction(angle, gait.arm_spread, side)
    hand = elbow + body.arm * limb_direction(angle + bend, -0.3 * gait.arm_spread, side)
    return {name + "shoulder": shoulder, name + "elbow": elbow, name + "hand": hand}
