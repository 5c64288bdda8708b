"""pix2pix (Isola et al. 2017, arXiv 1611.07004): a U-Net that makes the stain, and a critic of patches that judges it.

Both see which stain is wanted as constant planes, one per stain. Two differences from the publication: batch norm uses
its running statistics once trained (published: those of the image itself), so that what is made of a tile depends
neither on its neighbours in the batch nor on how much glass it holds; and nothing is dropped out, since the noise of
the published decoder changes little of the result (its section 3.1) and would differ between tiles that overlap.

Shapes: b tiles, h x w pixels, c channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE = 0.2  # of the leaky rectifiers
_INIT_STD = 0.02


class Level(nn.Module):
    """One halving of the U-Net with everything inside it: what it gives is joined to what it took.

    Args:
        outer: Channels outside.
        inner: Channels at half the resolution.
        inside: The next level; None = this one is the innermost, whose codes are not normalised.
    """

    def __init__(self, outer: int, inner: int, inside: Level | None) -> None:
        super().__init__()
        self.down = nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=inside is None)
        self.down_norm = nn.Identity() if inside is None else nn.BatchNorm2d(inner)
        self.inside = nn.Identity() if inside is None else inside
        self.up = nn.ConvTranspose2d(
            inner if inside is None else 2 * inner, outer, 4, stride=2, padding=1, bias=False
        )
        self.up_norm = nn.BatchNorm2d(outer)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 2*c h w"]:
        inner = self.inside(self.down_norm(self.down(F.leaky_relu(x, _SLOPE))))
        return torch.cat([x, self.up_norm(self.up(F.relu(inner)))], dim=1)


class UNetGenerator(ModelMixin, ConfigMixin):
    """The generator: H&E in, stain out, in one pass.

    Args:
        width: Channels after the first halving; they double with each further one, up to 8 times. Published: 64.
        depth: Halvings. Published: as many as lead from a training crop to one pixel.
        num_stains: Stains that it makes.

    Raises:
        ValueError: Fewer than two halvings.
    """

    @register_to_config
    def __init__(self, width: int = 38, depth: int = 5, num_stains: int = 2) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"depth is {depth}, expected at least 2")
        *outside, (outer, inner) = pairwise(width * min(2**level, 8) for level in range(depth))
        inside = Level(outer, inner, None)
        for outer, inner in reversed(outside):
            inside = Level(outer, inner, inside)
        self.first = nn.Conv2d(3 + num_stains, width, 4, stride=2, padding=1)
        self.inside = inside
        self.last = nn.ConvTranspose2d(2 * width, 3, 4, stride=2, padding=1)
        self.apply(_initialise)

    @property
    def multiple(self) -> int:
        """Pixels that the sides of a tile are a multiple of."""
        return int(2**self.config.depth)

    def forward(self, he: Float[Tensor, "b 3 h w"], stain: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """The stain in [-1, 1], in float32.

        Args:
            he: In [-1, 1]; sides are multiples of `multiple`.
            stain: 0..num_stains - 1.
        """
        x = with_stain(he.to(self.dtype), stain, self.config.num_stains)
        return self.last(F.relu(self.inside(self.first(x)))).float().tanh()


class PatchCritic(nn.Module):
    """The PatchGAN discriminator: one score for each overlapping patch of 70 x 70 pixels.

    Args:
        width: Channels after the first convolution. Published: 64.
        num_stains: Stains that it judges.
    """

    def __init__(self, width: int, num_stains: int) -> None:
        super().__init__()
        self.num_stains = num_stains
        self.layers = nn.Sequential(
            nn.Conv2d(6 + num_stains, width, 4, stride=2, padding=1),
            nn.LeakyReLU(_SLOPE),
            *_scored(width, 2 * width, stride=2),
            *_scored(2 * width, 4 * width, stride=2),
            *_scored(4 * width, 8 * width, stride=1),
            nn.Conv2d(8 * width, 1, 4, padding=1),
        )
        self.apply(_initialise)

    def forward(
        self, he: Float[Tensor, "b 3 h w"], ihc: Float[Tensor, "b 3 h w"], stain: Int[Tensor, " b"]
    ) -> Float[Tensor, "b 1 r s"]:
        """Logits that each patch of `ihc` is real and belongs to `he`, in float32."""
        return self.layers(with_stain(torch.cat([he, ihc], dim=1), stain, self.num_stains)).float()


def _scored(channels: int, out_channels: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, out_channels, 4, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(out_channels), nn.LeakyReLU(_SLOPE)


def with_stain(
    image: Float[Tensor, "b c h w"], stain: Int[Tensor, " b"], num_stains: int
) -> Float[Tensor, "b d h w"]:
    """The image with one constant plane per stain: 1 for the one that is wanted, 0 for the others."""
    planes = F.one_hot(stain.long(), num_stains).to(image)[:, :, None, None]
    return torch.cat([image, planes.expand(-1, -1, *image.shape[2:])], dim=1)


def _initialise(module: nn.Module) -> None:
    """As published (appendix 6.2): every weight from a normal distribution."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=_INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=_INIT_STD)
