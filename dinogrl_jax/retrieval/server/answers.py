"""The JSON that the server takes and gives."""

from typing import Literal

from pydantic import BaseModel, Field

from dinogrl_jax.retrieval.store.gallery import Found
from dinogrl_jax.retrieval.store.page import share_words
from dinogrl_jax.retrieval.store.source import Source

Modality = Literal["visible", "infrared"]
Answer = Literal["same", "other"]
PLACE = {"ge": 0, "lt": 1 << 62}


class FoundTracklet(BaseModel):
    """A tracklet that a search found."""

    place: int = Field(description="its number in the gallery")
    name: str
    identity: str = Field(description="empty: unknown")
    camera: str = Field(description="empty: unknown")
    modality: str
    time: float | None = Field(description="of its first frame, seconds since 1970 (UTC)")
    frames: int = Field(description="how many it has")
    distance: float = Field(description="by the model's distance")
    false_accepts: float | None = Field(
        description="at most this share of pairs of different people is as near, by the model's "
        "evaluation; 1 behind its last threshold, null where there is none"
    )
    meaning: str = Field(description="the same in words")
    label: Answer | None = Field(description="what somebody has said of it and this query")


class SearchAnswer(BaseModel):
    """The tracklets nearest to a clip, nearest first."""

    query: str = Field(description="a digest of the clip's pictures and modality, for /labels")
    frames: int = Field(description="that the clip has")
    tracklets: int = Field(description="in the gallery")
    found: list[FoundTracklet]


class GalleryAnswer(BaseModel):
    """What is in the gallery."""

    model: str
    distance: str = Field(description="the formula by which tracklets are ranked")
    note: str = Field(description="what a share of false accepts means")
    tracklets: int
    cameras: list[str] = Field(description="empty: the unknown one")
    modalities: list[str]
    first: float | None = Field(description="time of the first tracklet, seconds since 1970 (UTC)")
    last: float | None


class Said(BaseModel):
    """What somebody says of a query and a tracklet."""

    query: str = Field(pattern="^[0-9a-f]{32}$", description="of a search's answer")
    place: int = Field(**PLACE)
    label: Answer | None = Field(description="null takes back what was said")


class StoredLabel(BaseModel):
    query: str
    place: int
    label: Answer
    time: float = Field(description="when it was said, seconds since 1970 (UTC)")


class Refusal(BaseModel):
    detail: str = Field(description="one line that says what is wrong and what to do")


def found_tracklet(one: Found, source: Source, label: str | None) -> FoundTracklet:
    return FoundTracklet(
        place=one.place,
        name=one.name,
        identity=one.identity,
        camera=one.camera,
        modality=one.modality,
        time=one.time,
        frames=len(one.frames),
        distance=one.distance,
        false_accepts=one.false_accepts,
        meaning=share_words(one.false_accepts, source),
        label=label,
    )
