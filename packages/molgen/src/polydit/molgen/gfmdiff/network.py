"""The dual-track transformer of GFMDiff: atoms and pairs of atoms exchange attention, then atoms move.

The node track attends among atoms with keys and values biased by pairs; the pair track attends over triplets (i, j, k)
with the angle at i between j and k; each layer ends with an equivariant move of the atoms (Xu et al. 2024, "Dual-Track
Transformer Network").
What the published code computes differs from the paper in places; a checkpoint needs what the code computes, and the
comments say where. Memory grows with the cube of the number of atoms.

Shapes: b molecules, n atom slots, d width, h heads, e head width, c angle channels, f features of an atom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.checkpoints.keys import KeyMap, count_blocks
from polydit.core.checkpoints.weights import load_strict
from polydit.core.nn.feed_forward import FeedForward

__all__ = ["DualTrackTransformer", "gfmdiff_from_published"]

_SHARPNESS = 10.0  # of the radial functions
_REACH = 20.0  # Å; largest move along one pair in one layer
_MASKED = -1e6
_EPSILON = 1e-5


class Geometry(NamedTuple):
    """What the network sees of positions; all of it is invariant except the directions."""

    squared_distances: Float[
        Tensor, "b n n 1"
    ]  # Å²; the published code feeds squares to its radial functions
    directions: Float[Tensor, "b n n 3"]  # (x_i - x_j) / (|x_i - x_j| + 1)
    angles: Float[Tensor, "b n n n 1"]  # radians at i between j and k; 0 where (i, j) is no pair


def geometry(positions: Float[Tensor, "b n 3"], pairs: Float[Tensor, "b n n 1"]) -> Geometry:
    """Distances, directions and the angles of all triplets. `pairs` is 1 for two different atoms, else 0."""
    offsets = positions[:, :, None] - positions[:, None]
    squared = offsets.square().sum(-1, keepdim=True)
    # A zero distance has no gradient of its root, and the diagonal is one.
    lengths = torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)
    units = offsets / (lengths + _EPSILON)
    cosines = torch.einsum("bijx,bikx->bijk", units, units)
    angles = torch.acos(cosines.clamp(-1 + 1e-7, 1 - 1e-7)) * pairs
    return Geometry(squared, offsets / (lengths + 1.0), angles[..., None])


class RadialEmbedding(nn.Module):
    """exp(-10 (u - c)²) for centres c on a grid, then a linear map.

    Args:
        centres: 50 for squared distances (0, 0.2, ... Å²), 32 for angles (0, 0.1, ... radians).
        spacing: Between centres.
        width: Output width.
    """

    centres: Tensor

    def __init__(self, centres: int, spacing: float, width: int) -> None:
        super().__init__()
        self.register_buffer("centres", spacing * torch.arange(centres), persistent=False)
        self.linear = nn.Linear(centres, width)

    def forward(self, u: Float[Tensor, "... 1"]) -> Float[Tensor, "... d"]:
        return self.linear(torch.exp(-_SHARPNESS * (u - self.centres).square()))


class NodeAttention(nn.Module):
    """Attention among atoms; key and value of (i, j) hold the pair's features, and the value holds both atoms."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.pair_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.k_pair, self.v_pair = nn.Linear(width, width), nn.Linear(width, width)
        self.mix = nn.Linear(width // heads, width // heads)  # of the values, the same for all heads

    def forward(
        self,
        nodes: Float[Tensor, "b n d"],
        pairs: Float[Tensor, "b n n d"],
        pair_mask: Float[Tensor, "b n n 1"],
    ) -> Float[Tensor, "b n d"]:
        nodes, pairs = self.norm(nodes), self.pair_norm(pairs)
        q, k, v = (self._split(project(nodes)) for project in (self.q, self.k, self.v))
        k_pair, v_pair = self._split(self.k_pair(pairs)), self._split(self.v_pair(pairs))
        q = q / q.shape[-1] ** 0.5
        logits = torch.einsum("bihe,bijhe->bijh", q, k[:, None] + k_pair) + _MASKED * (1 - pair_mask)
        values = self.mix(v[:, :, None] + v[:, None] + v_pair)
        return torch.einsum("bijh,bijhe->bihe", logits.softmax(2), values).flatten(-2)

    def _split(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... h e"]:
        return x.unflatten(-1, (self.heads, -1))


class NodeToPair(nn.Module):
    """What two atoms say about their pair.

    Args:
        width: d.
        merge: "outer" takes the outer product of both (QM9), "concat" puts them side by side (GEOM-Drugs).
    """

    def __init__(self, width: int, merge: str) -> None:
        super().__init__()
        self.merge = merge
        self.norm = nn.LayerNorm(width)
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width * width if merge == "outer" else 2 * width, width)

    def forward(
        self, nodes: Float[Tensor, "b n d"], pair_mask: Float[Tensor, "b n n 1"]
    ) -> Float[Tensor, "b n n d"]:
        nodes = self.norm(nodes)
        left, right = nodes * self.left(nodes), nodes * self.right(nodes)
        if self.merge == "outer":
            return self.out(torch.einsum("bid,bje->bijde", left, right).flatten(-2))
        return self.out(side_by_side(left, right, pair_mask))


class PairAttention(nn.Module):
    """Attention of a pair (i, j) over the pairs (i, k) that share its first atom, with the angle between them; gated.

    The published code masks padding with a bias of 1e-9, which is no mask; that is kept. The angles' keys and values
    are linear, so they are applied to the query and to the attended angles, not to each of the n³ triplets.
    """

    def __init__(self, width: int, angle_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.k_angle, self.v_angle = nn.Linear(angle_width, width), nn.Linear(angle_width, width)
        self.out, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, pairs: Float[Tensor, "b n n d"], angles: Float[Tensor, "b n n n c"]
    ) -> Float[Tensor, "b n n d"]:
        pairs = self.norm(pairs)
        q, k, v = (project(pairs).unflatten(-1, (self.heads, -1)) for project in (self.q, self.k, self.v))
        q = q / q.shape[-1] ** 0.5
        k_angle = self.k_angle.weight.unflatten(0, (self.heads, -1))
        logits = torch.einsum("bijhe,bikhe->bijkh", q, k)
        logits = logits + torch.einsum(
            "bijhc,bijkc->bijkh", torch.einsum("bijhe,hec->bijhc", q, k_angle), angles
        )
        weights = logits.softmax(3)  # the bias of k_angle is the same for all k and falls out
        attended = torch.einsum("bijkh,bijkc->bijhc", weights, angles)
        v_angle = self.v_angle.weight.unflatten(0, (self.heads, -1))
        mixed = torch.einsum("bijkh,bikhe->bijhe", weights, v) + torch.einsum(
            "bijhc,hec->bijhe", attended, v_angle
        )
        return self.out(mixed.flatten(-2) + self.v_angle.bias) * self.gate(pairs).sigmoid()


class Move(nn.Module):
    """x_i += Σ_j direction_ij · 20 tanh(mlp(node_i, node_j, pair_ij)) (Satorras et al. 2021, equation 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pair = nn.Linear(width, 3)
        self.mlp = nn.Sequential(
            nn.Linear(2 * width + 3, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 1, bias=False),
        )

    def forward(
        self,
        nodes: Float[Tensor, "b n d"],
        pairs: Float[Tensor, "b n n d"],
        directions: Float[Tensor, "b n n 3"],
        pair_mask: Float[Tensor, "b n n 1"],
    ) -> Float[Tensor, "b n 3"]:
        n = nodes.shape[1]
        own, other = nodes[:, :, None].expand(-1, -1, n, -1), nodes[:, None].expand(-1, n, -1, -1)
        step = _REACH * self.mlp(torch.cat([own, other, self.pair(pairs)], dim=-1)).tanh()
        return (pair_mask * directions * step).sum(2)


class DualTrackLayer(nn.Module):
    """Node attention, nodes to pairs, pair attention, move."""

    def __init__(self, width: int, hidden: int, heads: int, merge: str) -> None:
        super().__init__()
        self.node_attention = NodeAttention(width, heads)
        self.node_feed_forward = FeedForward(width, hidden, "gelu")
        self.node_to_pair = NodeToPair(width, merge)
        self.pair_norm = nn.LayerNorm(width)
        self.pair_attention = PairAttention(width, width // 2, heads)
        self.pair_feed_forward = FeedForward(width, hidden, "gelu")
        self.move = Move(width)

    def forward(
        self,
        nodes: Float[Tensor, "b n d"],
        pairs: Float[Tensor, "b n n d"],
        angles: Float[Tensor, "b n n n c"],
        directions: Float[Tensor, "b n n 3"],
        node_mask: Float[Tensor, "b n 1"],
        pair_mask: Float[Tensor, "b n n 1"],
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n n d"], Float[Tensor, "b n 3"]]:
        """New nodes, new pairs and how far each atom moves, in Å."""
        nodes = nodes + self.node_attention(nodes, pairs, pair_mask) * node_mask
        nodes = (nodes + self.node_feed_forward(nodes)) * node_mask
        pairs = self.pair_norm(pairs + self.node_to_pair(nodes, pair_mask))
        pairs = pairs + self.pair_attention(pairs, angles)
        pairs = (pairs + self.pair_feed_forward(pairs)) * pair_mask
        return nodes, pairs, self.move(nodes, pairs, directions, pair_mask)


class DualTrackTransformer(ModelMixin, ConfigMixin):
    """Predicts the noise on positions, types, atomic number and degree of every atom.

    Args:
        width: d of atoms and pairs; angles have half of it.
        hidden: Hidden width of the feed-forwards.
        depth: Layers.
        heads: Attention heads.
        num_types: Elements in the one-hot part of the state. QM9: 5 (H, C, N, O, F).
        merge: "outer" (QM9) or "concat" (GEOM-Drugs), see `NodeToPair`.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 256,
        hidden: int = 512,
        depth: int = 5,
        heads: int = 8,
        num_types: int = 5,
        merge: str = "outer",
    ) -> None:
        super().__init__()
        features = num_types + 2  # and the atomic number and the degree
        self.distance_embed = RadialEmbedding(50, 0.2, width)
        self.angle_embed = RadialEmbedding(32, 0.1, width // 2)
        self.node_embed = nn.Linear(features + 1, width)  # and the time
        self.pair_fuse = nn.Linear(3 * width, width)
        self.distance_fuse = nn.Linear(2 * width, width)
        self.angle_fuse = nn.Linear(2 * (width // 2), width // 2)
        self.layers = nn.ModuleList(DualTrackLayer(width, hidden, heads, merge) for _ in range(depth))
        self.node_out = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.ReLU(),
            nn.Linear(width, features + 1, bias=False),
        )  # fmt: skip

    def forward(
        self, state: Float[Tensor, "b n f"], timestep: Float[Tensor, " b"], mask: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n f"]:
        """Predict the noise.

        Args:
            state: [position in Å, mean-free | types | atomic number | degree], the last three divided by 4, 10 and 10.
            timestep: Noise level in [0, 1]; 0 = data.
            mask: 1 for atoms, 0 for padding.

        Returns:
            The noise in the shape of `state`, zero in padding, mean-free in the first three channels.
        """
        node_mask = mask[..., None]
        pair_mask = (mask[:, :, None] * mask[:, None] * (1 - torch.eye(mask.shape[1], device=mask.device)))[
            ..., None
        ]
        start, features = (state * node_mask).split([3, state.shape[-1] - 3], dim=-1)
        times = timestep[:, None, None].expand(-1, mask.shape[1], 1)
        positions, seen = start, geometry(start, pair_mask)
        nodes = F.relu(self.node_embed(torch.cat([features, times], dim=-1) * node_mask)) * node_mask
        pairs = self._with_nodes(self.distance_embed(seen.squared_distances * pair_mask), nodes, pair_mask)
        angles = F.relu(self.angle_embed(seen.angles))
        for layer in self.layers:
            nodes, pairs, step = layer(
                nodes, pairs * pair_mask, angles, seen.directions, node_mask, pair_mask
            )
            positions = positions + step
            seen = geometry(positions, pair_mask)
            angles = F.relu(self.angle_fuse(torch.cat([self.angle_embed(seen.angles), angles], dim=-1)))
            distances = self.distance_embed(seen.squared_distances)
            pairs = F.relu(self.distance_fuse(torch.cat([distances, pairs], dim=-1)))
            pairs = self._with_nodes(pairs, nodes, pair_mask)
        moved = (positions - start) * node_mask
        moved = (moved - moved.sum(1, keepdim=True) / node_mask.sum(1, keepdim=True)) * node_mask
        return torch.cat(
            [moved, self.node_out(nodes)[..., :-1] * node_mask], dim=-1
        )  # the time's channel goes

    def _with_nodes(
        self,
        pairs: Float[Tensor, "b n n d"],
        nodes: Float[Tensor, "b n d"],
        pair_mask: Float[Tensor, "b n n 1"],
    ) -> Float[Tensor, "b n n d"]:
        return self.pair_fuse(torch.cat([side_by_side(nodes, nodes, pair_mask), pairs], dim=-1))


def side_by_side(
    first: Float[Tensor, "b n d"], second: Float[Tensor, "b n d"], pair_mask: Float[Tensor, "b n n 1"]
) -> Float[Tensor, "b n n d2"]:
    """[first_j | second_i] for every pair (i, j), zero where there is none: the published order."""
    n = first.shape[1]
    both = torch.cat([first[:, None].expand(-1, n, -1, -1), second[:, :, None].expand(-1, -1, n, -1)], dim=-1)
    return both * pair_mask


_LAYER = {
    "node_attn.node_ln.{p}": "node_attention.norm.{p}",
    "node_attn.pair_ln.{p}": "node_attention.pair_norm.{p}",
    **{f"node_attn.{x}_proj.{{p}}": f"node_attention.{x}.{{p}}" for x in "qkv"},
    **{f"node_attn.{x}_e_proj.{{p}}": f"node_attention.{x}_pair.{{p}}" for x in "kv"},
    "node_attn.v_add.{p}": "node_attention.mix.{p}",
    "node_ffn.lin{m}.{p}": "node_feed_forward.fc{m}.{p}",
    "low2high.ln.{p}": "node_to_pair.norm.{p}",
    "low2high.linear1.{p}": "node_to_pair.left.{p}",
    "low2high.linear2.{p}": "node_to_pair.right.{p}",
    "low2high.lin_cat.{p}": "node_to_pair.out.{p}",
    "pair_ln.{p}": "pair_norm.{p}",
    "pair_attn.ln.{p}": "pair_attention.norm.{p}",
    "pair_attn.q_proj.{p}": "pair_attention.q.{p}",
    "pair_attn.k_e_proj.{p}": "pair_attention.k.{p}",
    "pair_attn.v_proj.{p}": "pair_attention.v.{p}",
    "pair_attn.k_a_proj.{p}": "pair_attention.k_angle.{p}",
    "pair_attn.v_a_proj.{p}": "pair_attention.v_angle.{p}",
    "pair_attn.out_proj.{p}": "pair_attention.out.{p}",
    "pair_attn.out_gate.{p}": "pair_attention.gate.{p}",
    "pair_ffn.lin{m}.{p}": "pair_feed_forward.fc{m}.{p}",
    "pos_update.coord_mlp.{m}.{p}": "move.mlp.{m}.{p}",
    "pos_update.dist_decoder.{p}": "move.pair.{p}",
}
_PUBLISHED = KeyMap(
    {
        **{f"convs.{{n}}.{theirs}": f"layers.{{n}}.{ours}" for theirs, ours in _LAYER.items()},
        "edge_emb.linear.{p}": "distance_embed.linear.{p}",
        "angle_emb.linear.{p}": "angle_embed.linear.{p}",
        "xh_embedding.{p}": "node_embed.{p}",
        "node_pair_fuse.{p}": "pair_fuse.{p}",
        "edge_emb_fuse.{p}": "distance_fuse.{p}",
        "trip_emb_fuse.{p}": "angle_fuse.{p}",
        "xh_embedding_out.{n}.{p}": "node_out.{n}.{p}",
    }
)


def gfmdiff_from_published(
    state: Mapping[str, Tensor], *, heads: int, source: str = "the checkpoint"
) -> DualTrackTransformer:
    """Builds the network from the published module's state dict; all sizes but the heads are read from the shapes.

    Args:
        state: Published names and shapes of ``EquiGNN``.
        heads: Attention heads.
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: An entry is missing, unknown or of a shape that does not fit.
    """
    converted = _PUBLISHED.to_ours(state, source=source)
    width, inputs = state["xh_embedding.weight"].shape
    model = DualTrackTransformer(
        width=width,
        hidden=state["convs.0.node_ffn.lin1.weight"].shape[0],
        depth=count_blocks(converted, "layers."),
        heads=heads,
        num_types=inputs - 3,
        merge="concat" if state["convs.0.low2high.lin_cat.weight"].shape[1] == 2 * width else "outer",
    )
    load_strict(model, converted, source=source)
    return model.eval()
