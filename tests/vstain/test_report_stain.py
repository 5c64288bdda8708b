"""The report of a run: complete, truthful, of bounded size, and alive in a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from polydit.core.cli.config import Option
from polydit.core.errors import InputError
from polydit.core.jobs import ItemFailure, ItemResult, RunFolder
from polydit.core.testing.browser import find_chromium, start_browser
from polydit.core.testing.pages import page_problems
from polydit.vstain.cli import vstain
from polydit.vstain.colour import dab
from polydit.vstain.data.images import png_bytes
from polydit.vstain.data.tissue import render
from polydit.vstain.evaluate.inputs import Virtual, read_virtual
from polydit.vstain.report import page as report_page
from polydit.vstain.report import write_report
from polydit.vstain.report.drawings import DARKEST, dab_map, outlined
from polydit.vstain.report.views import detail

EVIL = "<script>alert(1)</script>"
SIDE = 96


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``make_run(4)``: a data set of so many tiles in ds/test, and a run over them with a little noise."""

    def make(
        number: int, *, failures: Sequence[str] = (), masks: bool = True, noise: int = 5, name: str = "run"
    ) -> Path:
        outcomes: list[ItemResult | ItemFailure] = []
        for index in range(number):
            item, tile = (
                f"ck-{index:03d}",
                render(3, 4000 + index * SIDE, 900, SIDE, SIDE, "ck", coverage=1.0),
            )
            for part, image in (("HE", tile.he), ("IHC", tile.ihc), ("mask", tile.mask)):
                (tmp_path / "ds" / "test" / part).mkdir(parents=True, exist_ok=True)
                (tmp_path / "ds" / "test" / part / f"{item}.png").write_bytes(png_bytes(image))
            blur = np.random.default_rng(index).integers(
                0, 1 + noise * (1 + index), tile.ihc.shape, dtype=np.uint8
            )
            files = {".png": png_bytes(tile.ihc - np.minimum(blur, tile.ihc)), ".json": b"{}"}
            files |= {".mask.png": png_bytes(tile.mask)} if masks else {}
            source = {
                "path": str(tmp_path / "ds" / "test" / "HE" / f"{item}.png"),
                "sha256": "0" * 64,
                "bytes": 1,
            }
            measures = {
                "kind": "image",
                "stain": "ck",
                "seed": 70,
                "width": SIDE,
                "positive_area_percent": 12.345,
            }
            result = ItemResult(
                id=item, index=index, seed=index, files=files, measures=measures, inputs=[source]
            )  # fmt: skip
            outcomes.append(result)
        for index, reason in enumerate(failures, number):
            outcomes.append(
                ItemFailure(id=f"bad-{index}", index=index, seed=0, error="Unreadable", message=reason)
            )
        options = {"stain": Option("ck", "command line"), "note": Option(EVIL, "environment")}
        provenance = {"checkpoint": {"name": "tiny", "sha256": "0" * 64, "licence": "Apache-2.0"}}
        with RunFolder.open(
            tmp_path / name, command="vstain run", options=options, provenance=provenance
        ) as folder:
            folder.commit(outcomes)
        return tmp_path / name

    return make


def figures_of(page: Path) -> Any:
    return json.loads(page.with_name("figures.json").read_text())


def test_the_report_without_a_reference(make_run: Callable[..., Path]) -> None:
    page = write_report(make_run(3, failures=[f"is truncated {EVIL}"]))
    html = page.read_text()
    assert page_problems(html) == []
    for text in (
        "3 stains", "checkpoint tiny", "ck-002", "predicted mask", "positive area (%)", "12.35",
        "is truncated &lt;script&gt;", "bad-3", "They are not for diagnosis.", "Apache-2.0", "command line",
        'href="items/ck-000.mask.png"', "Move the slider", "H&amp;E of ck-000",
    ):  # fmt: skip
        assert text in html, text
    assert EVIL not in html
    assert html.count('class="compare"') == 3 and html.count("data:image/jpeg") == 3 * 4
    assert "Worst tiles" not in html and ">Figures<" not in html
    assert figures_of(page) == {"items": 3, "failed": 1, "evaluation": None}


