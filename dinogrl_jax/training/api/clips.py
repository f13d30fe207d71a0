"""Clips as a program has them: arrays, Pillow pictures, paths."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dinogrl_jax.data.frames import HeldFrame
from dinogrl_jax.data.readers.listing import images_in
from dinogrl_jax.data.tracklets import MODALITIES, UNKNOWN, Tracklet
from dinogrl_jax.interface.errors import InputError

Frame = Any  # np.uint8 [h, w, 3] or [h, w], Image.Image, or the path of a file: str, Path
Clip = Any  # Sequence[Frame], np.uint8 [t, h, w, 3], or the path of a folder of frames or of one
KINDS = "arrays of uint8 [height, width, 3] or [height, width], Pillow pictures, or paths"


def tracklets_of_clips(
    clips: Sequence[Clip], modality: str | Sequence[str], cameras: Sequence[int] | None = None
) -> list[Tracklet]:
    """The tracklets that clips are, of one modality or one each; frames in order of time.

    Raises InputError for no clip, a clip without frames, what is no frame, and columns of another
    length.
    """
    if not len(clips):
        raise InputError("there are no clips: give at least one")
    modalities = [modality] * len(clips) if isinstance(modality, str) else list(modality)
    cameras = [UNKNOWN] * len(clips) if cameras is None else list(cameras)
    for name, column in (("modality", modalities), ("cameras", cameras)):
        if len(column) != len(clips):
            raise InputError(f"{name} has {len(column)} entries for {len(clips)} clips")
    for wrong in set(modalities) - set(MODALITIES):
        raise InputError(f"modality = {wrong!r}: use {' or '.join(MODALITIES)}")
    return [
        Tracklet(frames_of_clip(clip, number), UNKNOWN, camera, kind, "both")
        for number, (clip, camera, kind) in enumerate(zip(clips, cameras, modalities, strict=True))
    ]


def frames_of_clip(clip: Clip, number: int) -> tuple[str, ...]:
    """The names of a clip's frames, those of pictures in memory included; InputError without any.

    number: of the clip, for messages.
    """
    if isinstance(clip, str | os.PathLike):
        path = os.fspath(clip)
        clip = images_in(path) if os.path.isdir(path) else [path]
        if not clip:
            raise InputError(f"{path} holds no images: a clip is a folder of frames, or one frame")
    if isinstance(clip, Image.Image):
        raise InputError(f"clip {number} is a picture: give a list of its frames, in order of time")
    if not len(clip):
        raise InputError(f"clip {number} has no frames")
    return tuple(_frame(frame, f"frame {i} of clip {number}") for i, frame in enumerate(clip))


def _frame(frame: Frame, name: str) -> str:
    if isinstance(frame, str | os.PathLike):
        return os.fspath(frame)
    if isinstance(frame, Image.Image):
        try:
            frame.load()  # by this thread: several may resize it
        except Exception as error:  # Pillow's decoders raise a dozen types
            reason = str(error).partition("\n")[0][:200] or type(error).__name__
            raise InputError(f"{name} is a damaged image ({reason})") from error
        return HeldFrame(name, frame)
    return HeldFrame(name, _picture(frame, name))


def _picture(frame: Any, name: str) -> Image.Image:
    """An array as a picture of the same values."""
    try:
        array = np.asarray(frame)
    except Exception as error:  # whatever an object of somebody raises
        raise InputError(f"{name} is {type(frame).__name__}: frames are {KINDS}") from error
    colour = array.ndim == 3 and array.shape[2] == 3
    if array.dtype != np.uint8 or not (colour or array.ndim == 2) or not array.size:
        raise InputError(f"{name} is {array.dtype} of shape {array.shape}: frames are {KINDS}")
    return Image.fromarray(np.ascontiguousarray(array))
