"""A linear layer and its activation as one kernel, where that pays: on a CPU, without gradients.

Shapes: ... any leading axes, i and o input and output width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.nn.packed import packed_copy

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # exact, by the error function
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}
_ONEDNN = torch.backends.mkldnn.is_available()  # asked here, since torch.compile cannot ask
_FUSED = {None: ("none", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "silu": ("swish", "")}


def linear(
    x: Float[Tensor, "... i"], layer: nn.Module, activation: str | None = None
) -> Float[Tensor, "... o"]:
    """activation(layer(x)).

    On a CPU without gradients, bias and activation run inside oneDNN's matrix product: the kernel that `torch.compile`
    emits too. By itself, torch's tanh-GELU takes two to eight times as long as the product. In float32 a product
    without activation gains nothing by it, and at 16 rows takes 1.3 times as long (torch 2.13, measured), unless its
    weight is packed (`pack_linears`).

    Args:
        x: Input.
        layer: A linear layer, or whatever an adapter or a quantiser put in its place: then it is simply called.
        activation: A key of `ACTIVATIONS`, or None.
    """
    if _fusible(layer, x):
        name, algorithm = _FUSED[activation]
        gains, compiling = activation or x.dtype == torch.bfloat16, torch.compiler.is_compiling()
        if gains and compiling:
            # Inductor lowers the kernel for constant weights only: it gets one that it does not look into
            return _opaque(x, layer.weight, layer.bias, name, algorithm)
        packed = None if compiling else packed_copy(layer.weight)
        if gains or packed is not None:
            weight = layer.weight if packed is None else packed
            return torch.ops.mkldnn._linear_pointwise(x, weight, layer.bias, name, [], algorithm)
    out = layer(x)
    return out if activation is None else ACTIVATIONS[activation](out)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, name: str, algorithm: str) -> Tensor:
    packed = packed_copy(weight)
    weight = weight if packed is None else packed
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)


_opaque = torch.library.custom_op(
    "polydit::linear_pointwise",
    _pointwise,
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, str name, str algorithm) -> Tensor",
)


@_opaque.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, name: str, algorithm: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _fusible(layer: nn.Module, x: Tensor) -> TypeGuard[nn.Linear]:
    return (
        type(layer) is nn.Linear
        and x.device.type == "cpu"
        and x.dtype == layer.weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and _ONEDNN
        # hooks act on the call of the layer: torch's, and those of diffusers, which replace its forward
        and not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)
    )