def test_with_a_reference_there_are_figures_and_the_worst_tiles(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run, baseline = make_run(5), make_run(5, noise=12, masks=False, name="gan")
    page = write_report(run, reference=tmp_path / "ds" / "test" / "IHC", baseline=baseline, limit=4)
    html = page.read_text()
    assert page_problems(html) == []
    found = figures_of(page)["evaluation"]
    assert (
        found["tiles"] == 4
        and found["figures"]["SSIM"]["value"] > found["baseline"]["figures"]["SSIM"]["value"]
    )
    for text in (
        "DAB r",
        "Baseline",
        "Dice (baseline",
        "Masks of the baseline: derived from the stain by its DAB (4)",
    ):
        assert text in html, text
    worst, best = html.split(">Worst tiles</h2>")[1].split(">Best tiles</h2>")
    assert "ck-003" in worst and "ck-002" in worst and "real stain of ck-003" in worst
    assert "ck-000" in best.split("</section>")[0] and "ck-003" not in best.split("</section>")[0]


def test_masks_by_dab_are_called_so(make_run: Callable[..., Path]) -> None:
    html = write_report(make_run(1, masks=False)).read_text()
    assert "mask by DAB" in html and "predicted mask" not in html


def test_h_and_e_that_is_gone_leaves_the_stain_alone(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(3)
    (tmp_path / "ds" / "test" / "HE" / "ck-001.png").unlink()
    (run / "items" / "ck-002.png").write_bytes(b"no image")
    html = write_report(run).read_text()
    assert page_problems(html) == []
    assert html.count('class="compare"') == 1 and 'alt="Virtual stain of ck-001"' in html
    assert "ck-002" in html.split(">Failures</h2>")[1]


def test_nothing_made_is_a_report_too(make_run: Callable[..., Path], tmp_path: Path) -> None:
    html = write_report(make_run(0, failures=["empty"] * 3)).read_text()
    assert page_problems(html) == [] and html.count("empty") == 3
    with pytest.raises(InputError, match=r"run\.json"):
        write_report(tmp_path)


def test_the_page_does_not_grow_with_the_run(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_page, "MOST_SHOWN", 2)
    html = write_report(make_run(6)).read_text()
    assert html.count('class="compare"') == 2 and "The first 2 of 6" in html and "ck-005" in html


def test_a_slide_shows_its_thumbnails_and_the_place_of_most_dab(tmp_path: Path) -> None:
    from polydit.vstain.slides.writing import RawRaster, build_levels, write_pyramid

    def pyramid(name: str, pixels: np.ndarray) -> Path:
        (tmp_path / "raw").write_bytes(pixels.tobytes())
        height, width, channels = pixels.shape
        levels = build_levels(
            RawRaster(tmp_path / "raw", width, height, channels), tmp_path / f"levels-{name}"
        )
        write_pyramid(tmp_path / name, levels, mpp=0.5, format="tiff")
        return tmp_path / name

    tile = render(3, 4000, 900, 200, 200, "ck", coverage=1.0)
    he, ihc = (np.full((800, 1200, 3), 245, np.uint8) for _ in range(2))
    he[560:760, 950:1150], ihc[560:760, 950:1150] = tile.he, tile.ihc
    mask = np.zeros((800, 1200, 1), np.uint8)
    mask[560:760, 950:1150, 0] = tile.mask * np.uint8(255)
    source = {"path": str(pyramid("he.tif", he)), "sha256": "0" * 64, "bytes": 1}
    files = {".ome.tif": pyramid("ihc.tif", ihc), ".mask.tif": pyramid("mask.tif", mask), ".geojson": b"{}",
             ".thumbnail.png": png_bytes(ihc[::2, ::2]), ".he.thumbnail.png": png_bytes(he[::2, ::2])}  # fmt: skip
    contents = {end: made.read_bytes() if isinstance(made, Path) else made for end, made in files.items()}
    measures = {"kind": "slide", "stain": "ck", "tiles_run": 7, "tiles_skipped": 33, "input_mpp": 0.5}
    with RunFolder.open(tmp_path / "run", command="vstain run", options={}, provenance={}) as folder:
        folder.commit(
            [ItemResult(id="biopsy", index=0, seed=0, files=contents, measures=measures, inputs=[source])]
        )
    html = write_report(tmp_path / "run").read_text()
    assert page_problems(html) == []
    assert html.count('class="compare"') == 2 and "H&amp;E of biopsy, the place of most DAB" in html
    for text in ("tiles skipped", ">33<", "OME.TIF", "GEOJSON", "HE.THUMBNAIL.PNG"):
        assert text in html, text
    near = detail(next(item for item in read_virtual(tmp_path / "run") if isinstance(item, Virtual)))
    assert near is not None and near.ihc.shape == (512, 512, 3)
    assert (near.ihc < 150).any() and near.mask.sum() == tile.mask.sum() and near.predicted


def test_the_command_says_where_and_refuses_a_baseline_alone(
    make_run: Callable[..., Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    run = make_run(2)
    reference = tmp_path / "ds" / "test"
    result = invoke(
        vstain, "report", run, "--reference", reference, "--out", tmp_path / "page.html", "--json"
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert json.loads(Path(summary["figures"]).read_text())["evaluation"]["tiles"] == 2
    assert Path(summary["report"]) == tmp_path / "page.html" and not (run / "report.html").exists()
    alone = invoke(vstain, "report", run, "--baseline", run)
    assert alone.exit_code == 2 and "--baseline" in alone.output


def test_the_map_of_dab_goes_from_white_to_its_darkest() -> None:
    vector = np.array([0.27, 0.57, 0.78])
    densities = np.array([0.0, 0.3, 0.6, 0.9, DARKEST, 2.0])
    image = np.rint(255 * 10 ** (-densities[:, None] * vector)).astype(np.uint8)[None]
    colours = dab_map(image)[0].astype(int).sum(axis=1)
    assert (np.diff(colours)[:4] < 0).all() and colours[0] > 750 and abs(colours[-1] - colours[-2]) < 12
    assert dab(image).shape == dab_map(image).shape[:2]


def test_an_outline_is_drawn_over_the_image_and_nothing_else_changes() -> None:
    image, mask = np.full((20, 20, 3), 200, np.uint8), np.zeros((20, 20), bool)
    mask[5:10, 5:12] = True
    changed = (outlined(image, mask) != image).any(axis=2)
    assert changed.sum() == 2 * (5 + 7) - 4 and not changed[6:9, 6:11].any() and not changed[~mask].any()
    assert (image == 200).all()


@pytest.mark.skipif(
    find_chromium() is None, reason="no chromium on the PATH (Debian: apt-get install chromium)"
)
def test_the_page_lives_in_a_browser(make_run: Callable[..., Path], tmp_path: Path) -> None:
    page = write_report(make_run(4), reference=tmp_path / "ds" / "test" / "IHC")
    with start_browser() as browser:
        browser.open(page)
        assert browser.evaluate(
            "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
        )
        assert browser.evaluate("document.querySelectorAll('.compare').length") == 4 + 2 * 2
        browser.evaluate("document.querySelector('.compare input').focus()")
        for _ in range(3):
            browser.key("ArrowRight")
        at = "getComputedStyle(document.querySelector('.compare .stack')).getPropertyValue('--at')"
        assert browser.evaluate("document.querySelector('.compare input').value") == "53"
        assert browser.evaluate(at) == "53%"
        assert browser.complaints == []
        assert [url for url in browser.requests if not url.startswith("data:")] == [page.resolve().as_uri()]
