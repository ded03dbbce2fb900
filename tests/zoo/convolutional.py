"""Convolutional networks by hand: each shows one way in which channels hang together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entries import BATCH, torch_graph

AXES = {"x": {"batch": BATCH}}
Made = tuple[nn.Module, Tensor]


def image(size: int = 16, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Classified(nn.Module):
    """Features, a mean over places, and a linear classifier."""

    def __init__(self, features: nn.Module, width: int) -> None:
        super().__init__()
        self.features, self.head = features, nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x).mean((2, 3)))
        return scores


@torch_graph(axes=AXES)
def grouped() -> Made:
    """Groups of different sizes in a row, and one that is not a multiple of the one before."""
    layers = nn.Sequential(
        conv(3, 24), conv(24, 36, groups=4), conv(36, 48, groups=2), conv(48, 40, 1), conv(40, 20, groups=5)
    )
    return Classified(layers, 20), image()


@torch_graph(axes=AXES)
def depthwise() -> Made:
    """Depthwise convolutions, one of which makes two channels of each."""
    layers = nn.Sequential(
        conv(3, 20), conv(20, 20, groups=20), conv(20, 28, 1), conv(28, 56, groups=28), conv(56, 36, 1)
    )
    return Classified(layers, 36), image()


class ShuffleUnit(nn.Module):
    def __init__(self, width: int, hidden: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.reduce = conv(width, hidden, 1, groups=groups)
        self.depth = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.widen = nn.Conv2d(hidden, width, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        hidden = shuffled(self.reduce(x), self.groups)
        return F.relu(x + self.widen(self.depth(hidden)))


def shuffled(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    return x.reshape(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


@torch_graph(axes=AXES)
def shuffle_v1() -> Made:
    """Grouped convolutions with shuffled channels between them, three groups."""
    return Classified(nn.Sequential(conv(3, 24), ShuffleUnit(24, 18, 3), ShuffleUnit(24, 12, 3)), 24), image()


class SplitUnit(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(conv(half, 20, 1), conv(20, 20, groups=20), conv(20, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        return shuffled(torch.cat([kept, self.branch(changed)], 1), 2)


@torch_graph(axes=AXES)
def shuffle_v2() -> Made:
    """Half of the channels go past each unit, then all are shuffled."""
    return Classified(nn.Sequential(conv(3, 24), SplitUnit(24), SplitUnit(24), conv(24, 36, 1)), 36), image()


@torch_graph(axes={"input": {"batch": BATCH}})
def pixel_shuffle() -> Made:
    layers = nn.Sequential(conv(3, 20), conv(20, 48), nn.PixelShuffle(2), conv(12, 16), nn.Conv2d(16, 12, 3, 1, 1))
    return nn.Sequential(layers, nn.PixelShuffle(2)), image(8)


@torch_graph(axes=AXES)
def pixel_unshuffle() -> Made:
    layers = nn.Sequential(conv(3, 10), nn.PixelUnshuffle(2), conv(40, 24), conv(24, 9))
    return Classified(layers, 9), image()


class Dense(nn.Module):
    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width + i * growth), nn.ReLU(), nn.Conv2d(width + i * growth, growth, 3, 1, 1))
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


@torch_graph(axes=AXES)
def densenet() -> Made:
    """Batch norms over what many layers gave, each with another scale."""
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), Dense(16, 12, 3), conv(52, 28, 1), nn.AvgPool2d(2), Dense(28, 8, 2)
    )
    return Classified(layers, 44), image()


class Inception(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.three = conv(width, 12, 1), nn.Sequential(conv(width, 10, 1), conv(10, 20))
        self.five = nn.Sequential(conv(width, 6, 1), conv(6, 14, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(width, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


@torch_graph(axes=AXES)
def inception() -> Made:
    return Classified(nn.Sequential(conv(3, 16), Inception(16), Inception(54)), 54), image()


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(3, 12), conv(12, 20), conv(20, 28)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(28, 24, 2, 2), nn.ConvTranspose2d(16, 16, 3, 2, 1, 1, groups=4)])
        self.merge = nn.ModuleList([conv(44, 16), conv(28, 10)])
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        out: Tensor = self.head(x)
        return out


@torch_graph(axes=AXES)
def unet() -> Made:
    """Transposed convolutions (one grouped), and skips that are concatenated."""
    return UNet(), image()


class Detector(nn.Module):
    """Two levels, upsampled and added; boxes and classes of three anchors as one list."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList([conv(3, 16, stride=2), conv(16, 28, stride=2)])
        self.lateral = nn.ModuleList([nn.Conv2d(16, 20, 1), nn.Conv2d(28, 20, 1)])
        self.tower = conv(20, 24)
        self.boxes, self.classes = nn.Conv2d(24, 12, 3, 1, 1), nn.Conv2d(24, 15, 3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.levels[0](x)
        small = self.lateral[1](self.levels[1](first))
        large = self.lateral[0](first) + F.interpolate(small, scale_factor=2.0, mode="nearest")
        towers = [self.tower(large), self.tower(small)]
        boxes = torch.cat([self.listed(self.boxes(t), 4) for t in towers], 1)
        classes = torch.cat([self.listed(self.classes(t), 5) for t in towers], 1)
        return boxes, classes.sigmoid()

    def listed(self, x: Tensor, numbers: int) -> Tensor:
        batch, _, height, width = x.shape
        x = x.reshape(batch, 3, numbers, height, width).permute(0, 3, 4, 1, 2)
        return x.reshape(batch, height * width * 3, numbers)


@torch_graph(axes=AXES)
def detector() -> Made:
    """One tower for both levels, several outputs."""
    return Detector(), image()


class CrossStage(nn.Module):
    """A split, a chain, and a concatenation of all that was on the way."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.first, self.last = conv(width, 32, 1), conv(64, outputs, 1)
        self.chain = nn.ModuleList([nn.Sequential(conv(16, 12), conv(12, 16)) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).split(16, 1))
        for layer in self.chain:
            parts.append(parts[-1] + layer(parts[-1]))
        out: Tensor = self.last(torch.cat(parts, 1))
        return out


@torch_graph(axes=AXES)
def cross_stage() -> Made:
    return Classified(nn.Sequential(conv(3, 20), CrossStage(20, 28)), 28), image()


class Excite(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.reduce, self.widen = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.widen(F.relu(self.reduce(x.mean((2, 3))))).sigmoid()
        return x * gate[:, :, None, None]


@torch_graph(axes=AXES)
def squeeze_excite() -> Made:
    return Classified(nn.Sequential(conv(3, 20), Excite(20, 8), conv(20, 36), Excite(36, 12)), 36), image()


class SplitGate(nn.Module):
    """Two linear maps of one convolution: one half gates the other."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Conv2d(width, 2 * hidden, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.glu(self.widen(x), 1))


@torch_graph(axes=AXES)
def gated() -> Made:
    return Classified(nn.Sequential(conv(3, 20), SplitGate(20, 14), SplitGate(20, 18)), 20), image()


class Maxout(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.outputs = nn.Conv2d(inputs, 3 * outputs, 3, 1, 1), outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y.reshape(y.shape[0], self.outputs, 3, y.shape[2], y.shape[3]).amax(2)


@torch_graph(axes=AXES)
def maxout() -> Made:
    """The largest of three channels that lie side by side."""
    return Classified(nn.Sequential(conv(3, 20), Maxout(20, 14), Maxout(14, 10)), 10), image()


@torch_graph(axes={"input": {"batch": BATCH}})
def prelu() -> Made:
    layers = nn.Sequential(
        nn.Conv2d(3, 20, 3, 1, 1), nn.PReLU(20), nn.Conv2d(20, 28, 3, 1, 1), nn.PReLU(28), nn.Conv2d(28, 5, 3)
    )
    return layers, image(8)


@torch_graph(axes={"input": {"batch": BATCH}})
def instance_norm() -> Made:
    def block(inputs: int, outputs: int) -> nn.Sequential:
        layer = nn.Conv2d(inputs, outputs, 3, 1, 1, padding_mode="reflect")
        return nn.Sequential(layer, nn.InstanceNorm2d(outputs, affine=True), nn.ReLU())

    return nn.Sequential(block(3, 20), block(20, 28), block(28, 12), nn.Conv2d(12, 3, 3, 1, 1)), image()


@torch_graph(axes={"input": {"batch": BATCH}})
def group_norm() -> Made:
    """Statistics over some channels each: four groups, one, and as many as channels."""

    def block(inputs: int, outputs: int, groups: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1), nn.GroupNorm(groups, outputs), nn.SiLU())

    return nn.Sequential(block(3, 20, 4), block(20, 28, 1), block(28, 12, 12), nn.Conv2d(12, 3, 3, 1, 1)), image()


class Sliced(nn.Module):
    """Every second channel, some in another order, and the last ones from behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = conv(3, 24), conv(12, 20), conv(20, 16)
        self.register_buffer("order", torch.tensor([3, 0, 17, 5, 5, 12, 9, 1, 19, 2]))
        self.head = nn.Conv2d(26, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x)[:, ::2])
        y = torch.cat([x.index_select(1, self.order), self.third(x.flip(1))], 1)
        out: Tensor = self.head(y)
        return out


@torch_graph(axes=AXES)
def sliced() -> Made:
    return Sliced(), image()


class PaddedShortcut(nn.Module):
    """The shortcut of a residual network without parameters: every second place, zeros as further channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, stride=2), nn.Conv2d(outputs, outputs, 3, 1, 1))
        self.more = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more)))


