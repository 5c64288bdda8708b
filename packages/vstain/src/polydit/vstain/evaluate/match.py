"""Which virtual stain belongs to which real one, and what is left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from polydit.core.errors import InputError
from polydit.vstain.evaluate.inputs import Reference, Rejected, Virtual, read_references, read_virtual


class Pair(NamedTuple):
    """A virtual stain and the real one of the same place."""

    virtual: Virtual
    reference: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """The pairs of one run, by the names of their references.

    Args:
        pairs: In the order of the run.
        rejected: What cannot be measured.
        other_stain: How many references are of another stain than the item.
        no_reference: How many items have none.
        not_in_both: How many the other run lacks.
    """

    pairs: Mapping[str, Pair]
    rejected: tuple[Rejected, ...] = ()
    other_stain: int = 0
    no_reference: int = 0
    not_in_both: int = 0

    def only(self, names: Collection[str]) -> Matched:
        """The pairs of these references."""
        kept = {name: pair for name, pair in self.pairs.items() if name in names}
        return replace(self, pairs=kept, not_in_both=len(self.pairs) - len(kept))

    def first(self, limit: int | None) -> Matched:
        """At most so many pairs."""
        return replace(self, pairs=dict(islice(self.pairs.items(), limit)))

    def left_out(self) -> dict[str, int]:
        """How many items are not measured, by the reason."""
        counts = {
            "reference of another stain": self.other_stain,
            "no reference": self.no_reference,
            "not in both runs": self.not_in_both,
        }
        return {reason: count for reason, count in counts.items() if count}


def match_runs(
    run: Path,
    reference: Path,
    *,
    masks: Path | None = None,
    baseline: Path | None = None,
    limit: int | None = None,
) -> list[Matched]:
    """The pairs of a run, and those of its baseline if there is one; nothing but names and headers is read.

    With a baseline both are of the same places, so that their figures compare.

    Args:
        run: A run folder of `vstain run`, or a folder of images.
        reference: The real stains: a folder of images of the same names, or one image.
        masks: Folder of their masks, or that of the one image; None finds the folder `mask` beside them.
        baseline: Another run over the same H&E.
        limit: At most this many items.

    Raises:
        InputError: A folder cannot be read, or no item has a reference of its stain.
    """
    references = read_references(reference, masks=masks)
    paths = [run, *([baseline] if baseline else [])]
    found = [match(read_virtual(path), references, where=str(path)) for path in paths]
    if baseline:
        common = set(found[0].pairs) & set(found[1].pairs)
        if not common:
            raise InputError("it has no item in common with the run", where=str(baseline))
        found = [matched.only(common) for matched in found]
    return [matched.first(limit) for matched in found]


def match(
    virtual: Iterable[Virtual | Rejected], references: Mapping[str, Reference], *, where: str
) -> Matched:
    """Finds the reference of each virtual stain by its name.

    Args:
        virtual: Of a run.
        references: By their names. The only one is that of the only item, whatever its name.
        where: The run, for the message.

    Raises:
        InputError: No item has a reference of its stain.
    """
    items = list(virtual)
    made = [item for item in items if isinstance(item, Virtual)]
    rejected = [item for item in items if isinstance(item, Rejected)]
    pairs: dict[str, Pair] = {}
    other_stain = no_reference = 0
    for item in made:
        reference = _find(item, references, alone=len(made) == 1)
        if reference is None:
            no_reference += 1
        elif item.stain and reference.stain and item.stain != reference.stain:
            other_stain += 1
        elif reference.name in pairs:
            other = pairs[reference.name].virtual.id
            rejected.append(
                Rejected(f"{where}:{item.id}", f"its reference {reference.name} is that of {other} too")
            )
        else:
            pairs[reference.name] = Pair(item, reference)
    if not pairs and made:
        raise _nothing(made, references, other_stain, where)
    return Matched(
        pairs=pairs, rejected=tuple(rejected), other_stain=other_stain, no_reference=no_reference
    )  # fmt: skip


def _find(item: Virtual, references: Mapping[str, Reference], *, alone: bool) -> Reference | None:
    if alone and len(references) == 1:
        return next(iter(references.values()))
    return next((references[name] for name in item.names if name in references), None)


def _nothing(
    made: list[Virtual], references: Mapping[str, Reference], other_stain: int, where: str
) -> InputError:
    if other_stain:
        stains = sorted({reference.stain for reference in references.values()} - {""})
        return InputError(
            f"the references are of another stain than {made[0].stain!r}",
            where=where,
            expected=", ".join(stains),
        )
    return InputError(
        f"no item has a reference of its name: {', '.join(item.id for item in made[:3])}, ...",
        where=where,
        expected=f"names such as {', '.join(list(references)[:3])}",
    )
