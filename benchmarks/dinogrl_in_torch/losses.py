"""DinoGRL's training loss, in float32: two terms for each stream, and four of the gait maps."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dinogrl_in_torch.sasgl import Maps

WEIGHTS = {"shape_connect": 0.02, "mask_mse": 1.0, "part_connect": 0.01, "part_diversity": 5.0}
SCALE, SMOOTHING, MARGIN = 16.0, 0.1, 0.2


def training_loss(
    parts: dict[str, Tensor], logits: dict[str, Tensor], maps: Maps, labels: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its unweighted terms; parts [v, d, p] and logits [v, ids, p] by stream."""
    terms = gait_terms(maps)
    total = sum(WEIGHTS[name] * value for name, value in terms.items())
    for stream in parts:
        identity = identity_loss(SCALE * exact(logits[stream]), labels)
        triplet = batch_all_triplet(exact(parts[stream]), labels)
        terms |= {f"identity_{stream}": identity, f"triplet_{stream}": triplet}
        total = total + identity + triplet
    return total, {"total": total, **terms}


def exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def identity_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Smoothed cross-entropy of [v, ids, p], mean over tracklets and parts."""
    every = labels[:, None].expand(-1, logits.shape[2])
    return F.cross_entropy(logits, every, label_smoothing=SMOOTHING)


def batch_all_triplet(x: Tensor, labels: Tensor) -> Tensor:
    """Hinges of every (anchor, positive, negative), mean over a part's non-zero ones, then parts.

    The anchor itself is one of its positives.
    """
    x = x.permute(2, 0, 1)
    square = x.square().sum(-1)
    squared = square[:, :, None] + square[:, None] - 2 * torch.bmm(x, x.transpose(1, 2))
    distance = squared.relu().sqrt()
    same = labels[:, None] == labels
    hinge = (distance[..., None] - distance[:, :, None] + MARGIN).relu()
    hinge = torch.where(same[:, :, None] & ~same[:, None], hinge, 0)
    return (hinge.sum((1, 2, 3)) / (hinge > 0).sum((1, 2, 3)).clamp(min=1)).mean()


def gait_terms(maps: Maps) -> dict[str, Tensor]:
    f, h, w = maps.foreground.shape
    mask, denoising = exact(maps.mask), exact(maps.denoising).view(f, h, w, -1)
    return {
        # Reinterpreted, not transposed, as in the published code.
        "shape_connect": sobel_smoothness(mask.view(f, 2, h, w)),
        "mask_mse": F.mse_loss(exact(maps.made), exact(maps.given)),
        "part_connect": sobel_smoothness(denoising[..., :-1].permute(0, 3, 1, 2)),
        "part_diversity": part_diversity(denoising),
    }


def sobel_smoothness(x: Tensor) -> Tensor:
    """Mean absolute Sobel gradient of the channels' sum, (Σ|gx| + Σ|gy|)/(f·c·h·w)."""
    kernel = x.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([kernel, kernel.T])[:, None].expand(-1, x.shape[1], -1, -1)
    return F.conv2d(x, kernels, padding=1).abs().sum() / x.numel()


def part_diversity(denoising: Tensor) -> Tensor:
    """log₂ c − entropy of each frame's share of the channels [f, h, w, c], mean over frames."""
    mass = denoising.sum((1, 2))
    share = mass / (mass.sum(-1, keepdim=True) + 1e-6)
    entropy = -(share * torch.log2(share + 1e-6)).sum(-1)

    return (math.log2(denoising.shape[-1]) - entropy).mean()