@torch_graph(axes=AXES)
def padded_shortcut() -> Made:
    return Classified(nn.Sequential(conv(3, 12), PaddedShortcut(12, 20), PaddedShortcut(20, 32)), 32), image()


@torch_graph(axes={"input": {"batch": BATCH}})
def flattened() -> Made:
    """A map of channels and places as one vector."""
    layers = nn.Sequential(conv(3, 12), nn.MaxPool2d(2), conv(12, 10), nn.Flatten(), nn.Linear(640, 30), nn.ReLU())
    return nn.Sequential(layers, nn.Linear(30, 7)), image()


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        given = self.weight * gain
        apart = given - given.mean((1, 2, 3), keepdim=True)
        weight = apart / (apart.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, weight * self.scale * 0.1, self.bias, padding=1)


class WeightStandard(nn.Module):
    """Weights that are standardized where they are used; the input `gain` keeps them from being folded."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Standardized(3, 16, 3), Standardized(16, 24, 3)])
        for layer in self.layers:
            layer.scale = nn.Parameter(torch.ones(layer.out_channels, 1, 1, 1))
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x, gain))
        out: Tensor = self.head(x)
        return out


@torch_graph(axes=AXES)
def weight_standard() -> tuple[nn.Module, dict[str, Tensor]]:
    return WeightStandard(), {"x": image(), "gain": torch.ones(1)}


class ChannelConvolution(nn.Module):
    """A convolution along the channels gates them: neighbours matter, so they must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.along, self.last = conv(3, 20), nn.Conv1d(1, 1, 3, 1, 1), conv(20, 24)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        gate = self.along(x.mean((2, 3))[:, None]).sigmoid()
        out: Tensor = self.head(self.last(x * gate[:, 0, :, None, None]))
        return out


