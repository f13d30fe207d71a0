"""Sets of descriptors that query or are searched, and their blocks on the devices."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import distances

# (identity, camera, gallery identity, gallery camera) → whether the query ignores the entry; it
# uses only operators that NumPy and JAX arrays share
JunkRule = Callable


def no_junk(identity, camera, gallery_identity, gallery_camera):
    """No gallery entry is ignored (BUPTCampus)."""
    return (identity == gallery_identity) & False


def same_camera(identity, camera, gallery_identity, gallery_camera):
    """Entries of the query's identity and camera are ignored (HITSZ-VCM)."""
    return (identity == gallery_identity) & (camera == gallery_camera)


class DescriptorSet(NamedTuple):
    """Some rows of a descriptor array, with the identity and the camera of each.

    Descriptors are used as float32: narrower types are widened block by block, wider ones rounded.
    """

    embedding: Shaped[ArrayLike, "n ..."]  # [n, p, d] or [n, d], a numpy.memmap for instance
    rows: Int[np.ndarray, " m"]
    identity: Shaped[np.ndarray, " m"]
    camera: Shaped[np.ndarray, " m"]

    def take(self, places: Int[np.ndarray, " b"] | slice) -> Float[np.ndarray, "b p d"]:
        """The descriptors at these places of the set; [n, d] becomes one part."""
        rows = self.rows[places]
        if len(rows) and np.all(np.diff(rows) == 1):  # a slice gives a view: nothing is copied
            rows = slice(rows[0], rows[-1] + 1)
        taken = np.asarray(self.embedding[rows], np.float32)
        return taken if taken.ndim == 3 else taken[:, None]

    def descriptor(self, place) -> Float[np.ndarray, "p d"]:
        """The descriptor at one place of the set."""
        return np.atleast_2d(np.asarray(self.embedding[self.rows[place]], np.float32))


def descriptor_set(
    embedding: Shaped[ArrayLike, "n ..."],
    identity: Shaped[ArrayLike, " m"],
    camera: Shaped[ArrayLike, " c"] | None = None,
) -> DescriptorSet:
    """The set of all rows of a descriptor array; without `camera`, all have the same one.

    Raises InputError for columns of another length.
    """
    count = embedding.shape[0]
    camera = np.zeros(count, int) if camera is None else camera
    columns = {"identity": np.asarray(identity), "camera": np.asarray(camera)}
    check_columns(count, **columns)
    return DescriptorSet(embedding, np.arange(count), **columns)


def check_columns(count: int, **columns: np.ndarray) -> None:
    """Raise InputError unless each column has an entry for each of `count` descriptors."""
    for name, column in columns.items():
        if column.shape != (count,):
            raise InputError(f"{name} has shape {column.shape}, the embedding {count} rows")


def comparable_sets(
    query: DescriptorSet, gallery: DescriptorSet
) -> tuple[DescriptorSet, DescriptorSet]:
    """Both sets, with identities and cameras as numbers that are equal where their values are.

    Raises InputError for an empty set and for descriptors of different shapes.
    """
    for what, x in (("query", query), ("gallery", gallery)):
        if not len(x.rows):
            raise InputError(f"the {what} set is empty")
    shapes = [x.take(np.array([0])).shape[1:] for x in (query, gallery)]
    if shapes[0] != shapes[1]:
        raise InputError(f"query descriptors are {shapes[0]}, gallery descriptors {shapes[1]}")
    numbers = [
        np.unique(np.concatenate(columns), return_inverse=True)[1].astype(np.int32)
        for columns in ((query.identity, gallery.identity), (query.camera, gallery.camera))
    ]
    (qi, gi), (qc, gc) = (np.split(x, [len(query.rows)]) for x in numbers)
    return query._replace(identity=qi, camera=qc), gallery._replace(identity=gi, camera=gc)


class Comparison(NamedTuple):
    """What stays the same for all blocks of queries and gallery."""

    name: str  # of the distance
    junk: JunkRule
    offset: Float[np.ndarray, "p d"]
    mesh: Mesh
    size: int  # rows and columns of a block of distances, about


