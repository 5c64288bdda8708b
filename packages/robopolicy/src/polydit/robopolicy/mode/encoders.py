"""Pictures to observation tokens, one token per camera.

Shapes: m pictures, k cameras, c channels, g goal width, y and x height and width, s width of an observation token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# CLIP's scaling of pictures in [0, 1], as published
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_GRID = 4  # cells per side that the small encoder keeps: where things are matters to a robot


class Encoder(nn.Module):
    """Pictures to tokens.

    Args:
        out_dim: Width of the token s.
        goal_dim: Width of the instruction's embedding g.
    """

    width = 256  # of the token, if nothing else is asked for

    def __init__(self, out_dim: int, goal_dim: int) -> None:
        super().__init__()

    def forward(self, pictures: Float[Tensor, "m 3 y x"], goal: Float[Tensor, "m g"]) -> Float[Tensor, "m s"]:
        """`pictures` in [0, 1]."""
        raise NotImplementedError


class SmallEncoder(Encoder):
    """Four convolutions of stride 2, then a linear layer over a 4 x 4 grid. The goal is not looked at."""

    def __init__(self, out_dim: int, goal_dim: int) -> None:
        super().__init__(out_dim, goal_dim)
        sizes = (3, 16, 32, 64, 128)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], 3, stride=2, padding=1) for i in range(4)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, size) for size in sizes[1:])
        self.out = nn.Linear(sizes[-1] * _GRID**2, out_dim)

    def forward(self, pictures: Float[Tensor, "m 3 y x"], goal: Float[Tensor, "m g"]) -> Float[Tensor, "m s"]:
        features = 2.0 * pictures - 1.0
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = F.silu(norm(convolution(features)))
        return self.out(F.adaptive_avg_pool2d(features, _GRID).flatten(1))


class Bottleneck(nn.Module):
    """A residual block: 1 x 1, 3 x 3 and 1 x 1 convolutions (He et al. 2016, figure 5), the stride in the second.

    Args:
        channels: Input channels.
        width: Channels of the 3 x 3 convolution; the output has four times as many.
        stride: Of the 3 x 3 convolution.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            project = nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(project, nn.BatchNorm2d(4 * width))

    def forward(self, x: Float[Tensor, "m c y x"]) -> Float[Tensor, "m d z w"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """ResNet-50 without its classifier; entries of the state dict are named as torchvision and timm name them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)

    def stem(self, pictures: Float[Tensor, "m 3 y x"]) -> Float[Tensor, "m 64 z w"]:
        """What comes before the residual blocks: a quarter of the height and width."""
        return F.max_pool2d(F.relu(self.bn1(self.conv1(pictures))), 3, stride=2, padding=1)


def _stage(channels: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(4 * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(channels, width, stride), *rest)


class FiLM(nn.Module):
    """(1 + γ(goal)) · x + β(goal) per channel (Perez et al. 2018), the identity at first."""

    def __init__(self, channels: int, goal_dim: int) -> None:
        super().__init__()
        self.gamma = nn.Linear(goal_dim, channels)
        self.beta = nn.Linear(goal_dim, channels)
        for layer in (self.gamma, self.beta):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "m c y x"], goal: Float[Tensor, "m g"]) -> Float[Tensor, "m c y x"]:
        scale, shift = 1.0 + self.gamma(goal), self.beta(goal)
        return torch.addcmul(shift[..., None, None], scale[..., None, None], x)


class FiLMResNet50(Encoder):
    """ResNet-50 with a FiLM layer after each stage: MoDE's published encoder, of pictures of 224 px.

    Raises:
        ValueError: If `out_dim` is not 2048.
    """

    width = 2048
    mean: Tensor
    std: Tensor

    def __init__(self, out_dim: int, goal_dim: int) -> None:
        super().__init__(out_dim, goal_dim)
        if out_dim != self.width:
            raise ValueError(f"film_resnet50 makes tokens of width {self.width}, not {out_dim}")
        self.resnet = ResNet50()
        self.film1, self.film2, self.film3, self.film4 = (
            FiLM(channels, goal_dim) for channels in (256, 512, 1024, 2048)
        )
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, pictures: Float[Tensor, "m 3 y x"], goal: Float[Tensor, "m g"]) -> Float[Tensor, "m s"]:
        net = self.resnet
        features = net.stem((pictures - self.mean) / self.std)
        features = self.film1(net.layer1(features), goal)
        features = self.film2(net.layer2(features), goal)
        features = self.film3(net.layer3(features), goal)
        features = self.film4(net.layer4(features), goal)
        return features.mean((2, 3))


ENCODERS: dict[str, type[Encoder]] = {"small": SmallEncoder, "film_resnet50": FiLMResNet50}
