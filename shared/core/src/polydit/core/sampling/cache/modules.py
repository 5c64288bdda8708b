"""Modules inside the blocks as the site of a cache: attention and feed-forward, all at once or each by a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.blocks import find_blocks
from polydit.core.sampling.cache.hooks import Handler
from polydit.core.sampling.cache.output import Outputs
from polydit.core.sampling.cache.routes import RouteTable
from polydit.core.sampling.cache.state import RunState

# children of a block whose output is added to the tokens, here and in diffusers
INNER = ("attn", "cross", "mlp", "attn1", "attn2", "ff", "ff_context")


@dataclass(frozen=True, kw_only=True, slots=True)
class Modules:
    """The outputs of modules inside every block, as TaylorSeer caches them: before their gates, which always are new.

    Norms and modulations are still computed. Memory: (order + 1) tensors for every such module.

    Args:
        names: Children of the blocks; those that a block has are taken.
        first: The first block whose modules are cached.
    """

    names: tuple[str, ...] = INNER
    first: int = 0

    def handlers(self, network: nn.Module, state: RunState) -> dict[nn.Module, Handler]:
        """One for each module.

        Raises:
            InputError: No block has a child of these names.
        """
        found = inner_modules(find_blocks(network), self.names, self.first)
        state.watched = list(found)[-1]
        return {module: Outputs(state, name) for name, module in found.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutedModules:
    """HarmoniCa (Huang et al. 2025): the outputs of modules as in `Modules`, each at forecast steps of its own.

    At a step that the policy forecasts, the modules that the table computes there are computed all the same.

    Args:
        table: Of all modules inside the blocks.
    """

    table: RouteTable

    @property
    def first(self) -> int:
        """It begins with the first block."""
        return 0

    def handlers(self, network: nn.Module, state: RunState) -> dict[nn.Module, Handler]:
        """One for each module.

        Raises:
            InputError: The table is of other modules.
        """
        found = inner_modules(find_blocks(network))
        if strange := sorted(set(found) ^ set(self.table.modules)):
            has = "network" if strange[0] in found else "table"
            raise InputError(
                f"the route table is of other modules: only the {has} has {strange[0]}",
                where="cache",
                hint="Make a table for this network: polydit route",
            )
        state.watched = list(found)[-1]
        return {
            module: Outputs(state, name, partial(self.table.reuses, name)) for name, module in found.items()
        }


def inner_modules(
    blocks: Sequence[nn.Module], names: Sequence[str] = INNER, first: int = 0
) -> dict[str, nn.Module]:
    """Children of blocks by names such as "0.attn": the block's number, and its child.

    Args:
        blocks: Of the network.
        names: Those that a block has are taken.
        first: The first block that is asked.

    Raises:
        InputError: No block has a child of these names.
    """
    found = {
        f"{index}.{name}": module
        for index, block in enumerate(blocks[first:], start=first)
        for name in names
        if isinstance(module := getattr(block, name, None), nn.Module)
    }
    if not found:
        has = ", ".join(name for name, _ in blocks[-1].named_children())
        raise InputError(
            f"blocks ({type(blocks[-1]).__name__}) from number {first} on have no {' or '.join(names)}",
            where="cache",
            hint=f"Name modules that they have: {has}",
        )
    return found
