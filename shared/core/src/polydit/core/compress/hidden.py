"""Fewer hidden units in trained feed-forwards, with the least change of what they compute on given inputs.

The optimal brain surgeon's rule (Hassibi & Stork 1993) for a layer's output: removing unit j and letting the others
make up for it costs |w_j|² / [(HᵀH)⁻¹]_jj, and what the others become is a least-squares fit. The costs are taken once,
before any unit goes, so of two units that are alike both may go. Shapes: n tokens, h hidden units, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from diffusers import ModelMixin
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from polydit.core.jobs.seeds import item_generator
from polydit.core.nn.feed_forward import FeedForward
from polydit.core.nn.linear import linear

N = TypeVar("N", bound=ModelMixin)

_RIDGE = 1e-5  # of the mean diagonal: units that are always alike leave the fit without a unique answer


@torch.no_grad()
def prune_hidden(layers: Sequence[FeedForward], keep: int, show: Callable[[], object]) -> None:
    """Leave `keep` hidden units in each layer, in place.

    Args:
        layers: In the order in which they run: each is fitted to what it meets once those before it are pruned.
        keep: Hidden units that stay.
        show: Runs the network on the inputs that matter; called once for each layer.

    Raises:
        ValueError: A layer has fewer hidden units, or `show` did not run it.
    """
    for layer in layers:
        if not 0 < keep <= layer.fc1.out_features:
            raise ValueError(f"{keep} of {layer.fc1.out_features} hidden units cannot be kept")
        _prune(layer, keep, _moments(layer, show))


def pruned(
    network: N,
    hidden: int,
    items: Sequence[Any],
    collate: Callable[[list[Any]], Any],
    loss: Callable[[N, Any, torch.Generator], object],
    *,
    batches: int,
    batch_size: int,
) -> N:
    """A network of `hidden` units in each feed-forward, fitted to random batches of training items with their noise.

    Args:
        network: Trained; it is changed on the way. Its config has `width` and `mlp_ratio`.
        hidden: Units that stay.
        items: Training items.
        collate: A list of items to a batch.
        loss: Runs the network on a batch, with the noise of training.
        batches: That the units are fitted to, the same for each layer.
        batch_size: Items of each.

    Raises:
        ValueError: A feed-forward has fewer hidden units, or is not run.
    """

    def show() -> None:
        for number in range(batches):
            generator = item_generator(0, f"slim/{number}")
            chosen = torch.randint(len(items), (batch_size,), generator=generator).tolist()
            loss(network, collate([items[index] for index in chosen]), generator)

    prune_hidden([layer for layer in network.modules() if isinstance(layer, FeedForward)], hidden, show)
    return with_hidden(network, hidden)


def with_hidden(network: N, hidden: int) -> N:
    """A network of `hidden` units in each feed-forward with the weights of one that was pruned to them.

    Args:
        network: After `prune_hidden` of all its feed-forwards; its config has `width` and `mlp_ratio`.
        hidden: Units that each has.
    """
    settings = {**network.config, "mlp_ratio": hidden / network.config.width}
    smaller: N = type(network)(**{key: value for key, value in settings.items() if not key.startswith("_")})
    smaller.load_state_dict(network.state_dict())
    smaller.eval()
    return smaller


def _moments(layer: FeedForward, show: Callable[[], object]) -> Float64[Tensor, "h1 h1"]:
    """HᵀH of all tokens that the layer meets, with a last column of ones for the bias."""
    hidden = layer.fc1.out_features
    total = torch.zeros(hidden + 1, hidden + 1, dtype=torch.float64)

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        units = linear(inputs[0].detach(), layer.fc1, layer.activation).flatten(0, -2).double().cpu()
        rows = torch.cat([units, torch.ones(len(units), 1, dtype=torch.float64)], dim=1)
        total.addmm_(rows.T, rows)

    handle = layer.register_forward_pre_hook(add)
    try:
        show()
    finally:
        handle.remove()
    if not bool(total.any()):
        raise ValueError("the layer was not run")
    return total


def _prune(layer: FeedForward, keep: int, moments: Float64[Tensor, "h1 h1"]) -> None:
    damped = moments + _RIDGE * moments.diagonal().mean() * torch.eye(len(moments), dtype=torch.float64)
    old = torch.cat([layer.fc2.weight.T, layer.fc2.bias[None]]).double().cpu()
    kept = _cheapest_to_keep(damped, old, keep)
    both = torch.cat([kept, torch.tensor([len(moments) - 1])])  # the bias stays
    new = torch.linalg.solve(damped[both][:, both], moments[both] @ old)
    layer.fc1 = _linear(layer.fc1.weight[kept], layer.fc1.bias[kept])
    layer.fc2 = _linear(new[:-1].T.to(layer.fc2.weight), new[-1].to(layer.fc2.weight))


def _cheapest_to_keep(
    damped: Float64[Tensor, "h1 h1"], weights: Float64[Tensor, "h1 d"], keep: int
) -> Int[Tensor, " kept"]:
    """The units that would cost most to remove, in their order."""
    cost = weights[:-1].square().sum(1) / torch.linalg.inv(damped).diagonal()[:-1]
    kept: Tensor = cost.topk(keep).indices.sort().values
    return kept


def _linear(weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"]) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer
