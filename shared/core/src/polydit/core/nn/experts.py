"""Mixture of experts: a router chooses a few of many feed-forwards for each row of tokens.

What is routed is a row: a token (DiT-MoE, HiDream), or all tokens of an item, when a condition such as the noise level
chooses (MoDE, Switch-DiT). So routers see rows, and experts see rows of n tokens, with n = 1 for tokens.

Shapes: r rows, n tokens of a row, d width, e experts, k experts chosen, f and h an expert's first and hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from polydit.core.nn.linear import ACTIVATIONS

_FLOOR = 1e-9  # no score is zero: a draw without replacement needs as many candidates as it takes


@dataclass(frozen=True, eq=False)
class Routing:
    """Which experts each row uses.

    Args:
        weights: How much of each chosen expert.
        indices: The chosen experts, all different.
        scores: Probability of every expert; differentiable.
    """

    weights: Float[Tensor, "r k"]
    indices: Int[Tensor, "r k"]
    scores: Float[Tensor, "r e"]

    def spread(self) -> Float[Tensor, "r e"]:
        """The weights by expert, 0 for those not chosen."""
        return torch.zeros_like(self.scores).scatter(1, self.indices, self.weights)


def choose(
    scores: Float[Tensor, "r e"],
    top_k: int,
    *,
    normalize: bool = False,
    generator: torch.Generator | None = None,
) -> Routing:
    """Choose `top_k` experts for each row.

    Args:
        scores: Probabilities of the experts.
        top_k: Number of experts k.
        normalize: Whether the weights of the chosen ones are scaled to the sum 1 (MoDE), or are their scores (DiT-MoE,
            Switch-DiT).
        generator: None takes the best. A CPU generator draws k by their scores, without replacement (MoDE's training).

    Returns:
        The best first, or in the order of the draw.
    """
    rank = scores
    if generator is not None:
        # the first of exponential clocks with these rates: a multinomial draw, the next one a draw from the rest
        clocks = torch.empty(scores.shape).exponential_(generator=generator)
        rank = scores.detach() / clocks.to(scores.device)
    indices = rank.topk(top_k, dim=-1).indices
    weights = scores.gather(-1, indices)
    if normalize:
        weights = weights / weights.sum(-1, keepdim=True)
    return Routing(weights, indices, scores)


def balance_loss(probabilities: Float[Tensor, "r e"], indices: Int[Tensor, "r k"]) -> Float[Tensor, ""]:
    """e · Σ_e f_e · P_e: the loss that spreads rows over experts (Fedus et al. 2022, equation 4).

    f_e is the share of all r · k choices that went to expert e, P_e the mean of its probability; 1 when both are even.
    DiT-MoE gives the scores, MoDE `Routing.spread` and the k-fold of this.
    """
    experts = probabilities.shape[-1]
    share = F.one_hot(indices.flatten(), experts).to(probabilities).mean(0)
    return experts * (share * probabilities.mean(0)).sum()


class Router(nn.Module):
    """softmax(net(x)), and the choice by it.

    Args:
        net: From rows to one logit per expert. DiT-MoE: a linear layer without bias. Switch-DiT: SiLU, linear layer.
            MoDE: two layers with a GELU between.
        top_k: Experts to choose k.
        normalize: As in `choose`.
    """

    def __init__(self, net: nn.Module, top_k: int, *, normalize: bool = False) -> None:
        super().__init__()
        self.net = net
        self.top_k = top_k
        self.normalize = normalize

    def forward(self, x: Float[Tensor, "r d"], generator: torch.Generator | None = None) -> Routing:
        """Choose for each row; with a generator the choice is drawn."""
        scores = self.net(x).float().softmax(-1).clamp(_FLOOR, 1.0 - _FLOOR)
        return choose(scores, self.top_k, normalize=self.normalize, generator=generator)


class Experts(nn.Module):
    """Feed-forwards of one shape with stacked weights: w_out · act(w_in · x + b_in).

    How it is computed depends on where, the result does not. By default each expert runs on its rows, in a loop over
    the experts: on a CPU that is up to 30 % faster than `grouped_mm`, which has no place for the bias, and up to 4
    times faster than all experts on all rows (torch 2.13, 2 of 4 and of 8 experts, measured). `grouped_mm`, which need
    not wait for the counts, takes over for bfloat16 on accelerators and in `torch.compile`; `torch.compile` cannot
    trace it in other precisions (torch 2.13), so there all experts see all rows.

    Args:
        width: Token width d.
        hidden: Hidden width h of each expert; ignored by the form "linear".
        num_experts: Number of experts e.
        form: "swiglu"; "linear", a single map from d to d (Switch-DiT); or a key of `ACTIVATIONS`.
        bias: Whether there is `b_in`. MoDE, Switch-DiT: True. DiT-MoE: False.

    With "swiglu" the columns of `w_in` are (gate | up), as in `SwiGLU`.
    """

    def __init__(
        self, width: int, hidden: int, num_experts: int, *, form: str = "swiglu", bias: bool = False
    ) -> None:
        super().__init__()
        if form not in ("swiglu", "linear", *ACTIVATIONS):
            raise ValueError(
                f"unknown form {form!r}, expected swiglu, linear or one of {', '.join(ACTIVATIONS)}"
            )
        self.num_experts, self.form = num_experts, form
        first = {"swiglu": 2 * hidden, "linear": width}.get(form, hidden)
        self.w_in = nn.Parameter(torch.empty(num_experts, width, first))
        self.b_in = nn.Parameter(torch.empty(num_experts, first)) if bias else None
        self.w_out = nn.Parameter(torch.empty(num_experts, hidden, width)) if form != "linear" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each expert as `nn.Linear` starts it: uniform within ±1/√(inputs); biases 0."""
        for weight in (self.w_in, self.w_out):
            if weight is not None:
                nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)
        if self.b_in is not None:
            nn.init.zeros_(self.b_in)

    def forward(self, x: Float[Tensor, "r n d"], routing: Routing) -> Float[Tensor, "r n d"]:
        """Σ_k weight_k · expert_k(x) for each row."""
        if self._groups(x):
            return self._by_expert(x, routing, self._grouped)
        return (
            self._all(x, routing)
            if torch.compiler.is_compiling()
            else self._by_expert(x, routing, self._loop)
        )

    def fuse(self, indices: Sequence[int], rows: int) -> FusedExperts:
        """The experts `indices` as one feed-forward, for tokens that all use the same ones.

        Args:
            indices: The experts.
            rows: Tokens that it will usually see, for the layout of its weights.

        Raises:
            ValueError: If these experts are linear maps: there is no hidden layer to join.
        """
        if self.w_out is None:
            raise ValueError("linear experts have no hidden layer to fuse")
        gates = 2 if self.form == "swiglu" else 1
        chosen = list(indices)
        w_in = self.w_in[chosen].unflatten(2, (gates, -1)).permute(2, 0, 3, 1).flatten(0, 2)
        b_in = None
        if self.b_in is not None:
            b_in = self.b_in[chosen].unflatten(1, (gates, -1)).transpose(0, 1).flatten()
        w_out = self.w_out[chosen].flatten(0, 1).t()
        return FusedExperts(
            _FixedLinear(w_in, b_in, rows), _FixedLinear(w_out, None, rows), self._activate, len(chosen)
        )

    def _activate(self, hidden: Float[Tensor, "... f"]) -> Float[Tensor, "... h"]:
        if self.form == "swiglu":
            gate, up = hidden.chunk(2, dim=-1)
            return F.silu(gate) * up
        return ACTIVATIONS[self.form](hidden)

    def _groups(self, x: Tensor) -> bool:
        """Whether `grouped_mm` does it: its strides are multiples of 16 bytes."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        aligned = dtype == torch.bfloat16 and not any(size % 8 for size in self.w_in.shape[1:])
        return aligned and (kind != "cpu" or torch.compiler.is_compiling())

    def _by_expert(
        self,
        x: Float[Tensor, "r n d"],
        routing: Routing,
        run: Callable[[Tensor, Int[Tensor, " e"], Int[Tensor, " m"]], Tensor],
    ) -> Float[Tensor, "r n d"]:
        """Each row once per chosen expert, sorted by expert; `run` computes them, and each row gets its own back."""
        rows, chosen = routing.indices.shape
        flat = routing.indices.flatten()
        order = flat.argsort(stable=True)
        counts = torch.zeros(self.num_experts, dtype=torch.int64, device=x.device)
        counts = counts.scatter_add(0, flat, torch.ones_like(flat))
        out = run(x[order // chosen], counts, flat[order])
        out = out[order.argsort()].unflatten(0, (rows, chosen))
        return torch.einsum("rknd,rk->rnd", out, routing.weights.to(out.dtype))

    def _all(self, x: Float[Tensor, "r n d"], routing: Routing) -> Float[Tensor, "r n d"]:
        """All experts on all rows."""
        hidden = torch.einsum("rnd,edf->ernf", x, self.w_in)
        if self.b_in is not None:
            hidden = hidden + self.b_in[:, None, None]
        if self.w_out is not None:
            hidden = torch.einsum("ernh,ehd->ernd", self._activate(hidden), self.w_out)
        return torch.einsum("ernd,re->rnd", hidden, routing.spread().to(hidden.dtype))

    def _loop(
        self, x: Float[Tensor, "m n d"], counts: Int[Tensor, " e"], experts: Int[Tensor, " m"]
    ) -> Float[Tensor, "m n d"]:
        """One expert after the other, each on its segment of the sorted rows."""
        segments = x.split(counts.tolist())
        # unbind: the gradient of each w[e] alone would be as large as all experts
        w_in = self.w_in.unbind()
        b_in = [None] * len(w_in) if self.b_in is None else self.b_in.unbind()
        w_out = [None] * len(w_in) if self.w_out is None else self.w_out.unbind()
        parts = [
            self._one(segment.flatten(0, 1), first, bias, second)
            for segment, first, bias, second in zip(segments, w_in, b_in, w_out, strict=True)
            if len(segment)
        ]
        return torch.cat(parts).view_as(x)

    def _one(
        self,
        x: Float[Tensor, "m d"],
        w_in: Float[Tensor, "d f"],
        b_in: Float[Tensor, " f"] | None,
        w_out: Float[Tensor, "h d"] | None,
    ) -> Float[Tensor, "m d"]:
        hidden = x @ w_in if b_in is None else torch.addmm(b_in, x, w_in)
        return hidden if w_out is None else self._activate(hidden) @ w_out

    def _grouped(
        self, x: Float[Tensor, "m n d"], counts: Int[Tensor, " e"], experts: Int[Tensor, " m"]
    ) -> Float[Tensor, "m n d"]:
        """All experts in one grouped product per layer; in bfloat16, which autocast does not see to."""
        ends = (counts.cumsum(0) * x.shape[1]).int()
        rows = x.flatten(0, 1).bfloat16()
        hidden = F.grouped_mm(rows, self.w_in.bfloat16(), offs=ends)
        if self.b_in is not None:
            hidden = (hidden.unflatten(0, x.shape[:2]) + self.b_in[experts][:, None].to(hidden)).flatten(0, 1)
        if self.w_out is not None:
            hidden = F.grouped_mm(self._activate(hidden), self.w_out.bfloat16(), offs=ends)
        return hidden.unflatten(0, x.shape[:2])


class FusedExperts:
    """Some experts as one feed-forward whose weights do not change any more. Made by `Experts.fuse`; without gradients.

    On a CPU the weights are kept in the layout of its matrix kernel. For the few tokens of a chunk of actions that,
    more than the fusing, is what saves time: 40 % of a feed-forward of 13 tokens, widths 128 to 384 (measured).
    """

    def __init__(
        self,
        first: _FixedLinear,
        second: _FixedLinear,
        activate: Callable[[Tensor], Tensor],
        count: int,
    ) -> None:
        self.first, self.second, self.activate, self.count = first, second, activate, count

    @property
    def nbytes(self) -> int:
        """Memory of the weights."""
        return self.first.nbytes + self.second.nbytes

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "... d"], weights: Float[Tensor, " k"]) -> Float[Tensor, "... d"]:
        """Σ_k weight_k · expert_k(x), the experts in the order of `fuse`."""
        hidden = self.activate(self.first(x)).unflatten(-1, (self.count, -1))
        return self.second((hidden * weights[:, None].to(hidden.dtype)).flatten(-2))


class _FixedLinear:
    """A linear layer of given weights; on a CPU with oneDNN they are laid out for its kernel."""

    def __init__(self, weight: Float[Tensor, "o i"], bias: Tensor | None, rows: int) -> None:
        weight = weight.detach().contiguous()
        self.bias = None if bias is None else bias.detach()
        self.nbytes, self.dtype = weight.nbytes, weight.dtype
        self.packed = (
            weight.device.type == "cpu"
            and weight.dtype in (torch.float32, torch.bfloat16)
            and torch.backends.mkldnn.is_available()
        )
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows) if self.packed else weight

    def __call__(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        x = x.to(self.dtype)  # autocast does not see to these
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return F.linear(x, self.weight, self.bias)


class Routed(NamedTuple):
    """What a `RoutedFeedForward` says: the tokens, and the routing for the balance loss."""

    tokens: Float[Tensor, "b n d"]
    routing: Routing


class RoutedFeedForward(nn.Module):
    """Router, experts, and a shared feed-forward that every token uses besides.

    Args:
        router: Chooses by the token, or by the condition that `forward` is given.
        experts: What it chooses from.
        shared: Always added with the weight 1, or None.
    """

    def __init__(self, router: Router, experts: Experts, shared: nn.Module | None = None) -> None:
        super().__init__()
        self.router, self.experts, self.shared = router, experts, shared

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        condition: Float[Tensor, "b c"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Routed:
        """Mix the channels of each token.

        Args:
            x: Tokens.
            condition: What chooses the experts of all tokens of an item; None = each token its own.
            generator: Draws the choice; None = the best.
        """
        rows = x if condition is not None else x.flatten(0, 1)[:, None]
        routing = self.router(rows[:, 0] if condition is None else condition, generator)
        out = self.experts(rows, routing).reshape(x.shape)
        return Routed(out if self.shared is None else out + self.shared(x), routing)
