"""Whole slides tile by tile: what is merged, what is skipped, what survives a kill, and what memory it takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from jaxtyping import Bool, Float32, UInt8

from polydit.core.errors import InputError
from polydit.vstain.data.tissue import render
from polydit.vstain.noise import noise_field
from polydit.vstain.slides.background import Overview, find_ground
from polydit.vstain.slides.grid import Box, Grid, check_blend
from polydit.vstain.slides.images import mirrored, stain_images
from polydit.vstain.slides.journal import Journal, SlidePlan
from polydit.vstain.slides.making import make_slide
from polydit.vstain.slides.reading import Slide, open_slide
from polydit.vstain.slides.settings import Blend, SlideRecipe
from polydit.vstain.slides.staining import StainedSlide, stain_slide

WIDTH, HEIGHT = 700, 500


class Dye:
    """A stainer whose result at a pixel depends on H&E and noise of that pixel alone."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.tiles, self.fail_at = 0, fail_at

    def stain_tiles(
        self, he: UInt8[np.ndarray, "b h w 3"], noise: Float32[np.ndarray, "b 4 h w"]
    ) -> tuple[UInt8[np.ndarray, "b h w 3"], Bool[np.ndarray, "b h w"] | None]:
        self.tiles += len(he)
        if self.fail_at is not None and self.tiles > self.fail_at:
            raise KeyboardInterrupt
        brown = 0.5 * he[..., ::-1] + 100 + 3 * noise[:, :3].transpose(0, 2, 3, 1)
        return np.clip(np.rint(brown), 0, 255).astype(np.uint8), he[..., 0] + 5 * noise[:, 3] < 120


class Cramped(Dye):
    """One that has memory for three tiles at once."""

    def stain_tiles(
        self, he: UInt8[np.ndarray, "b h w 3"], noise: Float32[np.ndarray, "b 4 h w"]
    ) -> tuple[UInt8[np.ndarray, "b h w 3"], Bool[np.ndarray, "b h w"] | None]:
        if len(he) > 3:
            raise MemoryError
        return super().stain_tiles(he, noise)


@pytest.fixture(scope="module")
def he() -> UInt8[np.ndarray, "h w 3"]:
    return render(0, 0, 0, WIDTH, HEIGHT, "ck", coverage=0.6).he


@pytest.fixture(scope="module")
def path(he: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    options = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, he, photometric="rgb", tile=(128, 128), compression="zlib", **options)
    return path


@pytest.fixture
def slide(path: Path) -> Iterator[Slide]:
    with open_slide(path) as slide:
        yield slide


def plan(blend: Blend = "crop", *, shift: int = 0, skip: bool = False, seed: int = 3) -> SlidePlan:
    grid = Grid(width=WIDTH, height=HEIGHT, patch=128, margin=16, shift=shift)
    return SlidePlan(slide="s", model="m", stain="ck", seed=seed, mpp=0.5, grid=grid, blend=blend, skip=skip)


def pixels(stained: StainedSlide) -> tuple[np.ndarray, np.ndarray]:
    assert stained.mask is not None
    return (
        stained.stain.window(0, 0, WIDTH, HEIGHT),
        stained.mask.window(0, 0, WIDTH, HEIGHT)[..., 0] > 127,
    )


@pytest.mark.parametrize("blend", ["crop", "feather"])
@pytest.mark.parametrize("shift", [0, 48])
def test_tiles_make_what_the_whole_slide_would(
    tmp_path: Path, slide: Slide, he: np.ndarray, blend: Blend, shift: int
) -> None:
    """Also with a grid that is shifted by half a core: noise and cores lie on the world, not on the grid."""
    noise = noise_field(3, 0, 0, WIDTH, HEIGHT, 4)
    expected, cells = Dye().stain_tiles(he[None], noise[None])
    assert cells is not None
    with Journal(tmp_path, plan(blend, shift=shift)) as journal:
        stained = stain_slide(slide, Dye(), journal, batch_size=4)
        found, mask = pixels(stained)
        assert np.array_equal(found, expected[0]) and np.array_equal(mask, cells[0])
        part = stained.stain.window(33, 77, 300, 200)
    assert np.array_equal(part, found[77:277, 33:333])


def test_feathering_fades_from_one_tile_to_the_next(tmp_path: Path, slide: Slide) -> None:
    """Two tiles that disagree: weights of cos² that sum to one, over two margins round the border."""

    class Numbered(Dye):
        def stain_tiles(
            self, he: UInt8[np.ndarray, "b h w 3"], noise: Float32[np.ndarray, "b 4 h w"]
        ) -> tuple[UInt8[np.ndarray, "b h w 3"], Bool[np.ndarray, "b h w"] | None]:
            self.tiles += 1
            value = 200 if self.tiles % 2 else 100
            return np.full(he.shape, value, np.uint8), np.zeros(he.shape[:3], bool)

    grid = Grid(width=192, height=64, patch=128, margin=16)
    asked = replace(plan("feather"), grid=grid)
    with Journal(tmp_path, asked) as journal:
        row = stain_slide(slide, Numbered(), journal).stain.window(0, 32, 192, 1)[0, :, 0].astype(float)
    share = np.sin(np.pi / 2 * (np.arange(32) + 0.5) / 32) ** 2
    assert np.array_equal(row[:80], np.full(80, 200)) and np.array_equal(row[112:], np.full(80, 100))
    assert np.abs(row[80:112] - (200 * (1 - share) + 100 * share)).max() <= 0.5


