"""ResNet-50 whose last stage keeps stride 1, and the basic block."""

from torch import Tensor, nn

from dinogrl_in_torch.parts import Unused, horizontal_pyramid
from dinogrl_in_torch.sizes import Sizes


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class Stem(nn.Module):
    """A quarter of the rows and columns. The published one has no ReLU before the pooling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, 1)
        self.resnet_conv = nn.Sequential(convolution(3, width, 7, 2), nn.BatchNorm2d(width), pool)

    def forward(self, x: Tensor) -> Tensor:
        return self.resnet_conv(x)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        wide = 4 * width
        self.conv1, self.bn1 = convolution(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = convolution(width, wide, 1), nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != wide:
            shortcut = convolution(inputs, wide, 1, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class BasicBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(c, c, 3), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = convolution(c, c, 3), nn.BatchNorm2d(c)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


def stages(s: Sizes, inputs: int) -> nn.Sequential:
    """layer1 … layerN: strides 1, 2, 2, … and 1 in the last."""
    made = []
    for stage, blocks in enumerate(s.stages):
        width, strided = s.width * 2**stage, 0 < stage < len(s.stages) - 1
        layer = []
        for block in range(blocks):
            layer.append(Bottleneck(inputs, width, 2 if strided and block == 0 else 1))
            inputs = 4 * width
        made.append(nn.Sequential(*layer))
    return nn.Sequential(*made)


class Backbone(nn.Module):
    """A ResNet's stages, the maximum over a tracklet's frames, and the pyramid [v, c, p]."""

    def __init__(self, s: Sizes, inputs: int) -> None:
        super().__init__()
        self.sizes = s
        self.resnet_conv, self.GAP = stages(s, inputs), Unused()

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnet_conv(x).unflatten(0, (-1, self.sizes.frames)).amax(1)
        return horizontal_pyramid(x, self.sizes.parts)
