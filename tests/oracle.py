"""Retrieval figures the plain way: NumPy, float64, one query at a time, one sort each.

Written from the definitions, without a look at the package, to judge it.
"""

import numpy as np


def part_distances(query, gallery, accumulate=np.float64):
    """Mean over parts of Euclidean distances by |a|² + |b|² − 2ab, in the features' own dtype.

    `accumulate=np.float32` sums the parts in float32, as the published code does.
    """
    total = np.zeros((len(query), len(gallery)), accumulate)
    for part in range(query.shape[1]):
        a, b = query[:, part], gallery[:, part]
        squared = np.sum(a**2, 1)[:, None] + np.sum(b**2, 1)[None, :] - 2 * np.matmul(a, b.T)
        total += np.sqrt(np.maximum(squared, 0))
    return total / query.shape[1]


def distances(name, query, gallery):
    """One loop per pair, straight from the definition of each distance."""
    out = np.zeros((len(query), len(gallery)))
    for i, a in enumerate(np.asarray(query, np.float64)):
        for j, b in enumerate(np.asarray(gallery, np.float64)):
            if name == "part_euclidean" and a.ndim == 2:
                out[i, j] = np.mean([np.linalg.norm(x - y) for x, y in zip(a, b, strict=True)])
                continue
            x, y = a.ravel(), b.ravel()
            out[i, j] = {
                "part_euclidean": lambda x, y: np.linalg.norm(x - y),
                "euclidean": lambda x, y: np.linalg.norm(x - y),
                "squared_euclidean": lambda x, y: np.sum((x - y) ** 2),
                "cosine": lambda x, y: 1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y),
                "dot": lambda x, y: -(x @ y),
            }[name](x, y)
    return out


def figures(distance, query_identity, query_camera, gallery_identity, gallery_camera, **options):
    """CMC, mAP, mINP, number of valid queries and per-query (AP, INP, rank of first match).

    `camera_filter` drops gallery entries of the query's identity and camera.
    """
    max_rank, camera_filter = options.get("max_rank", 20), options.get("camera_filter", True)
    cmc, per_query = [], []
    for i in range(len(distance)):
        order = np.argsort(distance[i], kind="stable")
        hits = gallery_identity[order] == query_identity[i]
        if camera_filter:
            hits = hits[~(hits & (gallery_camera[order] == query_camera[i]))]
        if not hits.any():
            per_query.append((0.0, 0.0, 0))
            continue
        ranks = np.flatnonzero(hits) + 1
        precision = [(n + 1) / rank for n, rank in enumerate(ranks)]
        cmc.append(ranks[0] <= np.arange(1, max_rank + 1))
        per_query.append((np.mean(precision), len(ranks) / ranks[-1], ranks[0]))
    per_query = np.array(per_query)
    valid = per_query[:, 2] > 0
    return np.mean(cmc, 0), *per_query[valid, :2].mean(0), int(valid.sum()), per_query


def k_reciprocal(distance, queries, k1, k2, weight):
    """Re-ranked distances with sets and loops; strictly more than two thirds, as in the code."""
    distance = distance / distance.max(1, keepdims=True)
    count = len(distance)
    order = [np.argsort(row, kind="stable") for row in distance]

    def mutual(i, k):
        return [j for j in order[i][: k + 1] if i in order[j][: k + 1]]

    codes = np.zeros((count, count))
    for i in range(count):
        members = {i} | set(mutual(i, k1))
        for j in mutual(i, k1):
            theirs = mutual(j, round(k1 / 2))
            if len(set(theirs) & set(mutual(i, k1))) > 2 / 3 * len(theirs):
                members |= set(theirs)
        members = sorted(members)
        codes[i, members] = np.exp(-distance[i, members])
        codes[i] /= codes[i].sum()
    codes = np.array([codes[row[:k2]].mean(0) for row in order])
    out = np.zeros((queries, count - queries))
    for i in range(queries):
        for j in range(queries, count):
            low, high = np.minimum(codes[i], codes[j]), np.maximum(codes[i], codes[j])
            jaccard = 1 - low.sum() / high.sum()
            out[i, j - queries] = weight * distance[i, j] + (1 - weight) * jaccard
    return out
