"""The published protocols by name, and what each of them ignores. Nothing here imports JAX."""

from typing import NamedTuple

from dinogrl_jax.interface.errors import InputError


class Protocol(NamedTuple):
    """The settings in which the published protocols differ."""

    camera_filter: bool  # ignore gallery tracklets of the query's identity and camera
    visible_multiple: int = 1  # visible queries and gallery are cut to a multiple of this
    exchanged: bool = False  # visible queries are the gallery of infrared ones, as direction_roles


PROTOCOLS = {
    "vcm": Protocol(camera_filter=True),
    "bupt-full": Protocol(camera_filter=False),
    # the published sampler drops the visible tracklets of an incomplete last batch of 64
    "bupt-official-drop64": Protocol(camera_filter=False, visible_multiple=64),
    # one published evaluation takes the matrix of the other direction, transposed
    "bupt-transposed": Protocol(camera_filter=True, exchanged=True),
}
CAMERA_FILTERS = {"protocol": None, "on": True, "off": False}  # evaluation.camera_filter


def protocol_rule(name: str) -> Protocol:
    """The entry of PROTOCOLS; InputError for a name that is not there."""
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def filters_cameras(protocol: str, camera_filter: str = "protocol") -> bool:
    """Whether a query ignores gallery tracklets of its own identity and camera.

    `camera_filter` is the setting of that name: "protocol", "on" or "off".

    Raises InputError for an unknown name.
    """
    if camera_filter not in CAMERA_FILTERS:
        raise InputError(
            f"evaluation.camera_filter = {camera_filter!r}: {', '.join(CAMERA_FILTERS)}"
        )
    own, chosen = protocol_rule(protocol).camera_filter, CAMERA_FILTERS[camera_filter]
    return own if chosen is None else chosen


def protocol_lines(protocol: str, camera_filter: str, figures: dict[str, dict]) -> list[str]:
    """Lines that say what was scored: the junk rule, and the size of each direction.

    `figures` are those of `scoring.direction_figures`, by the name of the direction.
    """
    junk = "of its own identity and camera" if filters_cameras(protocol, camera_filter) else "none"
    rule = protocol_rule(protocol)
    more = ""
    if rule.visible_multiple > 1:
        more = f"; visible sets are cut to a multiple of {rule.visible_multiple}"
    if rule.exchanged:
        more = "; from visible to infrared, queries are the gallery of the other direction"
    lines = [f"protocol {protocol}: gallery tracklets that a query ignores: {junk}{more}"]
    for name, row in figures.items():
        size = f"{row['queries']} queries, {row['gallery']} in the gallery"
        lines.append(f"  {name.replace('_', ' ')}: {size}")
    return lines
