"""A checkpoint of molgen as the command line sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polydit.core.checkpoints import checkpoint
from polydit.core.errors import InputError
from polydit.molgen.domain import DOMAIN
from polydit.molgen.formulas import FormulaDistribution, parse_formula


class Checkpoint(checkpoint.Checkpoint):
    """A checkpoint folder of the pipeline; `find` raises CheckpointError for anything else."""

    domain = DOMAIN
    program = "MolgenPipeline"
    required = frozenset({"num_steps", "guidance_scale"})

    @property
    def num_steps(self) -> int:
        """The number of steps it suggests."""
        return int(self.index["num_steps"])

    @property
    def guidance_scale(self) -> float:
        """The guidance scale it suggests."""
        return float(self.index["guidance_scale"])

    def sizes(self, kind: str) -> dict[str, int]:
        """Structures of its training data by number of atoms; empty if it does not say.

        Raises:
            InputError: It was trained on the other kind only.
        """
        histograms: Mapping[str, dict[str, int]] = self.index.get("size_histograms") or {}
        if histograms and not histograms.get(kind):
            there = " and ".join(f"{name}s" for name, sizes in histograms.items() if sizes)
            raise InputError(f"checkpoint {self.name} makes {there} only", where=f"--kind {kind}")
        return histograms.get(kind, {})

    def formulas(self, kind: str, asked: str) -> FormulaDistribution | None:
        """Where a run draws its formulas from; None = it asks for none.

        Args:
            kind: "molecule" or "crystal".
            asked: "auto" = those of the training data for molecules, none for crystals; "none"; or a formula.

        Raises:
            InputError: It is no formula, the checkpoint cannot be told one, or does not know one of its elements.
        """
        if asked == "none" or (asked == "auto" and (kind != "molecule" or not self.index.get("formulas"))):
            return None
        if asked == "auto":
            return FormulaDistribution.read(self.index["formulas"])
        if not self.index.get("formulas"):
            raise InputError(f"checkpoint {self.name} cannot be told a formula", where=f"--formula {asked}")
        known = (self.index.get("elements") or {}).get(kind, {})
        if unknown := [symbol for symbol in parse_formula(asked) if symbol not in known]:
            problem = f"this checkpoint makes no {kind}s with {' or '.join(unknown)}"
            raise InputError(problem, where=f"--formula {asked}", expected=f"elements of {' '.join(known)}")
        return FormulaDistribution.only(asked)

    def facts(self) -> dict[str, Any]:
        """Sizes and elements of its training data, and how it samples."""
        histograms = self.index.get("size_histograms") or {}
        return {
            "atoms": {kind: _range(sizes) for kind, sizes in histograms.items() if sizes},
            "elements": {kind: list(counts) for kind, counts in (self.index.get("elements") or {}).items()},
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
        }


def _range(sizes: Mapping[str, int]) -> str:
    atoms = [int(size) for size in sizes]
    return f"{min(atoms)}-{max(atoms)}"
