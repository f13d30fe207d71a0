"""Figures of descriptors of any origin, for programs."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import feature_file, scoring
from dinogrl_jax.retrieval.distances import distance_formula
from dinogrl_jax.retrieval.protocols import filters_cameras
from dinogrl_jax.retrieval.report.pairs import Pairs, evaluation_pairs
from dinogrl_jax.retrieval.report.verification import (
    judged_pairs,
    verification,
    verification_facts,
)

DEFAULT = scoring.ScoringOptions()


def evaluate(
    features: str | os.PathLike | Mapping[str, Any],
    *,
    protocol: str = DEFAULT.protocol,
    distance: str | None = None,
    camera_filter: str = "protocol",
    rerank: str = DEFAULT.rerank,
) -> dict[str, Any]:
    """The figures of descriptors, as scripts/evaluate.py --features writes them.

    Args:
        features: an .npz, or its arrays by name: `embedding` [n, p, d] or [n, d], floating-point;
            `identity` [n], numbers or text; `modality` [n], "visible" or "infrared"; and if need
            be `camera` [n], `role` [n] ("query", "gallery" or "both"), `path` [n],
            `distance`, `embedding_first` and `embedding_second`. docs/evaluation.md says more.
        protocol: "vcm", "bupt-full" or "bupt-official-drop64".
        distance: by which descriptors are ranked; default as the features say.
        camera_filter: whether a query ignores its own identity and camera: "protocol", "on", "off".
        rerank: "none", "k_reciprocal" or "temporal".

    Returns:
        For each direction that has queries, "visible_to_infrared" and "infrared_to_visible", its
        figures as fractions of 1: rank1, rank5, rank10, rank20, mAP, mINP, queries, gallery,
        chance_rank1. Beside them `intervals`, `skipped`, `verification` and the options.

    Raises:
        InputError: for arrays that are missing, disagree or are not finite, unknown options, no
            query, and no query that has a match.
    """
    filtered, found = filters_cameras(protocol, camera_filter), features_from(features)
    distance = distance or found.distance
    distance_formula(distance)
    how = scoring.ScoringOptions(protocol, filtered, distance, rerank)
    scored = scoring.evaluation_of(found.embedding, found.label_columns, how, found.halves)
    return evaluation_results(scored, evaluation_pairs(scored))


def features_from(features: str | os.PathLike | Mapping[str, Any]) -> feature_file.Features:
    """The features of a file, or of arrays by the names in one; InputError for others."""
    if not isinstance(features, Mapping):
        return feature_file.read_features(os.fspath(features))
    arrays = {name: np.asarray(features[name]) for name in feature_file.WANTED if name in features}
    for name, wanted in feature_file.WANTED.items():
        if wanted.needed and name not in arrays:
            raise InputError(f"features have no array {name!r}; there is {', '.join(features)}")
        if name in arrays and arrays[name].dtype.kind not in wanted.kinds:
            raise InputError(f"features' {name} is {arrays[name].dtype}: give numbers or text")
    return feature_file.features_of(arrays)


def evaluation_results(
    evaluation: scoring.Evaluation, pairs: Mapping[str, Pairs]
) -> dict[str, Any]:
    """What results.json says of an evaluation itself; pairs: `pairs.evaluation_pairs`."""
    judged = judged_pairs(evaluation, pairs)
    return {
        **scoring.direction_figures(evaluation),
        **scoring.evaluation_facts(evaluation),
        "verification": verification_facts(verification(judged), judged),
    }
