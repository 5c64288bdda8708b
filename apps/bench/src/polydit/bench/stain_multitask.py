"""StainDiffuser's claim at our scale: with the mask learnt beside the stain, fewer pairs are enough.

Both networks have the same encoder and the same denoiser of the stain; one has the denoiser of the mask besides. They
see the same pairs, pieces, noise and times, and are measured by the stain alone: the mask is not asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from polydit.bench.rows import Row
from polydit.core.figure import Measure
from polydit.core.jobs.workers import Workers
from polydit.core.training.config import TrainConfig
from polydit.vstain.data.find import find_pairs
from polydit.vstain.data.make import make_dataset
from polydit.vstain.evaluate.scores import scores_of
from polydit.vstain.evaluate.tiles import Tile, score_tile
from polydit.vstain.fit import fit
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.recipe import NetworkSettings, Recipe
from polydit.vstain.tiles import StainRequest

SHARES = (0.1, 0.3, 1.0)
MEASURED = ("DAB r", "DAB pixel r", "DAB Dice", "SSIM")
_BATCH = 4  # tiles at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the comparison is.

    Args:
        pairs: For training at share 1, of both stains together.
        tests: Held-out tiles.
        steps: Of each training.
        width: Of the networks.
    """

    pairs: int = 200
    tests: int = 100
    steps: int = 1200
    width: int = 128

    @property
    def data(self) -> tuple[int, tuple[int, int, int]]:
        """All tiles, and the percentages of train, val and test."""
        total = self.pairs + self.tests
        test = round(100 * self.tests / total)
        return total, (100 - test, 0, test)


@dataclass(frozen=True, slots=True)
class Case:
    """One training.

    Args:
        multitask: Whether the mask is learnt as well.
        share: Of the pairs.
    """

    multitask: bool
    share: float

    @property
    def name(self) -> str:
        """As the rows call it."""
        return f"{'multitask' if self.multitask else 'stain alone'}, {self.share:.0%}"


def multitask_rows(*, quick: bool, workers: int = 1, size: Size | None = None) -> Iterator[Row]:
    """A row per training and the share of the pairs at which multitask does as well as all pairs without it."""
    size = size or (Size(pairs=80, tests=4, steps=8, width=32) if quick else Size())
    cases = [Case(multitask, share) for share in SHARES for multitask in (True, False)]
    found: dict[Case, dict[str, Measure]] = {}
    with tempfile.TemporaryDirectory(prefix="polydit-bench-") as folder, Workers(workers) as pool:
        total, percent = size.data
        make_dataset(Path(folder) / "ds", total, percent=percent)
        for case, scores in pool.map(partial(_train, size=size, folder=Path(folder)), cases, chunk=1):
            found[case] = scores
            yield _row(case, scores, size)
    yield _enough(found, size)


def _train(case: Case, *, size: Size, folder: Path) -> tuple[Case, dict[str, Measure]]:
    recipe = Recipe(
        share=case.share,
        network=NetworkSettings(
            width=size.width, heads=2, encoder_depth=3, image_depth=2, mask_depth=2 * case.multitask
        ),
        training=TrainConfig(
            steps=size.steps, batch_size=8, learning_rate=1e-3, muon_learning_rate=0.02, ema=0.99, warmup=50
        ),
    )
    files = find_pairs(folder / "ds", split="train")
    checkpoint = fit(files, recipe, folder / case.name, device="cpu")
    return case, _measure(StainPipeline.from_pretrained(checkpoint), folder / "ds")


def _measure(pipeline: StainPipeline, data: Path) -> dict[str, Measure]:
    """By the stain alone."""
    import torch

    torch.nn.Module.to(pipeline.network, torch.bfloat16)
    pairs = [file.read() for file in find_pairs(data, split="test")]
    tiles = []
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        requests = [StainRequest.of(pair.id, pair.he, stain=pair.stain) for pair in batch]
        made = pipeline(requests, mask=False)
        tiles += [
            score_tile(Tile(stained.ihc), Tile(pair.ihc), item=pair.id)
            for pair, stained in zip(batch, made, strict=True)
        ]
    return {score.name: score for score in scores_of(tiles)}


def _row(case: Case, scores: dict[str, Measure], size: Size) -> Row:
    figures = ", ".join(f"{name} {scores[name].text()}" for name in MEASURED)
    return Row(
        key=f"stain {case.name}",
        what=f"StainDiffuser, DAB r of held-out tiles: {case.name} of the pairs",
        value=scores["DAB r"].value,
        unit="",
        more_is_better=True,
        how=f"{round(case.share * size.pairs)} pairs of 256², {size.steps} steps of batch 8, pieces of 128², width "
        f"{size.width}, one seed; {size.tests} tiles of both stains, 10 steps, bf16: {figures}; the interval of "
        f"DAB r: {scores['DAB r'].text_interval()}",
        details={name: scores[name].to_json() for name in MEASURED},
    )


def _enough(found: dict[Case, dict[str, Measure]], size: Size) -> Row:
    """The smallest share with which each reaches what the stain alone reaches with all pairs, one over the other."""
    goal = found[Case(False, 1.0)]["DAB r"].value
    needed = {multitask: _smallest_share(found, goal, multitask) for multitask in (True, False)}
    ours, alone = needed[True], needed[False]
    return Row(
        key="stain multitask pairs",
        what="StainDiffuser, pairs with which multitask has the DAB r of the stain alone with all, over its own least",
        value=None if ours is None or alone is None else ours / alone,
        unit="×",
        asked=0.5,
        how=f"of the shares {_listed(SHARES)} of {size.pairs} pairs; the stain alone with all: "
        + ("not measurable" if goal is None else f"{goal:.4f}")
        + f"; multitask reaches that from {_said(ours)}, the stain alone from {_said(alone)}",
    )


def _smallest_share(
    found: dict[Case, dict[str, Measure]], goal: float | None, multitask: bool
) -> float | None:
    """None if no share is enough."""
    values = {share: found[Case(multitask, share)]["DAB r"].value for share in SHARES}
    enough = [
        share for share, value in values.items() if value is not None and goal is not None and value >= goal
    ]
    return min(enough, default=None)


def _said(share: float | None) -> str:
    return "none of them" if share is None else f"{share:.0%}"


def _listed(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:g}" for share in shares)
