"""DinoGRL: a gait and an appearance stream that enhance each other, one step and one extraction."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dinogrl_in_torch.losses import training_loss
from dinogrl_in_torch.parts import PartClassifier, PartLinear
from dinogrl_in_torch.pbmge import PBMGE
from dinogrl_in_torch.resnet import Backbone, Stem
from dinogrl_in_torch.sasgl import SASGL, Maps
from dinogrl_in_torch.sizes import Sizes

LEARNING_RATE, WEIGHT_DECAY = 3.5e-4, 5e-4
ZEROED = 0.2  # share of tracklets that lose one of their two maps in training


class Appearance(nn.Module):
    """A stem for each modality, then one ResNet for both → parts [v, d, p]."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        bands = sum(s.parts)
        self.image_encoder1, self.image_encoder2 = Stem(s.width), Stem(s.width)
        self.share_encoder = Backbone(s, s.width)
        self.FCs = PartLinear(bands, s.channels, s.features)
        self.BNNecks = PartClassifier(bands + len(s.parts) - 1, s.features, s.identities)

    def forward(self, visible: Tensor | None, infrared: Tensor | None) -> Tensor:
        pair = (self.image_encoder1, visible), (self.image_encoder2, infrared)
        stems = [stem(frames) for stem, frames in pair if frames is not None]
        return self.FCs(self.share_encoder(torch.cat(stems) if len(stems) > 1 else stems[0]))


class Gait(nn.Module):
    """The gait stream, named as in its file."""

    def __init__(self, s: Sizes, gathers: bool) -> None:
        super().__init__()
        self.dinov2 = SASGL(s, gathers)

    def forward(self, frames: Tensor, kept: Tensor | None) -> tuple[Tensor, Maps]:
        return self.dinov2(frames, kept)


class DinoGRL(nn.Module):
    """Frames of both modalities, the visible ones first; `files` are those of a released model."""

    def __init__(self, s: Sizes, gathers: bool) -> None:
        super().__init__()
        self.appearance, self.pbmge, self.gait = Appearance(s), PBMGE(s), Gait(s, gathers)

    def files(self) -> dict[str, nn.Module]:
        return {
            "best_model.pth": self.appearance,
            "best_model2.pth": self.pbmge,
            "best_shape.pth": self.gait,
        }

    def parts(
        self, visible: Tensor | None, infrared: Tensor | None, kept: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Maps]:
        """The parts [v, d, p] of each stream, and the maps."""
        frames = torch.cat([x for x in (visible, infrared) if x is not None])
        gait, maps = self.gait(frames, kept)
        gait, appearance = self.pbmge(gait, self.appearance(visible, infrared))
        return {"gait": gait, "appearance": appearance}, maps


class Training(nn.Module):
    """The loss of a batch and its terms; dtype: of autocast, float32 and float64 without it."""

    def __init__(self, model: DinoGRL, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(
        self, visible: Tensor, infrared: Tensor, labels: Tensor, kept: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Also the parts, which triplets are made of."""
        with autocast(visible.device, self.dtype):
            parts, maps = self.model.parts(visible, infrared, kept)
            gait, appearance = self.model.gait.dinov2.gait_net, self.model.appearance
            logits = {
                "gait": gait.BNNecks(parts["gait"]),
                "appearance": appearance.BNNecks(parts["appearance"]),
            }
        return *training_loss(parts, logits, maps, labels), parts


class Extraction(nn.Module):
    """Descriptors [v, 2p, d] of tracklets of one modality."""

    def __init__(self, model: DinoGRL, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, visible: Tensor) -> Tensor:
        with autocast(visible.device, self.dtype):
            parts, _ = self.model.parts(visible, None)
        return torch.cat([parts["gait"], parts["appearance"]], -1).transpose(1, 2).float()


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    low = dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(device.type, dtype if low else None, enabled=low, cache_enabled=low)


def trained(model: DinoGRL) -> Iterator[nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def optimizer(model: DinoGRL, **options) -> torch.optim.Adam:
    """Adam whose decay is added to the gradient."""
    return torch.optim.Adam(
        trained(model), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True, **options
    )


def drawn_kept_maps(tracklets: int, generator: torch.Generator) -> Tensor:
    """False for one map, by a fair coin, of each of round(0.2·v) distinct tracklets, [v, 2]."""
    kept = torch.ones(tracklets, 2, dtype=torch.bool)
    chosen = torch.randperm(tracklets, generator=generator)[: round(ZEROED * tracklets)]
    kept[chosen, torch.randint(2, chosen.shape, generator=generator)] = False
    return kept
