"""Attention heads of a network, and attention maps moved toward the identity head by head.

Works on every self-attention that calls `F.scaled_dot_product_attention`, here and in diffusers.
Shapes: b batch, h heads, n tokens, e head width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.hooks._common import _ATTENTION_CLASSES
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from polydit.core.errors import InputError
from polydit.core.sampling.cache.blocks import find_blocks
from polydit.core.sampling.cache.hooks import Forward, Handler


class Head(NamedTuple):
    """One head of the self-attention of one block, both counted from 0."""

    block: int
    head: int


def heads_of(network: nn.Module, blocks: Collection[int] | None = None) -> tuple[Head, ...]:
    """All heads of a network, or of some blocks, in their order.

    Args:
        network: Ours or one of diffusers.
        blocks: Numbers of blocks, FLUX's two lists counted as one; None = all.

    Raises:
        InputError: There is no such block.
    """
    every = blocks_of(network)
    if unknown := sorted(set(blocks or ()) - set(range(len(every)))):
        raise _no_block(unknown[0], every)
    return tuple(
        Head(index, head)
        for index, block in enumerate(every)
        if blocks is None or index in blocks
        for head in range(max((int(attn.heads) for attn in self_attentions(block)), default=0))
    )


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """All blocks in their order.

    Raises:
        InputError: It is not clear which they are.
    """
    try:
        return find_blocks(network)
    except InputError as error:
        raise InputError(
            f"the blocks of {type(network).__name__} cannot be told",
            where="guidance",
            expected=error.expected or "one list of different blocks",
        ) from error


def self_attentions(block: nn.Module) -> list[Any]:
    """The self-attention modules within a block: what diffusers' guiders perturb."""
    return [
        module
        for module in block.modules()
        # FLUX's class, for one, lacks the attribute: there diffusers' own hooks fail
        if isinstance(module, _ATTENTION_CLASSES) and not getattr(module, "is_cross_attention", False)
    ]


def identity_handlers(network: nn.Module, heads: Iterable[Head], strength: float) -> dict[nn.Module, Handler]:
    """What to do in the attention modules of the heads.

    Args:
        network: Ours or one of diffusers.
        heads: Those that are perturbed. A block with two self-attentions has them in both.
        strength: u of `TowardIdentity`.

    Raises:
        InputError: A block or a head is not there.
    """
    blocks, of_block = blocks_of(network), defaultdict[int, set[int]](set)
    for index, head in heads:
        of_block[index].add(head)
    handlers: dict[nn.Module, Handler] = {}
    for index, chosen in of_block.items():
        if not 0 <= index < len(blocks):
            raise _no_block(index, blocks)
        if not (modules := self_attentions(blocks[index])):
            raise InputError(f"block {index} has no self-attention", where="guidance")
        for module in modules:
            _check_heads(index, chosen, int(module.heads))
            handlers[module] = TowardIdentity(strength, tuple(sorted(chosen)))
    return handlers


@dataclass(slots=True, eq=False)
class TowardIdentity:
    """Computes an attention module with the maps A of some heads replaced by (1 - u) A + u I.

    As (1 - u) A v + u v = lerp(A v, v, u), the map itself is never needed. u = 1 is perturbed-attention guidance (Ahn
    et al. 2024), u between is SoftPAG (Ahn et al. 2025); the ends are exact.

    Args:
        strength: u, 0..1.
        heads: Those whose maps are moved; None = all.
    """

    strength: float
    heads: tuple[int, ...] | None = None
    _weights: Tensor | None = field(default=None, init=False)

    def __call__(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with _Attention(self) as attention:
            output = forward(*args, **kwargs)
        if not attention.reached:
            kind = type(getattr(forward, "__self__", None)).__name__
            raise InputError(
                f"{kind} computes no attention that could be perturbed",
                where="guidance",
                expected="as many keys as queries, and torch's scaled_dot_product_attention",
                hint="Set diffusers' attention backend to native",
            )
        return output

    def mix(
        self, mixed: Float[Tensor, "b h n e"], value: Float[Tensor, "b h n e"]
    ) -> Float[Tensor, "b h n e"]:
        """What the heads give, from what they give unperturbed."""
        if self.heads is None:
            return torch.lerp(mixed, value, self.strength)
        if (
            self._weights is None
            or self._weights.device != mixed.device
            or self._weights.dtype != mixed.dtype
        ):
            weights = torch.zeros(mixed.shape[1], 1, 1)
            weights[list(self.heads)] = self.strength
            self._weights = weights.to(mixed)
        return torch.lerp(mixed, value, self._weights)


class _Attention(TorchFunctionMode):
    """Within it, in this thread, torch's attention is perturbed."""

    def __init__(self, perturbation: TowardIdentity) -> None:
        super().__init__()
        self.perturbation = perturbation
        self.reached = False

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, _, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
        if query.shape[-2] != value.shape[-2]:
            return func(*args, **kwargs)
        self.reached = True
        if value.shape[-3] != query.shape[-3]:  # grouped queries
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], dim=-3)
        if self.perturbation.heads is None and self.perturbation.strength == 1.0:
            return value
        return self.perturbation.mix(func(*args, **kwargs), value)


def _no_block(index: int, blocks: Sequence[nn.Module]) -> InputError:
    return InputError(f"there is no block {index}", where="guidance", expected=f"0 to {len(blocks) - 1}")


def _check_heads(block: int, chosen: set[int], heads: int) -> None:
    if wrong := [head for head in sorted(chosen) if not 0 <= head < heads]:
        raise InputError(
            f"block {block} has no head {wrong[0]}", where="guidance", expected=f"0 to {heads - 1}"
        )
