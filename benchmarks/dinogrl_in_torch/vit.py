"""DINOv2's vision transformer, frozen."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinogrl_in_torch.sizes import Sizes

OFFSET = 0.1  # added to the grid's size in the positional embedding's scale factor


class DINOv2(nn.Module):
    """Frames [f, 3, h, w] → patch tokens [f, n, c] and tapped tokens [f, n, 4c], normalised."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.sizes, c = s, s.embedding
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + s.grid**2, c) * 0.02)
        self.mask_token = nn.Parameter(torch.zeros(1, c))  # of pre-training
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, c, s.patch, s.patch)})
        self.blocks = nn.ModuleList(Block(c, s.heads) for _ in range(s.depth))
        self.norm = nn.LayerNorm(c, eps=1e-6)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        x = F.interpolate(frames, self.sizes.resized, mode="bilinear")
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.positions().to(x.dtype)
        tapped = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.sizes.taps:
                tapped.append(x[:, 1:])
        tapped = torch.cat(tapped, -1)
        return self.norm(x)[:, 1:], F.layer_norm(tapped, tapped.shape[-1:], eps=1e-6)

    def positions(self) -> Tensor:
        """Of the class token and of the patches, resampled in float32."""
        side, (h, w) = self.sizes.grid, self.sizes.resized
        rows, columns = h // self.sizes.patch, w // self.sizes.patch
        grid = self.pos_embed[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = (rows + OFFSET) / side, (columns + OFFSET) / side
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        assert grid.shape[2:] == (rows, columns)
        grid = grid.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], grid], 1)


class Block(nn.Module):
    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c, eps=1e-6), nn.LayerNorm(c, eps=1e-6)
        self.attn, self.mlp = Attention(c, heads), MLP(c)
        self.ls1, self.ls2 = LayerScale(c), LayerScale(c)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(c, 3 * c), nn.Linear(c, c)

    def forward(self, x: Tensor) -> Tensor:
        f, n, c = x.shape
        q, k, v = self.qkv(x).view(f, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(f, n, c))


class MLP(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
