"""The blocks of a network, and what goes through them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffusers.hooks._helpers import TransformerBlockRegistry
from torch import Tensor, nn

from polydit.core.errors import InputError

# names under which networks keep their blocks, here and in diffusers
LISTS = (
    "blocks",
    "transformer_blocks",
    "single_transformer_blocks",
    "layers",
    "visual_transformer_blocks",
    "temporal_transformer_blocks",
)


def find_blocks(network: nn.Module) -> list[nn.Module]:
    """All blocks of a network in their order; FLUX's two lists are one.

    Args:
        network: Has the lists itself, or one of its parts has.

    Raises:
        InputError: No part has such a list, or several have, or one block stands in it twice.
    """
    owners = {
        name: [key for key, child in part.named_children() if key in LISTS and _members(child)]
        for name, part in network.named_modules()
        if not _inside_blocks(name)
    }
    owners = {name: keys for name, keys in owners.items() if keys}
    kind = type(network).__name__
    if not owners:
        raise InputError(
            f"{kind} has no blocks that could be cached",
            where="cache",
            expected=f"a list of blocks under one of the names {', '.join(LISTS)}",
        )
    if len(owners) > 1 and "" not in owners:
        raise InputError(
            f"{kind} has blocks in several parts",
            where="cache",
            hint=f"Cache one of them: {', '.join(owners)}",
        )
    name, keys = next(iter(owners.items()))  # the network itself comes first
    part = network.get_submodule(name)
    blocks = [block for key in keys for block in _members(part.get_submodule(key))]
    if len(set(blocks)) < len(blocks):
        raise InputError(
            f"{kind} runs one block several times, each of which needs its own cache", where="cache"
        )
    return blocks


@dataclass(frozen=True, slots=True)
class Stream:
    """Tokens that a block takes and gives back: the argument's name, and the place in the output if it is a tuple."""

    name: str
    place: int


@dataclass(frozen=True, slots=True)
class BlockPorts:
    """Where the token streams of a block go in and come out.

    Args:
        kind: Name of the block's class.
        streams: Tokens first, then those of a second stream (text) if the block changes them too.
        parameters: Names of the arguments of `forward`, in order.
    """

    kind: str
    streams: tuple[Stream, ...]
    parameters: tuple[str, ...]

    @classmethod
    def of(cls, block: nn.Module) -> BlockPorts:
        """As diffusers' registry has them; else one tensor, which is the block's first argument."""
        kind = type(block)
        parameters = tuple(inspect.signature(kind.forward).parameters)[1:]
        try:
            known = TransformerBlockRegistry.get(kind)
        except ValueError:
            return cls(kind.__name__, (Stream(parameters[0], 0),), parameters)
        streams = [Stream(known.hidden_states_argument_name, known.return_hidden_states_index)]
        if known.return_encoder_hidden_states_index is not None:
            streams.append(
                Stream(known.encoder_hidden_states_argument_name, known.return_encoder_hidden_states_index)
            )
        return cls(kind.__name__, tuple(streams), parameters)

    def read_inputs(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Tensor | None, ...]:
        """One entry per stream."""
        given = dict(zip(self.parameters, args, strict=False)) | kwargs
        return tuple(given.get(stream.name) for stream in self.streams)

    def read_outputs(self, output: Any) -> tuple[Tensor | None, ...]:
        """One entry per stream.

        Raises:
            InputError: The block gives more tensors than are known as streams.
        """
        if isinstance(output, Tensor):
            return (output, *(None,) * (len(self.streams) - 1))
        places = {stream.place for stream in self.streams}
        if not isinstance(output, tuple) or any(
            value is not None and place not in places for place, value in enumerate(output)
        ):
            raise InputError(
                f"it is not known what the outputs of {self.kind} are",
                where="cache",
                hint="Register the class with diffusers' TransformerBlockRegistry, or cache modules of the block",
            )
        return tuple(output[stream.place] for stream in self.streams)

    def write_outputs(self, values: Sequence[Tensor | None], like: Any) -> Any:
        """The block's output with these streams, in the form of one that it gave before: a tensor or a tuple.

        Args:
            values: One entry per stream.
            like: Number of the tuple's entries; 0 = a tensor.
        """
        if not like:
            return values[0]
        output: list[Tensor | None] = [None] * like
        for stream, value in zip(self.streams, values, strict=False):
            output[stream.place] = value
        return tuple(output)


def _inside_blocks(name: str) -> bool:
    return any(part in LISTS for part in name.split("."))


def _members(blocks: nn.Module) -> list[nn.Module]:
    return list(blocks) if isinstance(blocks, nn.ModuleList) else []
