"""Replaying the golden sample on the device itself: the proof that it computes this network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.runtime.artifact.file import Artifact, ArtifactError
from model.runtime.artifact.golden import GoldenSample
from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import NO_MASKS, RawAttention, RawOutputs, best_scores
from model.runtime.preprocess import Batch

_Masks = NDArray[np.float32]

# Absolute, for logits of classes and masks and for boxes alike. Right float32 implementations of this network
# differ by about 1e-5 of an array's spread, because they add in different orders; logits spread over some
# tens, mask logits over a hundred at most. A wrong kernel, a corrupted weight or silently reduced precision
# (TF32 keeps three decimal digits) is off by more than this.
GOLDEN_TOLERANCE = 5e-3

# Where precision is reduced on purpose, this share of the expected array's spread is allowed on top; a score may be as
# far from the threshold of its mask and still fall on the other side. Float16 keeps 11 bits, and bfloat16, in which
# only convolutions are, 8: over the demo model and untrained networks of 50 layers, which round worst, they were off by
# 0.006 and 0.025. Weights out of order, or at twice their size, are off by more than that in any layer. An int8 file's
# sample was recorded in int8 by one engine, and others round elsewhere.
GOLDEN_SPREAD = {
    "float32": 0.0,
    "float16": 0.01,
    "bfloat16": 0.05,
    "int8": 0.25,
}
# On average it is far less: rounding is off by much in a few places, a wrong weight by something in all of them. For
# int8, another engine than the one that recorded was off by 0.023 of the spread on average at most, where it was worst
# by 0.16; answers in another order are off by 0.15 to 0.34 on average.
GOLDEN_MEAN = 1 / 5


def replay_golden(engine: Engine, artifact: Artifact) -> float:
    """Run the artifact's golden sample and return the worst absolute difference from its expected output.

    Raises ArtifactError if that exceeds what the engine's precision explains, or other queries than expected got a
    mask.
    """
    golden, where = artifact.golden, f"{artifact.path.name}: on {engine.device}, the golden sample"
    sizes = tuple((int((~mask[:, 0]).sum()), int((~mask[0]).sum())) for mask in golden.padding_mask)
    threshold = golden.mask_threshold
    if threshold is None:
        threshold = np.full(len(golden.images), NO_MASKS, dtype=np.float32)
    share = GOLDEN_SPREAD[engine.precision]
    gives_attention = artifact.metadata.attention is not None
    outputs = engine.infer(Batch(golden.images, golden.padding_mask, sizes), threshold, gives_attention)
    _check_attention(outputs.attention, where)
    pairs = {
        "pred_logits": (golden.pred_logits, outputs.pred_logits),
        "pred_boxes": (golden.pred_boxes, outputs.pred_boxes),
    }
    if golden.mask_index is not None:
        pairs["pred_masks"] = _masks_of_both(golden, outputs, share, where)
    worst = 0.0
    for name, (expected, found) in pairs.items():
        explained = share * float(np.ptp(expected)) if expected.size else 0.0
        difference = np.abs(found - expected) if found.shape == expected.shape else np.full(1, np.inf)
        if difference.size:
            here = float(difference.max())
            _check(here, GOLDEN_TOLERANCE + explained, f"{where}'s {name} is off by {here:.2g}")
            mean = float(difference.mean())
            _check(
                mean, GOLDEN_TOLERANCE + GOLDEN_MEAN * explained, f"{where}'s {name} is off by {mean:.2g} on average"
            )
            worst = max(worst, here)
    return worst


def _check_attention(attention: RawAttention | None, where: str) -> None:
    """Raise ArtifactError unless what attention is made of fits together. The answers, which follow from it, are held
    against what is expected.
    """
    if attention is None:
        return
    for name, queries, keys in (
        ("cross-attention", attention.cross_queries, attention.cross_keys),
        ("self-attention", attention.self_queries, attention.self_keys),
    ):
        if queries.shape[-1] != keys.shape[-1] or not (np.isfinite(queries).all() and np.isfinite(keys).all()):
            raise ArtifactError(f"{where}'s {name} cannot be computed")


def _check(off: float, allowed: float, said: str) -> None:
    # Written so that NaN, which compares false with everything, does not pass.
    if not off <= allowed:
        raise ArtifactError(f"{said}, more than {allowed:.2g}")


def _masks_of_both(golden: GoldenSample, outputs: RawOutputs, share: float, where: str) -> tuple[_Masks, _Masks]:
    """The masks of the queries that have one in both, expected and found, each [k, h, w].

    Raises ArtifactError where another query has one, unless reduced precision explains it: a query may pass the
    threshold or miss it where its expected score lies as close to it as `share`.
    """
    assert golden.mask_index is not None
    assert golden.pred_masks is not None
    assert golden.mask_threshold is not None
    if outputs.mask_index is None or outputs.pred_masks is None:
        raise ArtifactError(f"{where} gives other masks than expected")
    queries = golden.pred_logits.shape[1]
    expected, found = (index[:, 0] * queries + index[:, 1] for index in (golden.mask_index, outputs.mask_index))
    unclear = np.flatnonzero(np.abs(best_scores(golden.pred_logits) - golden.mask_threshold[:, None]) < share)
    if np.any(np.diff(found) <= 0) or not np.isin(np.setxor1d(expected, found), unclear).all():
        raise ArtifactError(f"{where} gives other masks than expected")
    if len(outputs.pred_masks) != len(found):
        return golden.pred_masks, outputs.pred_masks
    return golden.pred_masks[np.isin(expected, found)], outputs.pred_masks[np.isin(found, expected)]
