"""Local attention on an image grid: each token sees a disk around it, and the global tokens beside the grid.

Shapes: b batch, h heads, c both together, n tokens, g global tokens, d head width, t tiles, q and k the queries and
keys of a tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polydit.core.nn.patterns import Pattern

_TILES = range(4, 33)
"""Tile sides that are weighed against one another."""

_DENSE = 400
"""Tokens up to which all are computed against all, under a mask.

Measured at radius 3 and 4 (torch 2.13, one CPU thread, 6 heads of 32): on 16 x 16 tiles take 1.3 to 1.6 times as long
forward and 1.5 to 2.6 times forward and backward; on 24 x 24 they take 0.8 to 0.95 and 1.4 times.
"""

_KEY_COST = 64
"""What a key costs a tile, in query-key products: it is copied and packed once, however many queries there are.

Fitted to the times of tiles of 8 and 16 (torch 2.13, one CPU thread, 4 heads of 32, radius 6); at radius 6 and 8 on
64 x 64 and 96 x 96 the fastest of ten sizes lay between 8 and 12, and the chosen ones do too.
"""


class _Axis(NamedTuple):
    """How one axis of the grid is cut.

    Args:
        size: Tokens.
        tiles: How many; together they cover `size` or a little more.
        tile: Queries of a tile.
        halo: Keys that a tile reads on each side beyond its queries.
    """

    size: int
    tiles: int
    tile: int
    halo: int

    @classmethod
    def of(cls, size: int, tile: int, reach: int) -> _Axis:
        """Cut into tiles of about `tile` queries, which see `reach` tokens to each side."""
        if size <= tile + 2 * reach:
            return cls(size, 1, size, 0)  # a tile with its halo would read as much: one tile reads it once
        count = math.ceil(size / tile)
        return cls(size, count, math.ceil(size / count), reach)

    @property
    def keys(self) -> int:
        """Keys of a tile."""
        return self.tile + 2 * self.halo

    @property
    def surplus(self) -> int:
        """Slots behind the end of the axis that the last tile covers."""
        return self.tiles * self.tile - self.size

    def queries(self) -> Int[Tensor, "t q"]:
        """Places of each tile's queries; the last ones may lie behind the end."""
        return torch.arange(self.tiles)[:, None] * self.tile + torch.arange(self.tile)

    def seen(self) -> Int[Tensor, "t k"]:
        """Places of each tile's keys; the first and the last ones may lie outside."""
        return torch.arange(self.tiles)[:, None] * self.tile + torch.arange(-self.halo, self.tile + self.halo)

    def nearest(self, places: Int[Tensor, "t m"]) -> Int[Tensor, "t m"]:
        """The places of the axis next to them."""
        return places.clamp(0, self.size - 1)

    def distances(self) -> Int[Tensor, "q k"]:
        """Squares of them, between the queries and the keys of a tile."""
        return (torch.arange(self.tile)[:, None] - torch.arange(-self.halo, self.tile + self.halo)) ** 2

    def inside(self) -> Bool[Tensor, "t k"]:
        """Which keys of each tile lie on the grid."""
        return (self.seen() >= 0) & (self.seen() < self.size)


def _cut(grid: tuple[int, int], reach: int, global_tokens: int) -> tuple[_Axis, _Axis]:
    """The tiles that cost least.

    Large tiles compute many products that the disk throws away, small ones read each key many times. The optimum grows
    slowly: with the cube root of the reach, if there are no global tokens.
    """

    def cost(axes: tuple[_Axis, _Axis]) -> int:
        rows, columns = axes
        queries, keys = rows.tile * columns.tile, rows.keys * columns.keys + global_tokens
        return rows.tiles * columns.tiles * (queries + _KEY_COST) * keys

    height, width = grid
    return min(((_Axis.of(height, tile, reach), _Axis.of(width, tile, reach)) for tile in _TILES), key=cost)