def test_background_is_skipped_and_white(tmp_path: Path, slide: Slide, he: np.ndarray) -> None:
    dye = Dye()
    with Journal(tmp_path, plan(skip=True)) as journal:
        stained = stain_slide(slide, dye, journal, batch_size=3)
        found, _ = pixels(stained)
    grid = stained.plan.grid
    assert dye.tiles == stained.wanted.sum() < len(grid)
    assert stained.ground.white == (245, 245, 245)
    for tile in grid:
        x, y, width, height = tile.core
        core = np.s_[y : y + height, x : x + width]
        if not stained.wanted[tile.number]:
            assert (found[core] == 245).all()
            assert he[core].min() > 225  # nothing but glass was skipped


@pytest.mark.parametrize("blend", ["crop", "feather"])
def test_an_interrupted_slide_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, slide: Slide, blend: Blend
) -> None:
    with Journal(tmp_path / "whole", plan(blend)) as journal:
        expected = pixels(stain_slide(slide, Dye(), journal, batch_size=4))
    with Journal(tmp_path / "cut", plan(blend)) as journal, pytest.raises(KeyboardInterrupt):
        stain_slide(slide, Dye(fail_at=17), journal, batch_size=4)
    dye = Dye()
    with Journal(tmp_path / "cut", plan(blend)) as journal:
        assert journal.num_done == 16
        stained = stain_slide(slide, dye, journal, batch_size=4)
        found = pixels(stained)
    assert (stained.reused, dye.tiles) == (16, len(stained.plan.grid) - 16)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


def test_a_batch_that_is_not_whole_in_the_journal_is_made_again(tmp_path: Path, slide: Slide) -> None:
    """A tile's last bit may depend on its batch, so a batch is never completed by a smaller one."""
    with Journal(tmp_path, plan()) as journal:
        stain_slide(slide, Dye(), journal, batch_size=4)
    with (tmp_path / "journal").open("r+b") as handle:
        handle.seek(5)
        handle.write(b"\0")
    dye = Dye()
    with Journal(tmp_path, plan()) as journal:
        stain_slide(slide, dye, journal, batch_size=4)
    assert dye.tiles == 4


def test_a_journal_of_another_plan_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, plan()):
        pass
    for other, name in (
        (plan(seed=4), r"seed \(3 before, 4 now\)"),
        (replace(plan(), model="n"), "model"),
        (replace(plan(), slide="t"), "slide"),
        (plan("feather"), "blend"),
    ):
        with pytest.raises(InputError, match=rf"another plan: .*{name}.*--overwrite"):
            Journal(tmp_path, other)
    (tmp_path / "plan.json").write_text('{"format')
    with pytest.raises(InputError, match="damaged"):
        Journal(tmp_path, plan())


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path, slide: Slide) -> None:
    with Journal(tmp_path / "a", plan()) as journal:
        expected = pixels(stain_slide(slide, Dye(), journal, batch_size=8))
    with Journal(tmp_path / "b", plan()) as journal:
        found = pixels(stain_slide(slide, Cramped(), journal, batch_size=8))
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])


def test_tissue_has_a_floor_and_a_ceiling() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (512, 512, 3))
    blank = np.clip(242 + noise, 0, 255).astype(np.uint8)
    ground = find_ground(Overview(blank, 4.0), reach_um=16.0)
    assert (ground.share, ground.white) == (0.0, (242, 242, 242))
    full = render(0, 0, 0, 1024, 1024, "ck", coverage=1.0).he
    assert find_ground(Overview(full, 1.0), reach_um=16.0).share == 1.0
    black = np.zeros((256, 256, 3), np.uint8)
    assert find_ground(Overview(black, 8.0), reach_um=16.0).share == 0.0


def test_a_lone_nucleus_is_tissue() -> None:
    image = np.full((512, 512, 3), 245, np.uint8)
    rows, columns = np.mgrid[:512, :512]
    image[(rows - 300) ** 2 + (columns - 200) ** 2 < 12**2] = (150, 120, 190)  # 12 microns across
    ground = find_ground(Overview(image, 0.5), reach_um=16.0)
    grid = Grid(width=512, height=512)
    wanted = [tile.number for tile in grid if ground.tiles(grid, 0.5)[tile.number]]
    around = Box(200 - 12, 300 - 12, 24, 24)
    assert set(wanted) >= {tile.number for tile in grid.reaching(around)}
    assert len(wanted) < len(grid)


