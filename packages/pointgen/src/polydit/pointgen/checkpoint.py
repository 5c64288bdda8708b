"""A checkpoint of pointgen as the command line sees it."""

from __future__ import annotations

from typing import Any

from polydit.core.checkpoints import checkpoint
from polydit.core.errors import InputError
from polydit.pointgen.domain import DOMAIN
from polydit.pointgen.solvers import Solver, check_solver

ALL = "all"


class Checkpoint(checkpoint.Checkpoint):
    """A checkpoint folder of the pipeline; `find` raises CheckpointError for anything else."""

    domain = DOMAIN
    program = "PointPipeline"
    required = frozenset({"scheduler", "categories", "num_points", "num_steps", "guidance_scale"})

    @property
    def categories(self) -> tuple[str, ...]:
        """What it makes."""
        return tuple(str(name) for name in self.index["categories"])

    @property
    def num_points(self) -> int:
        """Points of its training clouds."""
        return int(self.index["num_points"])

    @property
    def num_steps(self) -> int:
        """The number of steps it suggests."""
        return int(self.index["num_steps"])

    @property
    def guidance_scale(self) -> float:
        """The guidance scale it suggests."""
        return float(self.index["guidance_scale"])

    @property
    def scheduler(self) -> str:
        """Class name of its scheduler, which says what the network predicts."""
        return str(self.index["scheduler"][1])

    @property
    def deterministic_solver(self) -> Solver:
        """One that draws no noise of its own: "auto" is the ancestral sampler for networks that predict noise."""
        return "ddim" if self.scheduler == "DDPMScheduler" else "auto"

    def chosen(self, text: str) -> tuple[str, ...]:
        """The categories that follow `--category`.

        Args:
            text: One, several separated by commas, or "all".

        Raises:
            InputError: It lacks one of them.
        """
        if text == ALL:
            return self.categories
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        if unknown := [name for name in names if name not in self.categories]:
            problem = f"checkpoint {self.name} makes no {' or '.join(repr(name) for name in unknown)}"
            raise InputError(problem, where=f"--category {text}", expected=", ".join(self.categories))
        return names

    def check_solver(self, solver: Solver) -> None:
        """Raises InputError if it cannot be sampled so."""
        check_solver(self.scheduler, self.index.get("solver", "auto") if solver == "auto" else solver)

    def facts(self) -> dict[str, Any]:
        """What it makes, and how it samples."""
        return {
            "categories": list(self.categories),
            "num_points": self.num_points,
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
        }