def comparison_of(
    name: str,
    junk: JunkRule,
    query: DescriptorSet,
    size: int = 1024,
    devices: Sequence[jax.Device] | None = None,
) -> Comparison:
    """The comparison for these queries; without `devices`, on all local ones."""
    distances.distance_formula(name)
    some = query.take(np.arange(0, len(query.rows), max(1, len(query.rows) // 256)))
    mesh = Mesh(np.array(devices or jax.local_devices()), ("gallery",))
    return Comparison(name, junk, distances.centring_offset(name, some), mesh, size)


def junk_mask(
    junk: JunkRule, query: DescriptorSet, gallery: DescriptorSet, q, g
) -> Bool[np.ndarray, "..."]:
    """Whether the queries at places q ignore the gallery entries at places g, broadcast."""
    own = query.identity[q], query.camera[q]
    return junk(*own, gallery.identity[g], gallery.camera[g])


def distances_in_blocks(
    function: Callable, query: DescriptorSet, gallery: DescriptorSet, q, g, step: int
) -> Float[np.ndarray, "q g"]:
    """A function of two arrays of descriptors, of those at places q and g, `step` at a time."""
    rows = []
    for i in range(0, len(q), step):
        own = query.take(q[i : i + step])
        others = (gallery.take(g[j : j + step]) for j in range(0, len(g), step))
        rows.append(np.concatenate([function(own, other) for other in others], axis=1))
    return np.concatenate(rows)


def exact_distances(
    comparison: Comparison, query: DescriptorSet, gallery: DescriptorSet, q, g
) -> Float[np.ndarray, "q g"]:
    """Float64 distances between places."""
    exact = partial(distances.exact_distances, comparison.name, offset=comparison.offset)
    # 32 at a time: larger products start BLAS threads
    return distances_in_blocks(exact, query, gallery, q, g, 32)


def pair_distances(
    comparison: Comparison, query: DescriptorSet, gallery: DescriptorSet, q, g
) -> Float[np.ndarray, " n"]:
    """Float64 distances of pairs of places, one by one."""
    pairs = ((query.descriptor(a), gallery.descriptor(b)) for a, b in zip(q, g, strict=True))
    name, offset = comparison.name, comparison.offset
    return np.array([distances.exact_distance(name, *pair, offset) for pair in pairs])


class DeviceBlock(NamedTuple):
    """A block of descriptors on the devices; rows that are not `valid` are padding of the last."""

    operand: distances.Operand
    length: Float[Array, " n"]  # 0 in padding
    valid: Bool[Array, " n"]
    identity: Int[Array, " n"]
    camera: Int[Array, " n"]
    match_distance: Float[Array, "n m"]  # −inf where there are fewer than m matches


def device_blocks(
    x: DescriptorSet,
    match_distance: Float[np.ndarray, "n m"],
    comparison: Comparison,
    sharded: bool,
) -> Iterator[tuple[Int[np.ndarray, " n"], DeviceBlock]]:
    """Blocks of equal size with their places: spread over the devices (`sharded`) or on each.

    Raises InputError for descriptors that are not finite.
    """
    count = len(x.rows)
    blocks = -(-count // comparison.size)
    size = -(-count // (blocks * comparison.mesh.size)) * comparison.mesh.size
    sharding = NamedSharding(comparison.mesh, PartitionSpec("gallery" if sharded else None))
    fill = partial(_padded_on_device, size=size, sharding=sharding)
    columns = x.identity, x.camera, match_distance.astype(np.float32)
    for start in range(0, count, size):
        places = np.arange(start, min(start + size, count))
        operand = distances.centred_operand(fill(x.take(places)), comparison.offset)
        valid = fill(np.ones(len(places), bool))
        length = distances.descriptor_lengths(operand) * valid
        check_finite(np.asarray(length), start, "gallery" if sharded else "query")
        yield places, DeviceBlock(operand, length, valid, *(fill(c[places]) for c in columns))


def _padded_on_device(x: np.ndarray, size: int, sharding: NamedSharding) -> Array:
    """The array on the devices, padded with zeros; it is aligned so that a CPU needs no copy."""
    shape = size, *x.shape[1:]
    memory = np.empty(math.prod(shape) * x.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    out = memory[start : len(memory) - 64 + start].view(x.dtype).reshape(shape)
    out[: len(x)] = x
    out[len(x) :] = 0
    return jax.device_put(out, sharding)


def check_finite(length: Float[np.ndarray, " n"], start: int, what: str) -> None:
    """Raise InputError for a length that is not finite, of the tracklets from `start` on."""
    if not np.isfinite(length).all():
        raise InputError(
            f"{what} tracklet {start + np.argmin(np.isfinite(length))}: its descriptor has NaN, "
            "infinite or huge values; extract it again"
        )
