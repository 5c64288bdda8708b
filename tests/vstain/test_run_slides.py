"""`vstain run` as a user calls it: slides and plain images, what is wrong with them, and going on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import Result
from PIL import Image

from polydit.core.jobs import read_run
from polydit.vstain.cli import vstain
from polydit.vstain.data.tissue import render
from polydit.vstain.slides.reading import open_slide

Invoke = Callable[..., Result]
QUICK = ("--stain", "ck", "--num-steps", 1, "--no-report", "--device", "cpu")
SMALL = (*QUICK, "--patch", 128, "--margin", 16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network at its smallest, with random weights."""
    import torch
    from torch import nn

    from polydit.vstain.model import StainDiT
    from polydit.vstain.pipeline import StainPipeline
    from polydit.vstain.schedules import stain_scheduler

    torch.manual_seed(0)
    network = StainDiT(
        patch_size=8, width=8, heads=2, encoder_depth=1, image_depth=1, mask_depth=1, radius=2, num_stains=2
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():  # adaLN-Zero: the network would be the identity
                nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    pipeline = StainPipeline(network.eval(), stain_scheduler(), stains=("ck", "cd3"), num_steps=2)
    pipeline.save_pretrained(folder)
    return folder


def write_slide(path: Path, width: int = 520, height: int = 300, mpp: float | None = 0.5) -> None:
    """A pyramid of two levels."""
    he = render(1, 0, 0, width, height, "ck", coverage=1.0).he
    known: dict[str, Any] = (
        {} if mpp is None else {"resolution": (1e4 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
    )
    options = {"photometric": "rgb", "tile": (128, 128), "compression": "zlib", "metadata": None, **known}
    with tifffile.TiffWriter(path) as writer:
        writer.write(he, **options)
        writer.write(he[::2, ::2], subfiletype=1, **options)


def write_image(path: Path, width: int = 93, height: int = 70, seed: int = 0) -> None:
    Image.fromarray(render(seed, 0, 0, width, height, "ck").he).save(path)


def items(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "items").iterdir())}


def test_a_slide_becomes_pyramids_objects_and_figures(
    invoke: Invoke, tmp_path: Path, checkpoint: Path
) -> None:
    write_slide(tmp_path / "slide.tif")
    for format, ending in (("ome", ".ome.tif"), ("tiff", ".tif")):
        out = tmp_path / format
        arguments = ("slide.tif", *SMALL, "--checkpoint", checkpoint, "--format", format, "--out", out)
        result = invoke(vstain, "run", *arguments)
        assert result.exit_code == 0, result.output
        names = {f"slide{end}" for end in (ending, ".mask.tif", ".geojson", ".json")}
        assert set(items(out)) == names | {"slide.thumbnail.png", "slide.he.thumbnail.png"}
        with tifffile.TiffFile(out / "items" / f"slide{ending}") as file:
            assert file.is_ome is (format == "ome")
            assert [level.shape for level in file.series[0].levels] == [(300, 520, 3), (150, 260, 3)]
        with open_slide(out / "items" / f"slide{ending}") as slide:
            assert (slide.size, slide.mpp) == ((520, 300), pytest.approx(0.5))
        figures = json.loads(items(out)["slide.json"])
        assert (figures["tiles_run"], figures["mpp"], figures["stain"]) == (24, pytest.approx(0.5), "ck")
        assert {"iod", "positive_area_percent", "seed", "model", "stain_vectors"} <= set(figures)
        features = json.loads(items(out)["slide.geojson"])["features"]
        assert len(features) == figures["positive_objects"]
        assert not (out / "scratch").exists()
    assert items(tmp_path / "ome")["slide.mask.tif"] == items(tmp_path / "tiff")["slide.mask.tif"]


def test_openslide_reads_the_plain_pyramid(invoke: Invoke, tmp_path: Path, checkpoint: Path) -> None:
    openslide = pytest.importorskip("openslide")
    write_slide(tmp_path / "slide.tif", 700, 400)
    result = invoke(
        vstain, "run", "slide.tif", *QUICK, "--checkpoint", checkpoint, "--format", "tiff", "--out", "run"
    )
    assert result.exit_code == 0, result.output
    with openslide.OpenSlide(tmp_path / "run" / "items" / "slide.tif") as slide:
        assert slide.level_dimensions == ((700, 400), (350, 200))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        theirs = np.asarray(slide.read_region((0, 0), 0, (700, 400)))[..., :3]
    with tifffile.TiffFile(tmp_path / "run" / "items" / "slide.tif") as file:
        assert np.array_equal(file.asarray(), theirs)


def test_plain_images_keep_their_size_and_do_not_depend_on_the_batch(
    invoke: Invoke, tmp_path: Path, checkpoint: Path
) -> None:
    for number in range(3):
        write_image(tmp_path / f"tile-{number}.png", seed=number)
    write_image(tmp_path / "large.png", 200, 150)
    for size in (1, 8):
        arguments = (
            "*.png",
            *SMALL,
            "--checkpoint",
            checkpoint,
            "--batch-size",
            size,
            "--out",
            f"run-{size}",
        )
        result = invoke(vstain, "run", *arguments)
        assert result.exit_code == 0, result.output
    record = next(read_run(tmp_path / "run-1").finished())
    assert (record["id"], record["measures"]["mpp_source"]) == ("large", "assumed")
    for name, size in (("tile-1", (93, 70)), ("large", (200, 150))):
        stains = []
        for batch in (1, 8):
            with Image.open(tmp_path / f"run-{batch}" / "items" / f"{name}.png") as image:
                assert (image.size, image.info["stain"]) == (size, "ck")
                stains.append(np.asarray(image).astype(int))
            with Image.open(tmp_path / f"run-{batch}" / "items" / f"{name}.mask.png") as mask:
                assert mask.size == size and set(np.unique(mask)) <= {0, 255}
        assert np.abs(stains[0] - stains[1]).max() <= 1


def test_a_broken_input_fails_alone(invoke: Invoke, tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "in [1]"
    folder.mkdir()
    write_image(folder / "a [x].png")
    write_slide(folder / "slide.tif")
    write_slide(folder / "unknown.tif", mpp=None)
    (folder / "cut.tif").write_bytes((folder / "slide.tif").read_bytes()[:2000])
    (folder / "notes.txt").write_text("not an image")
    result = invoke(vstain, "run", folder, *SMALL, "--checkpoint", checkpoint, "--out", "run")
    assert result.exit_code == 3, result.output
    run = read_run(tmp_path / "run")
    assert sorted(record["id"] for record in run.finished()) == ["a [x]", "slide"]
    reasons = {record["id"]: record["error"]["message"] for record in run.failed()}
    assert set(reasons) == {"cut", "unknown"}
    assert "--mpp 0.5" in reasons["unknown"]
    given = invoke(
        vstain,
        "run",
        folder / "unknown.tif",
        *SMALL,
        "--mpp",
        0.5,
        "--checkpoint",
        checkpoint,
        "--out",
        "given",
    )
    assert given.exit_code == 0, given.output
    assert items(tmp_path / "given")["unknown.mask.tif"] != b""


def test_names_with_brackets_are_names_before_they_are_patterns(
    invoke: Invoke, tmp_path: Path, checkpoint: Path
) -> None:
    write_image(tmp_path / "[1,2].png")
    write_image(tmp_path / "1.png")
    result = invoke(vstain, "run", "[1,2].png", *SMALL, "--checkpoint", checkpoint, "--out", "run")
    assert result.exit_code == 0, result.output
    assert [record["inputs"][0]["path"] for record in read_run(tmp_path / "run").finished()] == ["[1,2].png"]
    missing = invoke(vstain, "run", "[3-9].png", *SMALL, "--checkpoint", checkpoint, "--out", "other")
    assert missing.exit_code == 2 and "[3-9].png: there is no slide or image" in missing.output


def test_an_output_folder_within_the_input_is_not_eaten(
    invoke: Invoke, tmp_path: Path, checkpoint: Path
) -> None:
    write_image(tmp_path / "a.png")
    arguments = (".", *SMALL, "--checkpoint", checkpoint)
    for out in ("run", "run", "second"):
        result = invoke(vstain, "run", *arguments, "--out", out)
        assert result.exit_code == 0, result.output
        assert read_run(tmp_path / out).manifest.ids() == ["a"]


def test_other_settings_and_a_journal_of_another_slide_are_refused(
    invoke: Invoke, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(tmp_path / "slide.tif")
    arguments = ("slide.tif", *SMALL, "--checkpoint", checkpoint, "--out", "run")
    full_disk_after(2, monkeypatch)
    assert invoke(vstain, "run", *arguments).exit_code == 1
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    other = invoke(vstain, "run", *arguments, "--seed", 1)
    assert other.exit_code == 2 and "seed (0 before, 1 now)" in other.output
    write_slide(tmp_path / "slide.tif", width=528)
    changed = invoke(vstain, "run", *arguments)
    assert changed.exit_code == 1 and "tiles of another plan" in changed.output
    again = invoke(vstain, "run", *arguments, "--overwrite")
    assert again.exit_code == 0, again.output


def full_disk_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes so many pieces at places of a file, and then no more."""
    really, left = os.pwrite, iter(range(writes))

    def pwrite(descriptor: int, content: bytes, offset: int) -> int:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)


def test_a_full_disk_in_the_middle_stops_the_run_and_a_rerun_goes_on(
    invoke: Invoke, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(tmp_path / "slide.tif")
    arguments = ("slide.tif", *SMALL, "--checkpoint", checkpoint, "--batch-size", 4)
    assert invoke(vstain, "run", *arguments, "--out", "whole").exit_code == 0
    full_disk_after(30, monkeypatch)
    result = invoke(vstain, "run", *arguments, "--out", "run")
    assert result.exit_code == 1 and "the disk is full" in result.output
    assert read_run(tmp_path / "run").manifest.ids() == []
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    result = invoke(vstain, "run", *arguments, "--out", "run")
    assert result.exit_code == 0, result.output
    assert 0 < next(read_run(tmp_path / "run").finished())["measures"]["tiles_reused"] < 24
    assert items(tmp_path / "run") == items(tmp_path / "whole")


def test_a_slide_without_tissue_says_so_and_is_no_failure(
    invoke: Invoke, tmp_path: Path, checkpoint: Path
) -> None:
    path = tmp_path / "blank.tif"
    white = np.full((600, 520, 3), 243, np.uint8)
    options = {
        "photometric": "rgb",
        "metadata": None,
        "resolution": (2e4, 2e4),
        "resolutionunit": "CENTIMETER",
    }
    with tifffile.TiffWriter(path) as writer:
        writer.write(white, **options)
        writer.write(white[::2, ::2], subfiletype=1, **options)
    result = invoke(vstain, "run", path, *QUICK, "--checkpoint", checkpoint, "--out", "run")
    assert result.exit_code == 0, result.output
    measures = next(read_run(tmp_path / "run").finished())["measures"]
    assert (measures["tiles_run"], measures["tissue_percent"]) == (0, 0)
    assert measures["note"] == "no tissue was found"
    kept = invoke(
        vstain, "run", path, *SMALL, "--no-skip", "--no-mask", "--checkpoint", checkpoint, "--out", "all"
    )
    assert kept.exit_code == 0, kept.output
    assert "blank.mask.tif" not in items(tmp_path / "all")
    assert next(read_run(tmp_path / "all").finished())["measures"]["tiles_run"] == 42


def test_dry_run_counts_tiles_and_writes_nothing(invoke: Invoke, tmp_path: Path, checkpoint: Path) -> None:
    write_slide(tmp_path / "slide.tif")
    write_image(tmp_path / "a.png")
    (tmp_path / "broken.png").write_text("no image")
    arguments = ("slide.tif", "*.png", *SMALL, "--checkpoint", checkpoint, "--out", "run", "--dry-run")
    result = invoke(vstain, "run", *arguments, "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.output)
    assert (plan["slides"], plan["plain_images"], plan["unreadable"], plan["tiles"]) == (1, 1, 1, 25)
    assert plan["estimated_seconds"] > 0 and plan["scratch_bytes"] == 25 * 96 * 96 * 4
    assert not (tmp_path / "run").exists()


def test_wrong_tiles_are_found_before_anything_is_loaded(
    invoke: Invoke, tmp_path: Path, checkpoint: Path
) -> None:
    write_image(tmp_path / "a.png")
    common = ("a.png", "--checkpoint", checkpoint, "--out", "run")
    for options, problem in (
        (("--stain", "her2"), "makes no 'her2'"),
        ((), "makes several stains"),
        (("--stain", "ck", "--patch", 100), "no multiple of 8"),
        (("--stain", "ck", "--margin", 128), "leaves 0 pixels"),
        (("--stain", "ck", "--margin", 100, "--blend", "feather"), "at least 400"),
    ):
        result = invoke(vstain, "run", *common, *options)
        assert result.exit_code == 2 and problem in result.output, result.output
    assert not (tmp_path / "run").exists()


def test_a_procedural_slide_is_made_and_stained(invoke: Invoke, tmp_path: Path, checkpoint: Path) -> None:
    made = invoke(vstain, "data", "slide", "--size", 700, "--coverage", 1, "--out", "slide")
    assert made.exit_code == 0, made.output
    with open_slide(tmp_path / "slide" / "ihc.tif") as slide:
        assert (slide.size, slide.mpp, len(slide.levels)) == ((700, 700), pytest.approx(0.5), 2)
        truth = render(0, 500, 480, 100, 100, "ck", coverage=1.0)
        assert np.array_equal(slide.read(500, 480, 100, 100, mpp=0.5), truth.ihc)
    with open_slide(tmp_path / "slide" / "mask.tif") as mask:
        assert np.array_equal(mask.read(500, 480, 100, 100, mpp=0.5)[..., 0] > 127, truth.mask)
    again = invoke(vstain, "data", "slide", "--size", 700, "--out", "slide")
    assert again.exit_code == 2 and "holds he.tif already" in again.output
    assert sorted(path.name for path in (tmp_path / "slide").iterdir()) == ["he.tif", "ihc.tif", "mask.tif"]
