"""SASGL: silhouette-like maps from frozen tokens, and the gait network on them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinogrl_in_torch.parts import PartClassifier, PartLinear, UnusedGraph
from dinogrl_in_torch.resnet import Backbone, BasicBlock, convolution
from dinogrl_in_torch.sizes import Sizes
from dinogrl_in_torch.vit import DINOv2


class Maps(NamedTuple):
    """Of n = f·h·w positions, at twice the tokens' rows and columns."""

    mask: Tensor  # class probabilities [n, 2]
    foreground: Tensor  # [f, h, w], detached
    denoising: Tensor  # [n, c], zero outside the foreground
    appearance: Tensor
    made: Tensor  # the mask branch's input as its probabilities make it, and as it is, [n, c]
    given: Tensor


class SelectedBatchNorm(nn.BatchNorm1d):
    """BatchNorm without scale and shift, whose statistics are those of the selected rows."""

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False)

    def forward(self, x: Tensor, selected: Tensor | None) -> Tensor:
        """selected: a column of truth values; None: all rows are."""
        if selected is None or not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        count = selected.sum().to(wide.dtype)
        mean = torch.where(selected, wide, 0).sum(0) / count
        centred = wide - mean
        var = torch.where(selected, centred.square(), 0).sum(0) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(var.detach() * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        return (centred * torch.rsqrt(var + self.eps)).to(x.dtype)


class MaskBranch(nn.Module):
    def __init__(self, s: Sizes) -> None:
        super().__init__()
        c = s.embedding
        self.dropout = nn.Dropout(0.5)
        self.bn_s = nn.BatchNorm1d(c, affine=False)
        self.bn_t = nn.BatchNorm1d(2, affine=False)  # unused
        self.down_sampling, self.up_sampling = nn.Linear(c, 2), nn.Linear(2, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_sampling(self.bn_s(self.dropout(x))).softmax(-1)


class DenoisingBranch(nn.Module):
    def __init__(self, s: Sizes) -> None:
        super().__init__()
        c = len(s.taps) * s.embedding
        self.bn_s = SelectedBatchNorm(c)
        self.bn_t = nn.BatchNorm1d(s.map_channels, affine=False)  # unused
        hidden, last = nn.Linear(c, s.hidden), nn.Linear(s.hidden, s.map_channels)
        self.down_sampling = nn.Sequential(hidden, SelectedBatchNorm(s.hidden), nn.GELU(), last)

    def forward(self, x: Tensor, selected: Tensor | None) -> Tensor:
        hidden, norm, gelu, last = self.down_sampling
        x = norm(hidden(self.bn_s(x, selected)), selected)
        return last(gelu(x)).softmax(-1)


class AppearanceBranch(nn.Module):
    def __init__(self, s: Sizes) -> None:
        super().__init__()
        c = len(s.taps) * s.embedding
        self.bn_s, self.bn_t = SelectedBatchNorm(c), SelectedBatchNorm(s.map_channels)
        self.down_sampling = nn.Linear(c, s.map_channels)

    def forward(self, x: Tensor, selected: Tensor | None) -> Tensor:
        return self.bn_t(self.down_sampling(self.bn_s(x, selected)), selected).sigmoid()


class SASGL(nn.Module):
    """Frames → maps → parts of the gait stream; the names are those of a released model.

    gathers: the two branches see the selected positions alone, as published. Their number is not
    known before, so that the host waits for it; otherwise they see all positions, and their
    statistics and maps leave out the others.
    """

    def __init__(self, s: Sizes, gathers: bool) -> None:
        super().__init__()
        self.gathers = gathers
        height, width = (size // s.patch for size in s.resized)
        self.grid, self.frames = (height, width), s.frames
        self.dinov2 = DINOv2(s)
        self.Mask_Branch = MaskBranch(s)
        self.Denoising_Branch, self.Appearance_Branch = DenoisingBranch(s), AppearanceBranch(s)
        self.gait_net = GaitNetwork(s)

    def forward(self, frames: Tensor, kept: Tensor | None) -> tuple[Tensor, Maps]:
        """kept: which of a tracklet's two maps the network sees [v, 2]; None: both of all."""
        maps = self.maps(*self.dinov2(frames))
        shape = len(frames), 2 * self.grid[0], 2 * self.grid[1], -1
        pair = [x.view(shape).permute(0, 3, 1, 2) for x in (maps.denoising, maps.appearance)]
        if kept is not None:
            kept = kept.repeat_interleave(self.frames, 0, output_size=len(frames))
            kept = kept[..., None, None]
            pair = [torch.where(kept[:, i : i + 1], x, 0) for i, x in enumerate(pair)]
        return self.gait_net(*pair), maps

    def maps(self, last: Tensor, tapped: Tensor) -> Maps:
        """Of the last and the tapped tokens [f, n, c]."""
        given, tapped = self.doubled(last), self.doubled(tapped)
        mask = self.Mask_Branch(given)
        made = self.Mask_Branch.up_sampling(mask)
        shape = len(last), 2 * self.grid[0], 2 * self.grid[1]
        with torch.no_grad():
            foreground = closed_foreground(mask.detach().view(*shape, 2))
        selected = foreground.reshape(-1, 1) != 0
        pair = []
        for branch in (self.Denoising_Branch, self.Appearance_Branch):
            if self.gathers:
                rows = selected[:, 0].nonzero()[:, 0]
                found = branch(tapped[rows], None)
                found = found.new_zeros(len(tapped), found.shape[1]).index_copy(0, rows, found)
            else:
                found = torch.where(selected, branch(tapped, selected), 0)
            pair.append(found)
        return Maps(mask, foreground, *pair, made, given)

    def doubled(self, tokens: Tensor) -> Tensor:
        """[f, n, c] → rows of all positions at twice the rows and columns, [4·f·n, c].

        LayerNorm gives float32 under autocast; what follows takes them in autocast's type.
        """
        f, _, c = tokens.shape
        if torch.is_autocast_enabled(tokens.device.type):
            tokens = tokens.to(torch.get_autocast_dtype(tokens.device.type))
        x = tokens.transpose(1, 2).view(f, c, *self.grid)  # channels last, as it lies
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        return x.permute(0, 2, 3, 1).reshape(-1, c)


def closed_foreground(mask: Tensor) -> Tensor:
    """Class probabilities [f, h, w, 2] → the person's inside the closed silhouette, [f, h, w].

    The branch does not know which class is the person, who does not fill the border's rows.
    """
    h, w = mask.shape[1:3]
    border = max(round(5 / 64 * h), 1)
    full = mask[..., 0].round()
    filled = full[:, :border].sum((1, 2)) + full[:, -border:].sum((1, 2))
    person = torch.where((filled > w * border)[:, None, None], mask[..., 1], mask[..., 0])
    dilated = F.max_pool2d(person.round()[:, None], 3, 1, 1)
    eroded = -F.max_pool2d(-dilated, 5, 1, 2)[:, 0] > 0.5
    soft = (dilated[:, 0] > 0.5) ^ eroded
    return torch.where(eroded, 1.0, torch.where(soft, person, 0.0)).to(person.dtype)


class PreBlock(nn.Module):
    def __init__(self, inputs: int, c: int) -> None:
        super().__init__()
        conv1 = nn.Module()
        conv1.conv = convolution(inputs, c, 3)
        layer1 = nn.Sequential(BasicBlock(c))
        block = {"conv1": conv1, "bn1": nn.BatchNorm2d(c), "layer1": layer1}
        self.forward_block = nn.ModuleDict(block)

    def forward(self, x: Tensor) -> Tensor:
        block = self.forward_block
        return block["layer1"](F.relu(block["bn1"](block["conv1"].conv(x))))


class Fusion(nn.Module):
    """A weighted sum of two maps; each position and channel has its own weights."""

    def __init__(self, c: int) -> None:
        super().__init__()
        squeezed = max(c // 16, 1)
        self.conv = nn.Module()
        self.conv.forward_block = nn.Sequential(
            convolution(2 * c, squeezed, 1),
            nn.BatchNorm2d(squeezed),
            nn.ReLU(inplace=True),
            convolution(squeezed, squeezed, 3),
            nn.BatchNorm2d(squeezed),
            nn.ReLU(inplace=True),
            convolution(squeezed, 2 * c, 1),
        )

    def forward(self, denoising: Tensor, appearance: Tensor) -> Tensor:
        logits = self.conv.forward_block(torch.cat([denoising, appearance], 1))
        weights = logits.unflatten(1, (-1, 2)).softmax(2)  # the source is fastest, as published
        return denoising * weights[:, :, 0] + appearance * weights[:, :, 1]


class GaitNetwork(nn.Module):
    """Two maps [f, c, h, w] → parts [v, d, p]. Its classifier sees them enhanced."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.sizes, bands = s, sum(s.parts)
        self.pre_part = PreBlock(s.map_channels, s.pre_channels)
        self.pre_rgb = PreBlock(s.map_channels, s.pre_channels)
        self.fusion = Fusion(s.pre_channels)
        self.post_backbone = Backbone(s, s.pre_channels)
        self.FCs = PartLinear(bands, s.channels, s.features)
        self.BNNecks = PartClassifier(bands + len(s.parts) - 1, s.features, s.identities)
        self.gcn_s, self.gcn_a = UnusedGraph(bands, 32 * s.width), UnusedGraph(bands, 32 * s.width)

    def forward(self, denoising: Tensor, appearance: Tensor) -> Tensor:
        x = self.fusion(self.pre_part(denoising), self.pre_rgb(appearance))
        return self.FCs(self.post_backbone(x))