@dataclass(frozen=True)
class Disk(Pattern):
    """Tokens of a 2D grid attend to the tokens nearer than `radius`; global tokens see all and are seen by all.

    Local attention of CLEAR (Liu et al. 2024, arXiv 2412.16112): (y, x) sees (v, u) iff (y - v)² + (x - u)² < radius².
    The grid is computed in tiles, each beside the keys within its reach. So time and memory grow with the number of
    tokens, not with its square, and the result is that of dense attention with `mask`, to rounding.

    Measured (torch 2.13, one CPU thread, forward, 4 heads of 32, 16 global tokens):

    | grid, radius | time: dense / disk, float32 (bfloat16) | time: masked dense / disk | disk's memory in float32 |
    |---|---|---|---|
    | 64 x 64, 6 | 3.7 (2.8) | 6.4 (5.1) | 45 MB |
    | 64 x 64, 8 | 2.2 (1.4) | 3.9 (2.5) | 58 MB |
    | 96 x 96, 6 | 8.6 (3.8) | 15.0 (6.7) | 85 MB |
    | 96 x 96, 8 | 5.2 (3.7) | 8.9 (6.4) | 104 MB |

    Dense attention without a mask holds no scores: it takes 5 to 8 MB.

    Args:
        grid: Tokens per axis (height, width), row-major order.
        radius: 1 or more; at 1, a token sees itself and the global tokens.
        leading: Global tokens before the grid, as text in FLUX.
        trailing: Global tokens behind the grid, as text in SD3.

    Raises:
        ValueError: If a size is out of its range.
    """

    grid: tuple[int, int]
    radius: int
    leading: int = 0
    trailing: int = 0
    _axes: tuple[_Axis, _Axis] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.grid) < 1 or self.radius < 1 or min(self.leading, self.trailing) < 0:
            raise ValueError(f"grid and radius start at 1, global tokens at 0; got {self}")
        # the furthest whole step that is still nearer than the radius
        reach = self.radius - 1
        object.__setattr__(self, "_axes", _cut(self.grid, reach, self.leading + self.trailing))

    def mask(self) -> Bool[Tensor, "1 1 n n"]:
        """True where attention is allowed: the definition, on the CPU. Of a large grid `attend` never builds it."""
        y, x = torch.cartesian_prod(*map(torch.arange, self.grid)).unbind(1)
        near = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2 < self.radius**2
        return F.pad(near, (self.leading, self.trailing) * 2, value=True)[None, None]

    def attend(
        self, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        """Softmax attention of each token over its disk and the global tokens.

        Raises:
            ValueError: If the tokens are not those of the grid and the global ones.
        """
        tokens = self.leading + math.prod(self.grid) + self.trailing
        if q.shape[-2] != tokens or k.shape[-2] != tokens:
            raise ValueError(f"{self} is for {tokens} tokens; got {q.shape[-2]} queries, {k.shape[-2]} keys")
        if tokens <= _DENSE:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self._small_mask.to(q.device))
        tiles = self._tiles.to(q.device)
        mixed = F.scaled_dot_product_attention(
            _gather(q, tiles.queries),
            _gather(k, tiles.keys),
            _gather(v, tiles.keys),
            attn_mask=tiles.allowed.repeat(q.shape[0], 1, 1, 1),
        )
        image = _put_back(mixed, tiles.order, batch=q.shape[0])
        if not self.leading and not self.trailing:
            return image
        ends = F.scaled_dot_product_attention(self._global(q), k, v)
        return torch.cat((ends[:, :, : self.leading], image, ends[:, :, self.leading :]), dim=2)

    @cached_property
    def _small_mask(self) -> Bool[Tensor, "1 1 n n"]:
        return self.mask()

    def _global(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h g d"]:
        return torch.cat((x[:, :, : self.leading], x[:, :, x.shape[2] - self.trailing :]), dim=2)

    @cached_property
    def _tiles(self) -> _Tiles:
        (rows, columns), (height, width) = self._axes, self.grid
        asked = _cells(rows.nearest(rows.queries()), columns.nearest(columns.queries()), width)
        seen = _cells(rows.nearest(rows.seen()), columns.nearest(columns.seen()), width)
        ends = torch.arange(self.leading + self.trailing)
        ends += (ends >= self.leading) * height * width
        keys = torch.cat((seen + self.leading, ends.expand(len(seen), -1)), dim=1)
        real = (rows.queries() < rows.size)[:, None, :, None] & (columns.queries() < columns.size)[
            None, :, None
        ]
        slots = real.flatten().nonzero()[:, 0]
        order = torch.empty(height * width, dtype=torch.long)
        order[asked.flatten()[slots]] = slots
        return _Tiles(asked + self.leading, keys, self._tile_mask(), order)

    def _tile_mask(self) -> Bool[Tensor, "t 1 q k"]:
        """True where a query of a tile sees a key of that tile."""
        rows, columns = self._axes
        distance = rows.distances()[:, None, :, None] + columns.distances()[None, :, None, :]
        distance = distance.flatten(2, 3).flatten(0, 1)
        inside = rows.inside()[:, None, :, None] & columns.inside()[None, :, None, :]
        # a query beyond the grid sees at least itself: a softmax over nothing is NaN
        allowed = (distance < self.radius**2) & inside.flatten(2, 3).flatten(0, 1)[:, None] | (distance == 0)
        return F.pad(allowed, (0, self.leading + self.trailing), value=True)[:, None]


class _Tiles(NamedTuple):
    """Which tokens the tiles of a grid are made of.

    Args:
        queries: Of each tile.
        keys: Of each tile, the global tokens last.
        allowed: Which query sees which key.
        order: Where each cell of the grid is among the queries of all tiles.
    """

    queries: Int[Tensor, "t q"]
    keys: Int[Tensor, "t k"]
    allowed: Bool[Tensor, "t 1 q k"]
    order: Int[Tensor, " m"]

    def to(self, device: torch.device) -> _Tiles:
        """On another device."""
        return _Tiles(*(part.to(device) for part in self))


def _cells(rows: Int[Tensor, "r m"], columns: Int[Tensor, "s n"], width: int) -> Int[Tensor, "t mn"]:
    """Numbers of the cells of each tile, in row-major order of the grid."""
    cells = rows[:, None, :, None] * width + columns[None, :, None, :]
    return cells.flatten(2, 3).flatten(0, 1)


def _gather(x: Float[Tensor, "b h n d"], tokens: Int[Tensor, "t m"]) -> Float[Tensor, "bt h m d"]:
    """The tokens of each tile, all heads of a token in one copy."""
    b, h, _, d = x.shape
    rows = x.transpose(1, 2).flatten(2).index_select(1, tokens.flatten())
    return rows.reshape(b * len(tokens), -1, h, d).transpose(1, 2)


def _put_back(x: Float[Tensor, "bt h q d"], order: Int[Tensor, " m"], batch: int) -> Float[Tensor, "b h m d"]:
    """From the queries of tiles to the cells of the grid."""
    _, h, _, d = x.shape
    rows = x.transpose(1, 2).reshape(batch, -1, h * d).index_select(1, order)
    return rows.unflatten(2, (h, d)).transpose(1, 2)