@torch_graph(axes=AXES)
def channel_convolution() -> Made:
    return ChannelConvolution(), image()


class PlaceAttention(nn.Module):
    """Mean and maximum over channels gate the places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = conv(3, 20), nn.Conv2d(2, 1, 3, 1, 1), nn.Conv2d(20, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        told = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        out: Tensor = self.last(x * self.gate(told).sigmoid())
        return out


@torch_graph(axes=AXES)
def place_attention() -> Made:
    return PlaceAttention(), image()


class Repeated(nn.Module):
    """Channels repeated side by side and as a whole, and multiplied by each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 12), conv(3, 24)
        self.last = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        narrow, wide = self.first(x), self.second(x)
        out: Tensor = self.last(narrow.repeat_interleave(2, 1) * wide + narrow.repeat(1, 2, 1, 1))
        return out


@torch_graph(axes=AXES)
def repeated() -> Made:
    return Repeated(), image(8)


@torch_graph(axes={"input": {"batch": BATCH}})
def along_time() -> Made:
    """One-dimensional, dilated."""
    layers = nn.Sequential(
        nn.Conv1d(5, 20, 3, padding=1),
        nn.ELU(),
        nn.Conv1d(20, 28, 3, padding=2, dilation=2),
        nn.BatchNorm1d(28),
        nn.Tanh(),
    )
    return nn.Sequential(layers, nn.Conv1d(28, 4, 1)), torch.randn(2, 5, 24)


@torch_graph(axes={"input": {"batch": BATCH}})
def volumes() -> Made:
    layers = nn.Sequential(nn.Conv3d(2, 12, 3, 1, 1), nn.ReLU(), nn.ConvTranspose3d(12, 10, 2, 2), nn.ReLU())
    return nn.Sequential(layers, nn.Conv3d(10, 3, 1)), torch.randn(2, 2, 4, 6, 6)


class Ghost(nn.Module):
    """Cheap channels made of the others, beside them, and a shortcut around both."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs // 2, 1)
        self.cheap = conv(outputs // 2, outputs // 2, groups=outputs // 2)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        return torch.cat([first, self.cheap(first)], 1) + self.shortcut(x)


@torch_graph(axes=AXES)
def ghost() -> Made:
    return Classified(nn.Sequential(conv(3, 12), Ghost(12, 24), Ghost(24, 28)), 28), image()


class SelectiveKernel(nn.Module):
    """Two branches weighed by a softmax over the branches, channel by channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv(width, width), conv(width, width, 5)])
        self.reduce, self.choose = nn.Linear(width, 10), nn.Linear(10, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([branch(x) for branch in self.branches], 1)
        told = F.relu(self.reduce(maps.sum(1).mean((2, 3))))
        share = self.choose(told).reshape(-1, 2, x.shape[1]).softmax(1)
        return (maps * share[..., None, None]).sum(1)


@torch_graph(axes=AXES)
def selective_kernel() -> Made:
    return Classified(nn.Sequential(conv(3, 20), SelectiveKernel(20), conv(20, 28)), 28), image()
