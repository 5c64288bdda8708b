"""`vstain evaluate`: runs and folders against references, with masks, baselines and slides."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from polydit.core.errors import InputError
from polydit.core.jobs import ItemFailure, ItemResult, RunFolder
from polydit.vstain.cli import vstain
from polydit.vstain.colour import coarse_mask
from polydit.vstain.data.images import png_bytes, read_mask, read_rgb
from polydit.vstain.data.tissue import render
from polydit.vstain.evaluate import Measured, evaluate_stains, match_runs, pictures
from polydit.vstain.evaluate.inputs import stem_of
from polydit.vstain.evaluate.masks import Overlap, dice

CK = {f"ck-{number}": "ck" for number in range(4)}
SIDE = 96


@pytest.fixture
def stain_set(tmp_path: Path) -> Callable[..., Path]:
    """``stain_set({"a": "ck", "b": "cd3"})``: a data set of such tiles; returns its folder of references."""

    def make(stains: Mapping[str, str], *, masks: bool = True, manifest: bool = True) -> Path:
        home = tmp_path / "ds" / "test"
        rows = ["id,he,ihc,mask,stain,split,mpp"]
        for number, (name, stain) in enumerate(stains.items()):
            tile = render(3, 4000 + number * SIDE, 900, SIDE, SIDE, stain, coverage=1.0)
            parts = {"HE": tile.he, "IHC": tile.ihc, **({"mask": tile.mask} if masks else {})}
            for part, image in parts.items():
                (home / part).mkdir(parents=True, exist_ok=True)
                (home / part / f"{name}.png").write_bytes(png_bytes(image))
            mask = f"test/mask/{name}.png" if masks else ""
            rows.append(f"{name},test/HE/{name}.png,test/IHC/{name}.png,{mask},{stain},test,0.5")
        if manifest:
            (home.parent / "manifest.csv").write_text("\n".join(rows) + "\n")
        return home / "IHC"

    return make


@pytest.fixture
def stain_run(tmp_path: Path) -> Callable[..., Path]:
    """``stain_run({"a": (image, mask)})``: a run folder with these stains, as `vstain run` leaves it."""

    def make(
        stains: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
        *,
        name: str = "run",
        stain: str = "ck",
        failures: Sequence[str] = (),
    ) -> Path:
        outcomes: list[ItemResult | ItemFailure] = []
        for index, (item, (image, mask)) in enumerate(stains.items()):
            files = {".png": png_bytes(image), ".json": b"{}"}
            files |= {} if mask is None else {".mask.png": png_bytes(mask)}
            outcomes.append(
                ItemResult(id=item, index=index, seed=index, files=files, measures={"stain": stain})
            )
        for index, reason in enumerate(failures, len(stains)):
            failure = ItemFailure(id=f"bad-{index}", index=index, seed=0, error="Unreadable", message=reason)
            outcomes.append(failure)
        with RunFolder.open(tmp_path / name, command="vstain run", options={}, provenance={}) as folder:
            folder.commit(outcomes)
        return tmp_path / name

    return make


def stains_of(references: Path) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """The references themselves, with their masks."""
    masks = references.parent / "mask"
    return {
        path.stem: (read_rgb(path), read_mask(masks / path.name) if masks.is_dir() else None)
        for path in sorted(references.iterdir())
    }


def measure(*paths: Path, **options: Path) -> Measured:
    return evaluate_stains(match_runs(*paths, **options)).run


def test_a_perfect_run_is_perfect(stain_set: Callable[..., Path], stain_run: Callable[..., Path]) -> None:
    references = stain_set(CK)
    found = measure(stain_run(stains_of(references)), references)
    for name in ("SSIM", "DAB r", "Dice", "IoU", "Dice per tile", "DAB Dice", "nuclei r"):
        assert found.get(name).value == pytest.approx(1.0), name
    assert (found.get("MSE").value, found.get("HD95").value) == (0.0, 0.0)
    assert found.masks == {"predicted": 4} and found.reference_masks == {"of the data set": 4}
    assert (found.rejected, found.left_out, found.glass) == ([], {}, 0)


def test_a_worse_run_is_worse_by_what_was_done_to_it(
    stain_set: Callable[..., Path], stain_run: Callable[..., Path]
) -> None:
    references = stain_set(CK)
    real = stains_of(references)
    moved = {
        name: (image - np.uint8(3), np.roll(mask, 2, 1))
        for name, (image, mask) in real.items()
        if mask is not None
    }
    found = measure(stain_run(moved), references)
    assert found.get("MSE").value == 9.0
    overlaps = [
        Overlap.of(moved[name][1], mask) for name, (_, mask) in real.items() if mask is not None
    ]  # fmt: skip
    pooled = dice(*(sum(getattr(o, field) for o in overlaps) for field in ("both", "extra", "missed")))
    assert found.get("Dice").value == pytest.approx(pooled)
    assert 0.5 < pooled < 1.0


def test_references_of_another_stain_and_items_without_one_are_counted(
    stain_set: Callable[..., Path], stain_run: Callable[..., Path], tmp_path: Path
) -> None:
    references = stain_set({**CK, "cd3-0": "cd3", "cd3-1": "cd3"})
    stains = stains_of(references)
    stains["stray"] = stains["ck-0"]
    found = measure(stain_run(stains), references)
    assert found.left_out == {"reference of another stain": 2, "no reference": 1}
    assert len(found.tiles) == 4
    with pytest.raises(InputError, match=r"another stain than 'her2'.*cd3, ck"):
        measure(stain_run(stains, stain="her2", name="her2"), references)
    with pytest.raises(InputError, match=r"no item has a reference of its name: stray"):
        measure(stain_run({"stray": stains["stray"], "x": stains["ck-0"]}, name="stray"), references)
    (tmp_path / "ds" / "manifest.csv").unlink()  # then nobody knows the stains
    assert len(measure(tmp_path / "run", references).tiles) == 6


def test_masks_that_are_not_there_are_derived_and_it_is_said(
    stain_set: Callable[..., Path], stain_run: Callable[..., Path]
) -> None:
    references = stain_set(CK, masks=False)
    stains = {name: (np.roll(image, 1, 0), None) for name, (image, _) in stains_of(references).items()}
    found = measure(stain_run(stains), references)
    assert found.masks == found.reference_masks == {"derived from the stain by its DAB": 4}
    regions = [(coarse_mask(image), coarse_mask(np.roll(image, -1, 0))) for image, _ in stains.values()]
    overlaps = [Overlap.of(*pair) for pair in regions]
    pooled = dice(*(sum(getattr(o, field) for o in overlaps) for field in ("both", "extra", "missed")))
    assert found.get("Dice").value == found.get("DAB Dice").value == pytest.approx(pooled)


def test_the_masks_that_are_named_are_taken(
    stain_set: Callable[..., Path], stain_run: Callable[..., Path], tmp_path: Path
) -> None:
    references = stain_set(CK)
    stains = stains_of(references)
    (tmp_path / "empty").mkdir()
    for name, (_, mask) in stains.items():
        assert mask is not None
        (tmp_path / "empty" / f"{name}.png").write_bytes(png_bytes(mask & False))
    found = measure(stain_run(stains), references, masks=tmp_path / "empty")
    assert (found.get("recall").value, found.get("precision").value) == (None, 0.0)
    assert (found.get("Dice of positive tiles").value, found.get("HD95").count) == (None, 0)


def test_a_folder_of_images_is_as_good_as_a_run(
    stain_set: Callable[..., Path], stain_run: Callable[..., Path], tmp_path: Path
) -> None:
    references = stain_set({"a[1]": "ck", "b": "ck"}, manifest=False)
    run = stain_run(stains_of(references))
    plain = tmp_path / "plain"
    plain.mkdir()
    for name, (image, mask) in stains_of(references).items():
        (plain / f"{name}.png").write_bytes(png_bytes(image))
        assert mask is not None
        (plain / f"{name}.mask.png").write_bytes(png_bytes(mask))
    assert measure(plain, references).scores == measure(run, references).scores
    assert {tile.item for tile in measure(plain, references.parent).tiles} == {"a[1]", "b"}


def test_both_runs_are_measured_where_both_have_an_item(
    stain_set: Callable[..., Path], stain_run: Callable[..., Path]
) -> None:
    references = stain_set(CK)
    stains = stains_of(references)
    noise = np.random.default_rng(0).integers(0, 20, (96, 96, 3), dtype=np.uint8)
    worse = {name: (image - noise, None) for name, (image, _) in list(stains.items())[1:]}
    runs = stain_run(stains), stain_run(worse, name="gan")
    found = evaluate_stains(match_runs(runs[0], references, baseline=runs[1]))
    assert found.baseline is not None
    assert len(found.run.tiles) == len(found.baseline.tiles) == 3
    assert found.run.left_out == {"not in both runs": 1} and found.baseline.left_out == {}
    assert found.run.get("SSIM").value == 1.0 > (found.baseline.get("SSIM").value or 0.0)
    assert found.baseline.masks == {"derived from the stain by its DAB": 3}
    with pytest.raises(InputError, match="no item in common"):
        match_runs(stain_run({"ck-0": stains["ck-0"]}, name="first"), references, baseline=runs[1])


# ---------------------------------------------------------------------------------------------------------
# The command.


def test_the_command_writes_figures_and_tiles(
    stain_set: Callable[..., Path],
    stain_run: Callable[..., Path],
    invoke: Callable[..., Result],
    tmp_path: Path,
) -> None:
    references = stain_set({**CK, "cd3-0": "cd3"})
    run = stain_run(stains_of(references))
    arguments = ("evaluate", run, "--reference", references, "--out", "figures")
    result = invoke(vstain, *arguments, "--baseline", run)
    assert result.exit_code == 0, result.output
    assert "DAB r" in result.stdout and "baseline" in result.stdout
    assert "1 item left out: reference of another stain" in result.stderr
    assert "Masks of the run: predicted (4)" in result.stderr
    figures = json.loads((tmp_path / "figures" / "figures.json").read_text())
    assert figures["figures"]["Dice"]["value"] == figures["baseline"]["figures"]["Dice"]["value"] == 1.0
    assert figures["figures"]["SSIM"]["method"].startswith("mean over tiles; Gaussian window, sigma 1.5")
    assert figures["left_out"] == {"reference of another stain": 1}
    with (tmp_path / "figures" / "tiles.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["item"] for row in rows] == sorted(CK) and {row["dice"] for row in rows} == {"1.0"}
    again = invoke(vstain, *arguments)
    assert again.exit_code == 2 and "--overwrite" in again.output
    summary = invoke(vstain, *arguments, "--overwrite", "--limit", 2, "--json")
    assert json.loads(summary.stdout)["tiles"] == 2
    assert not (tmp_path / "figures" / "baseline.csv").exists()


def test_what_cannot_be_measured_is_named_and_the_rest_goes_on(
    stain_set: Callable[..., Path], stain_run: Callable[..., Path], invoke: Callable[..., Result]
) -> None:
    references = stain_set(CK)
    stains = stains_of(references)
    stains["ck-1"] = (stains["ck-1"][0][:50], None)
    run = stain_run(stains, failures=["is truncated"])
    (run / "items" / "ck-2.png").write_bytes(b"no image")
    result = invoke(vstain, "evaluate", run, "--reference", references, "--out", "figures")
    assert result.exit_code == 3
    for text in ("bad-4: it failed in the run: is truncated", "96 x 96 pixels, but its virtual stain has 96 x 50",
                 "ck-2.png: cannot be read as an image"):  # fmt: skip
        assert text in result.stderr, text
    figures = json.loads(Path("figures/figures.json").read_text())
    assert (figures["tiles"], figures["rejected"]) == (2, 3)
    assert Path("figures/rejected.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("option", ["--reference", "--masks", "--baseline"])
def test_a_path_that_is_not_there_is_a_wrong_option(
    option: str, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    result = invoke(vstain, "evaluate", tmp_path, "--reference", tmp_path, option, tmp_path / "absent")
    assert result.exit_code == 2 and "absent" in result.output


def test_an_empty_folder_is_told(stain_set: Callable[..., Path], tmp_path: Path) -> None:
    references = stain_set(CK)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: there is no image"):
        measure(tmp_path / "empty", references)
    with pytest.raises(InputError, match=r"there is no mask"):
        match_runs(references, references, masks=tmp_path / "empty")
    (references / "ck-0.jpg").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"ck-0.png and ck-0.jpg have one name|ck-0.jpg and ck-0.png have one name"
    ):
        measure(references, references)


def test_stems() -> None:
    names = {
        "a.ome.tif": "a",
        "a.b.png": "a.b",
        "slide.svs": "slide",
        "x[1].TIFF": "x[1]",
        "folder.v2": "folder.v2",
    }
    assert {name: stem_of(Path(name)) for name in names} == names


# ---------------------------------------------------------------------------------------------------------
# Slides.


@pytest.fixture
def write_slide(tmp_path: Path) -> Callable[..., Path]:
    """``write_slide("a.tif", pixels, mpp=0.5)``: a pyramid of one level."""
    from polydit.vstain.slides.writing import RawRaster, write_pyramid

    def write(name: str, pixels: np.ndarray, *, mpp: float = 0.5) -> Path:
        height, width, channels = pixels.shape
        (tmp_path / "raw").write_bytes(pixels.tobytes())
        raster = RawRaster(tmp_path / "raw", width, height, channels)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_pyramid(tmp_path / name, [raster], mpp=mpp, format="ome" if ".ome." in name else "tiff")
        return tmp_path / name

    return write


def test_a_slide_is_measured_tile_by_tile_and_its_glass_is_left_out(
    write_slide: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "TILE", 128)
    monkeypatch.setattr(pictures, "MOST_WHOLE", 256 * 256)
    place = (slice(150, 250), slice(270, 370))
    tissue = render(1, 1000, 2000, 100, 100, "ck", coverage=1.0)
    real, mask = np.full((300, 700, 3), 245, np.uint8), np.zeros((300, 700, 1), np.uint8)
    real[place], mask[(*place, 0)] = tissue.ihc, tissue.mask * np.uint8(255)
    reference = write_slide("real.ome.tif", real)
    files = {
        ".ome.tif": write_slide("virtual.ome.tif", real - np.uint8(2)).read_bytes(),
        ".mask.tif": write_slide("mask.tif", mask).read_bytes(),
        ".thumbnail.png": png_bytes(real[::4, ::4]),
        ".json": b"{}",
    }
    with RunFolder.open(tmp_path / "run", command="vstain run", options={}, provenance={}) as folder:
        folder.commit([ItemResult(id="biopsy", index=0, seed=0, files=files)])
    found = measure(tmp_path / "run", reference)  # one slide, one reference: names may differ
    assert [(tile.x, tile.y) for tile in found.tiles] == [(256, 128)]
    assert (found.glass, found.masks) == (6 * 3 - 1, {"predicted": 1})
    assert found.get("MSE").value == pytest.approx(4.0)
    assert measure(tmp_path / "run", reference, masks=tmp_path / "mask.tif").get("Dice").value == 1.0
    assert found.tiles[0].both + found.tiles[0].extra == tissue.mask.sum()


def test_a_reference_is_read_at_the_resolution_of_the_stain(write_slide: Callable[..., Path]) -> None:
    tissue = render(1, 1000, 2000, 128, 128, "ck", coverage=1.0).ihc
    run = write_slide("run/x.tif", tissue).parent
    finer = write_slide("real/x.tif", np.repeat(np.repeat(tissue, 2, 0), 2, 1), mpp=0.25)
    found = measure(run, finer.parent)
    assert found.rejected == []
    assert (found.get("SSIM").value or 0.0) > 0.95
    unknown = measure(run, write_slide("other/x.tif", tissue[:100], mpp=0.5).parent)
    assert "128 x 100 pixels" in unknown.rejected[0].reason
