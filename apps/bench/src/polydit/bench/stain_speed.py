"""A whole slide beside the plain way, in which diffusion is run over slides elsewhere.

Plain: every tile of the grid, glass or tissue, one at a time, in float32, with noise of its own, the network called
whole in every step. Ours: what `vstain run --dtype bf16` does, without the pyramid at the end; the checkpoint's cache
of steps is a part of that, and the row without it says what the rest is worth.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from polydit.bench.measure import interleave, paired_ratio, threads
from polydit.bench.rows import Row
from polydit.bench.stain_plain import plain_tiles
from polydit.core.sampling.cache.named import AUTO, NONE
from polydit.vstain import load
from polydit.vstain.data.tissue import MPP
from polydit.vstain.noise import CHANNELS
from polydit.vstain.pictures import to_image
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.slides.grid import Grid
from polydit.vstain.slides.journal import Journal, SlidePlan
from polydit.vstain.slides.making import make_slide
from polydit.vstain.slides.network import NetworkStainer
from polydit.vstain.slides.reading import Slide, open_slide
from polydit.vstain.slides.settings import SlideRecipe
from polydit.vstain.slides.staining import StainedSlide, stain_slide

SEED, STAIN = 2, "ck"  # of its corner of 3072² pixels 35.8 % are tissue
PATCH, MARGIN, BATCH = 256, 32, 4
EVERY = 8  # of the plain way, which takes the same time for every tile, so many are timed
_WHITE = (245, 245, 245)


def speed_rows(*, quick: bool, checkpoint: str | None = None) -> Iterator[Row]:
    """Tiles a second of a slide with 35 % tissue: ours in bf16 and in fp32, over the plain way."""
    exact = load(checkpoint)
    side, steps, rounds = (768, 2, 1) if quick else (3072, int(exact.config.num_steps), 2)
    half = copy.deepcopy(exact)
    torch.nn.Module.to(half.network, torch.bfloat16)
    with TemporaryDirectory(prefix="polydit-bench-") as folder, threads(1):
        recipe = SlideRecipe(size=side, coverage=0.35, stain=STAIN, seed=SEED)
        slide_file, *_ = make_slide(Path(folder) / "slide", recipe)
        with open_slide(slide_file) as slide:
            grid = Grid(width=side, height=side, patch=PATCH, margin=MARGIN)
            runs = _Runs(slide, grid, Path(folder))
            seen = runs.ours(half, 1)
            timings = interleave(
                {
                    "plain": partial(runs.plain, exact, steps),
                    "ours": partial(runs.ours, half, steps, AUTO),
                    "ours, every step computed": partial(runs.ours, half, steps),
                    "ours, every step computed, fp32": partial(runs.ours, exact, steps),
                },
                rounds=rounds,
                warm_up=0,
            )
    plain, timed = timings["plain"], len(range(0, len(grid), EVERY)) / len(grid)
    for name in [name for name in timings if name != "plain"]:
        ours, asked = timings[name], name == "ours"
        cache = exact.chosen_cache(AUTO, steps) if asked else NONE
        yield Row(
            key=f"stain speed {name}",
            what=f"A slide with 35 % tissue, {steps} steps on both sides: tiles/s of {name} over the plain way",
            value=paired_ratio(plain.wall, ours.wall) / timed,
            unit="×",
            asked=5.0 if asked else None,
            aim=10.0 if asked else None,
            more_is_better=True,
            how=f"{side}² pixels, {seen.ground.share:.0%} tissue with its rim, {len(grid)} tiles of {PATCH}² of which "
            f"{seen.wanted.mean():.0%} have some, one thread, wall time, {rounds} interleaved rounds: "
            f"{len(grid) / ours.median:.3g} against {len(grid) * timed / plain.median:.3g} tiles/s; ours: "
            f"{'fp32' if 'fp32' in name else 'bf16'}, tissue alone, noise of the place, H&E encoded once, batches of "
            f"{BATCH}, with its journal, cache {cache}; plain: fp32, every tile (timed on one in {EVERY}), one at a "
            "time, the whole network in every step",
            details={"ours": ours.wall, "plain": plain.wall},
        )


@dataclass(eq=False)
class _Runs:
    """Both ways over one slide."""

    slide: Slide
    grid: Grid
    folder: Path
    _count: int = 0

    def plain(self, pipeline: StainPipeline, steps: int) -> None:
        """Of one tile in `EVERY`; in it nothing is left out and nothing kept."""
        generator = torch.Generator().manual_seed(SEED)
        for tile in islice(self.grid, 0, None, EVERY):
            he = self.slide.read(tile.x, tile.y, PATCH, PATCH, mpp=MPP, outside=_WHITE)
            noise = torch.randn((CHANNELS, PATCH, PATCH), generator=generator).numpy()
            clean = plain_tiles(pipeline, [he], [noise], STAIN, steps)
            to_image(pipeline.normalisation.denormalise(clean[:, :3]))

    def ours(self, pipeline: StainPipeline, steps: int, cache: str = NONE) -> StainedSlide:
        """Each call with a journal of its own, so that none finds what another has finished."""
        self._count += 1
        plan = SlidePlan(
            slide="bench", model="bench", stain=STAIN, seed=SEED, mpp=MPP, grid=self.grid, blend="crop",
            num_steps=steps, guidance_scale=1.0, mask=True, skip=True, precision=str(pipeline.network.dtype),
            cache=cache,
        )  # fmt: skip
        stainer = NetworkStainer(
            pipeline=pipeline, stain=STAIN, num_steps=steps, guidance_scale=1.0, mask=True, cache=cache
        )
        with Journal(self.folder / f"journal-{self._count}", plan) as journal:
            return stain_slide(self.slide, stainer, journal, batch_size=BATCH)
