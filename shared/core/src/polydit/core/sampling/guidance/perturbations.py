"""What diffusers' guiders change in a network for one of their predictions, in the thread that asks and nowhere else.

diffusers 0.42.1 does it by hooks on the modules, which other threads see. Its hooks also fail on FLUX's attention and
on layers that are given as numbers, swap the two streams of FLUX when they skip a block, choose one of FLUX's two
lists of blocks by the hash of their names, and are left out when PAG or SLG runs without classifier-free guidance,
where the prediction without condition then stands for the perturbed one. Here the guiders' settings are carried out as
their papers have them; where diffusers' hooks are right, the figures are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from diffusers.guiders import AutoGuidance, BaseGuidance, PerturbedAttentionGuidance, SkipLayerGuidance
from diffusers.hooks import LayerSkipConfig
from diffusers.hooks._common import _FEEDFORWARD_CLASSES
from diffusers.hooks._helpers import AttentionProcessorRegistry
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.blocks import BlockPorts
from polydit.core.sampling.cache.hooks import Forward, Handler, is_handled
from polydit.core.sampling.guidance.heads import TowardIdentity, blocks_of, self_attentions

# by the names that guiders give their predictions
Perturbations = Mapping[str, Mapping[nn.Module, Handler]]


@runtime_checkable
class Perturbs(Protocol):
    """A guider that says itself what it changes in a network."""

    def perturbations(self, network: nn.Module) -> Perturbations:
        """For each prediction that is not the network's own: other behaviour of modules."""
        ...


def perturbations_of(guider: BaseGuidance, network: nn.Module) -> Perturbations:
    """What a guider changes for which of its predictions.

    Args:
        guider: Of diffusers, or one that `Perturbs`.
        network: Ours or one of diffusers.

    Raises:
        InputError: The network lacks the layers, or it is not known what the guider changes.
    """
    if isinstance(guider, Perturbs):
        return guider.perturbations(network)
    if isinstance(guider, (PerturbedAttentionGuidance, SkipLayerGuidance)):
        return {"pred_cond_skip": skip_handlers(network, guider.skip_layer_config)}
    if isinstance(guider, AutoGuidance):
        return {"pred_uncond": skip_handlers(network, guider.auto_guidance_config)}
    if (
        type(guider).prepare_models is BaseGuidance.prepare_models
        and {*guider._input_predictions} <= {"pred_cond", "pred_uncond"}
    ):  # fmt: skip
        return {}
    # of diffusers 0.42.1 these two: SmoothedEnergyGuidance, whose hooks are never attached, and LTX2Guidance
    raise InputError(
        f"{type(guider).__name__} changes the network in a way of its own",
        where="guidance",
        expected="PerturbedAttentionGuidance, SkipLayerGuidance, AutoGuidance, SoftPAG, or a guider that needs "
        "nothing but predictions with and without condition",
    )


def skip_handlers(network: nn.Module, configs: Sequence[LayerSkipConfig]) -> dict[nn.Module, Handler]:
    """Other behaviour for the modules that are skipped.

    Args:
        network: Ours or one of diffusers.
        configs: `indices` count within the list of blocks that `fqn` names; "auto" counts all blocks of the network.

    Raises:
        InputError: The network lacks them.
    """
    handlers: dict[nn.Module, Handler] = {}
    for config in configs:
        blocks = _stack(network, config.fqn)
        for index in [config.indices] if isinstance(config.indices, int) else config.indices:
            if not 0 <= index < len(blocks):
                raise InputError(
                    f"there is no block {index} to skip", where="guidance", expected=f"0 to {len(blocks) - 1}"
                )
            found = _skipped(blocks[index], config)
            if not found:
                raise InputError(f"block {index} has nothing to skip under {config}", where="guidance")
            handlers.update(found)
    return handlers


def _stack(network: nn.Module, name: str) -> Sequence[nn.Module]:
    if name == "auto":
        return blocks_of(network)
    try:
        found = network.get_submodule(name)
    except AttributeError:
        found = None
    if not isinstance(found, nn.ModuleList):
        raise InputError(
            f"{type(network).__name__} has no list of blocks {name}", where="guidance", hint="Name none: auto"
        )
    return list(found)


def _skipped(block: nn.Module, config: LayerSkipConfig) -> dict[nn.Module, Handler]:
    if config.skip_attention and config.skip_ff:
        return {block: _Skip(config.dropout, _inputs_of(block), whole_block=True)}
    handlers: dict[nn.Module, Handler] = {}
    if config.skip_attention_scores:
        handlers |= {attn: TowardIdentity(1.0) for attn in self_attentions(block)}
    elif config.skip_attention:
        handlers |= {
            attn: _Skip(config.dropout, _input_of_attention(attn)) for attn in self_attentions(block)
        }
    if config.skip_ff:
        handlers |= {ff: _Skip(config.dropout, _first_tensor) for ff in _feed_forwards(block)}
    return handlers


class _Skip:
    """Gives a module's input back; or, with a dropout below 1, its output with some entries at zero."""

    def __init__(
        self,
        dropout: float,
        unchanged: Callable[[tuple[Any, ...], dict[str, Any]], Any],
        *,
        whole_block: bool = False,
    ) -> None:
        self.dropout, self.unchanged, self.whole_block = dropout, unchanged, whole_block

    def __call__(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.dropout >= 1.0:
            return self.unchanged(args, kwargs)
        output = forward(*args, **kwargs)
        if isinstance(output, tuple):
            return tuple(value if value is None else F.dropout(value, self.dropout) for value in output)
        return F.dropout(output, self.dropout)


def check_not_cached(handlers: Mapping[nn.Module, Handler]) -> None:
    """Refuse to skip blocks that a feature cache of this thread watches: it would lose count of them.

    Raises:
        InputError: They are cached.
    """
    if any(isinstance(does, _Skip) and does.whole_block and is_handled(m) for m, does in handlers.items()):
        raise InputError(
            "blocks are skipped by the guidance and kept by a cache",
            where="guidance",
            hint="Use SoftPAG or PerturbedAttentionGuidance, or cache the modules of the blocks",
        )


def _inputs_of(block: nn.Module) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    """The block's streams in the form of its output."""
    ports = BlockPorts.of(block)
    entries = 1 + max(stream.place for stream in ports.streams) if len(ports.streams) > 1 else 0
    return lambda args, kwargs: ports.write_outputs(ports.read_inputs(args, kwargs), entries)


def _input_of_attention(attn: Any) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    try:
        unchanged = AttentionProcessorRegistry.get(type(attn.processor)).skip_processor_output_fn
    except ValueError as error:
        raise InputError(
            f"it is not known how to skip {type(attn.processor).__name__}",
            where="guidance",
            hint="Register it with diffusers' AttentionProcessorRegistry, or skip the attention's scores",
        ) from error
    return lambda args, kwargs: unchanged(attn, *args, **kwargs)


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def _feed_forwards(block: nn.Module) -> list[nn.Module]:
    """Those of diffusers' classes, and ours, which is named mlp."""
    return [
        module
        for name, module in block.named_modules()
        if isinstance(module, _FEEDFORWARD_CLASSES) or name == "mlp"
    ]
