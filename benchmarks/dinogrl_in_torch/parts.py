"""Bands of a feature map, and the layers that each of them has for itself."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def horizontal_pyramid(x: Tensor, parts: Sequence[int]) -> Tensor:
    """[v, c, h, w] → mean + maximum over each of n bands of rows, [v, c, p]."""
    bands = (x.reshape(*x.shape[:2], n, -1) for n in parts)
    return torch.cat([band.mean(-1) + band.amax(-1) for band in bands], -1)


class PartLinear(nn.Module):
    """[v, c, p] → [v, d, p], without bias."""

    def __init__(self, parts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc_bin = nn.Parameter(nn.init.xavier_uniform_(torch.empty(parts, inputs, outputs)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x.permute(2, 0, 1), self.fc_bin).permute(1, 2, 0)


class PartClassifier(nn.Module):
    """A BatchNorm neck over all parts, a cosine classifier of each: [v, d, p] → [v, ids, p]."""

    def __init__(self, parts: int, features: int, identities: int) -> None:
        super().__init__()
        kernel = torch.empty(parts, features, identities)
        self.fc_bin = nn.Parameter(nn.init.xavier_uniform_(kernel))
        self.bn1d = nn.BatchNorm1d(features * parts)

    def forward(self, x: Tensor) -> Tensor:
        neck = self.bn1d(x.reshape(len(x), -1)).view(x.shape)
        neck, kernel = F.normalize(neck, dim=1), F.normalize(self.fc_bin, dim=1)
        return torch.matmul(neck.permute(2, 0, 1), kernel).permute(1, 2, 0)


class Unused(nn.Module):
    """The exponent of a generalised mean, which a released model has and nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0), requires_grad=False)


class UnusedGraph(nn.Module):
    """A graph convolution over the parts, which a released model has and nothing uses."""

    def __init__(self, parts: int, c: int) -> None:
        super().__init__()
        self.stgc_p2p = nn.Module()
        self.stgc_p2p.A_res = nn.Parameter(torch.zeros(5 * parts, parts))
        self.stgc_p2p.mlp = nn.Module()
        self.stgc_p2p.mlp.layers = nn.Sequential(nn.Conv1d(5 * c, c, 1), nn.BatchNorm1d(c))
        self.requires_grad_(False)