def test_grids_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="no multiple of 8"):
        Grid(width=100, height=100, patch=100)
    with pytest.raises(InputError, match="leaves 0 pixels"):
        Grid(width=100, height=100, patch=64, margin=32)
    with pytest.raises(InputError, match="at least 256 for a margin of 64"):
        check_blend(Grid(width=100, height=100, patch=160, margin=64), "feather")


@pytest.mark.parametrize(("width", "height"), [(93, 101), (128, 128), (300, 40), (40, 300)])
def test_images_of_any_size(he: np.ndarray, width: int, height: int) -> None:
    """Those that fit into a patch are filled up by their mirror image, larger ones are cut into tiles."""
    image = he[50 : 50 + height, 60 : 60 + width]
    expected, cells = Dye().stain_tiles(image[None], noise_field(9, 0, 0, width, height, 4)[None])
    assert cells is not None
    for blend in ("crop", "feather"):
        first, second = stain_images(
            [image, image[::-1]], [9, 10], Dye(), patch=128, margin=16, blend=blend, batch_size=3
        )
        assert np.array_equal(first.stain, expected[0])
        assert first.mask is not None and np.array_equal(first.mask, cells[0])
        assert not np.array_equal(second.stain[::-1], first.stain)


def test_beyond_its_edges_an_image_is_mirrored() -> None:
    image = np.arange(5, dtype=np.uint8)[None, :, None].repeat(2, axis=0).repeat(3, axis=2)
    assert mirrored(image, -2, 0, 12, 1)[0, :, 0].tolist() == [2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0, 1]


PROGRAM = """
import resource, sys, time
from pathlib import Path
import numpy as np
from polydit.vstain.slides.inputs import RunPlan
from polydit.vstain.slides.run import StainRun
from polydit.vstain.slides.settings import StainSettings

class Dye:
    def stain_tiles(self, he, noise):
        time.sleep(float(sys.argv[3]))
        brown = 0.5 * he[..., ::-1] + 100 + 3 * noise[:, :3].transpose(0, 2, 3, 1)
        return np.clip(np.rint(brown), 0, 255).astype(np.uint8), he[..., 0] < 120

settings = StainSettings(stain="ck", model="m", digest="m", num_steps=1, guidance_scale=1.0, model_mpp=0.5)
work = StainRun(stainer=Dye(), settings=settings, out=Path(sys.argv[2]), batch_size=4)
(outcome,) = work(list(RunPlan(num_samples=1, inputs=[Path(sys.argv[1])])))
print(outcome.measures["tiles_run"], outcome.measures["tiles_reused"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run_program(slide: Path, out: Path, pause: float = 0.0) -> tuple[int, int, int]:
    """Tiles run and reused, and the peak memory in kB of a process of its own."""
    arguments = [sys.executable, "-c", PROGRAM, str(slide), str(out), str(pause)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    run, reused, peak = (int(word) for word in done.stdout.split())
    return run, reused, peak


def made(out: Path) -> dict[str, bytes]:
    folder = out / "scratch" / "he"
    return {name: (folder / name).read_bytes() for name in ("stain.ome.tif", "mask.tif", "objects.geojson")}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a signal of POSIX")
def test_kill_9_within_a_slide(tmp_path: Path) -> None:
    slide, _, _ = make_slide(tmp_path / "slide", SlideRecipe(size=900, seed=1, coverage=0.8))
    tiles, _, _ = run_program(slide, tmp_path / "whole")
    journal = tmp_path / "cut" / "scratch" / "he" / "journal"
    arguments = [sys.executable, "-c", PROGRAM, str(slide), str(tmp_path / "cut"), "0.2"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as child:
        deadline = time.monotonic() + 100
        while not (journal.exists() and sum(journal.read_bytes()) >= 8):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
    run, reused, _ = run_program(slide, tmp_path / "cut")
    assert run == tiles and 8 <= reused < tiles
    assert made(tmp_path / "cut") == made(tmp_path / "whole")


def test_a_slide_without_tissue_is_blank(tmp_path: Path) -> None:
    path = tmp_path / "he.tif"
    options = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER", "tile": (256, 256)}
    noise = np.random.default_rng(0).normal(0, 2, (1100, 1000, 3))
    blank = np.clip(240 + noise, 0, 255).astype(np.uint8)
    with tifffile.TiffWriter(path) as writer:  # a pyramid, so that it is a slide
        writer.write(blank, photometric="rgb", metadata=None, **options)
        writer.write(blank[::2, ::2], photometric="rgb", metadata=None, subfiletype=1, tile=(256, 256))
    assert run_program(path, tmp_path / "out")[:2] == (0, 0)
    with open_slide(tmp_path / "out" / "scratch" / "he" / "stain.ome.tif") as slide:
        blank = slide.read(0, 0, *slide.size, mpp=0.5)
    assert (np.ptp(blank, axis=(0, 1)) == 0).all() and abs(int(blank.max()) - 240) <= 1
    outlines = json.loads(made(tmp_path / "out")["objects.geojson"])
    assert outlines["features"] == []
