"""PBMGE: the two streams enhance each other part by part, coarse to fine."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinogrl_in_torch.sizes import Sizes


class Enhance(nn.Module):
    """query + BN(W₁(relu(F)·g(source))) − BN(W₂(relu(−F)·g(source))), F = θ(query)ᵀφ(source)/n.

    A vector [v, n] is n positions of one channel, which θ, φ and g lift to n channels.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.theta, self.phi = nn.Conv1d(1, n, 1), nn.Conv1d(1, n, 1)
        self.g = nn.Sequential(nn.Conv1d(1, n, 1))
        self.W1 = nn.Sequential(nn.Conv1d(n, 1, 1), nn.BatchNorm1d(1))
        self.W2 = nn.Sequential(nn.Conv1d(n, 1, 1), nn.BatchNorm1d(1))
        for reduction in (self.W1, self.W2):
            nn.init.zeros_(reduction[1].weight)

    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        q, s = query[:, None], source[:, None]
        affinity = torch.bmm(self.theta(q).transpose(1, 2), self.phi(s)) / query.shape[1]
        lifted = self.g(s).transpose(1, 2)
        shared = self.W1(torch.bmm(F.relu(affinity), lifted).transpose(1, 2))
        specific = self.W2(torch.bmm(F.relu(-affinity), lifted).transpose(1, 2))
        return (q + shared - specific)[:, 0]


class PBMGE(nn.Module):
    """Parts of both streams [v, d, p] → the same with one more part for each granularity."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.granularities = s.parts[1:]
        self.enhance_app_net_3, self.enhance_shape_net_3 = Enhance(s.features), Enhance(s.features)

    def forward(self, gait: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        more, part = [], 1
        for n in self.granularities:
            pair = gait[..., 0], appearance[..., 0]
            for i in range(part, part + n):
                pair = (
                    self.enhance_shape_net_3(pair[0], appearance[..., i]),
                    self.enhance_app_net_3(pair[1], gait[..., i]),
                )
            more.append(pair)
            part += n
        gaits, appearances = (torch.stack(added, -1) for added in zip(*more, strict=True))
        return torch.cat([gait, gaits], -1), torch.cat([appearance, appearances], -1)
