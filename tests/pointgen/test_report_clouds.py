"""The report of a run: complete, truthful, and no larger for a larger run."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from polydit.core.cli.config import Option
from polydit.core.errors import InputError
from polydit.core.jobs import ItemFailure, ItemResult, RunFolder
from polydit.core.report import RAMP
from polydit.core.testing.pages import page_problems
from polydit.pointgen.cli import pointgen
from polydit.pointgen.cloud import Cloud
from polydit.pointgen.data.writers import render
from polydit.pointgen.report import write_report
from polydit.pointgen.report.neighbours import nearest_training_shapes
from polydit.pointgen.report.thumbnails import VIEW, thumbnail

EVIL = "<script>alert(1)</script>"


def shape(kind: str, seed: int, points: int = 300) -> Cloud:
    """A ball ("chair") or a plate ("table"), each stretched in its own way."""
    rng = np.random.default_rng([seed, len(kind), ord(kind[0])])
    found = rng.normal(size=(points, 3))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    stretch = rng.uniform(0.3, 0.5, 3) * (np.array([1.0, 0.1, 1.0]) if kind == "table" else 1.0)
    return Cloud(id=f"{kind}-{seed:06d}", points=(found * stretch).astype(np.float32), category=kind)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``make_run(clouds, failures=("why",))``: a run folder as `pointgen sample` leaves it."""

    def make(
        clouds: Sequence[Cloud],
        failures: Sequence[str] = (),
        more: Mapping[str, Any] | None = None,
        name: str = "run",
    ) -> Path:
        out = tmp_path / name
        options = {"num_samples": Option(len(clouds), "command line"), "note": Option(EVIL, "environment")}
        outcomes: list[ItemResult | ItemFailure] = []
        for index, cloud in enumerate(clouds):
            measures = {"category": cloud.category, "num_points": cloud.num_points, "size": [1.0, 0.5, 0.25]}
            outcomes.append(
                ItemResult(
                    id=cloud.id,
                    index=index,
                    seed=index + 7000,
                    files={".ply": render(cloud, "ply"), ".glb": render(cloud, "glb")},
                    measures={**measures, **(more or {})},
                )
            )
        for index, reason in enumerate(failures, len(clouds)):
            outcomes.append(
                ItemFailure(
                    id=f"chair-{index:06d}",
                    index=index,
                    seed=0,
                    error="NoCloud",
                    message=reason,
                    measures={"category": "chair"},
                )
            )
        provenance = {"checkpoint": {"name": "tiny", "sha256": "0" * 64, "licence": "Apache-2.0"}}
        with RunFolder.open(out, command="pointgen sample", options=options, provenance=provenance) as folder:
            folder.commit(outcomes)
        return out

    return make


@pytest.fixture
def training_set(tmp_path: Path) -> Path:
    """Ten balls and ten plates in PointFlow's layout; of the stored points two thirds are for training."""
    for kind, folder in (("chair", "03001627"), ("table", "04379243")):
        (tmp_path / "ds" / folder / "train").mkdir(parents=True)
        for seed in range(10):
            np.save(
                tmp_path / "ds" / folder / "train" / f"{kind}-t{seed}.npy",
                shape(kind, 100 + seed, 900).points,
            )
    return tmp_path / "ds"


def test_the_report_is_complete(make_run: Callable[..., Path]) -> None:
    run = make_run(
        [*(shape("chair", k) for k in range(3)), shape("table", 0)], ["9 of 9 points are not finite"]
    )
    page = write_report(run)
    html = page.read_text()
    assert page_problems(html) == []
    for text in (
        "4 clouds", "checkpoint tiny", "chair-000002", "table-000000", "7003",  # what was made, from which seed
        "1.00 × 0.50 × 0.25", "not finite", "chair-000004",  # sizes and failures
        "num-samples", "command line", "Apache-2.0", 'href="items/table-000000.ply"', ">GLB<", "torch",
    ):  # fmt: skip
        assert text in html, text
    assert html.count('class="viewer"') == 4
    assert html.count("data:image/png;base64,") == 4
    figures = json.loads(page.with_name("figures.json").read_text())
    assert figures["categories"] == {
        "chair": {"clouds": 3, "failed": 1},
        "table": {"clouds": 1, "failed": 0},
    }
    assert (figures["samples"], figures["failed"], figures["nearest_training_shapes"]) == (4, 1, None)


def test_text_from_files_is_never_a_tag(make_run: Callable[..., Path]) -> None:
    cloud = Cloud(id=EVIL, points=shape("chair", 0).points, category=EVIL)
    html = write_report(make_run([cloud], [EVIL])).read_text()
    assert page_problems(html) == []
    assert EVIL not in html and html.count("&lt;script&gt;alert(1)") >= 4


def test_known_points_have_their_own_colour(make_run: Callable[..., Path]) -> None:
    html = write_report(make_run([shape("chair", 0)], more={"known_points": 60})).read_text()
    assert "points that were given are red" in html and "of them given" in html
    scene = json.loads(html.split('<script type="application/json">')[1].split("</script>")[0])
    colours = np.frombuffer(base64.b64decode(scene["colours"]), np.uint8)
    assert (colours[:60] == len(RAMP)).all() and (colours[60:] < len(RAMP)).all()


def test_a_file_that_is_gone_is_a_failure_and_no_more(make_run: Callable[..., Path]) -> None:
    run = make_run([shape("chair", k) for k in range(3)])
    for ending in ("ply", "glb"):
        (run / "items" / f"chair-000000.{ending}").unlink()
    (run / "items" / "chair-000001.ply").write_bytes(b"ply\n")
    html = write_report(run).read_text()
    assert html.count('class="viewer"') == 1
    failures = html.split(">Failures</h2>")[1]
    assert "chair-000000" in failures and "chair-000001" in failures


def test_nothing_made_is_a_report_too(make_run: Callable[..., Path], tmp_path: Path) -> None:
    assert page_problems(write_report(make_run([])).read_text()) == []
    html = write_report(make_run([], ["empty"] * 250, name="failed")).read_text()
    assert html.count("empty") == 200 and "And 50 more" in html
    with pytest.raises(InputError, match=r"run\.json"):
        write_report(tmp_path)


def test_the_page_does_not_grow_with_the_run(make_run: Callable[..., Path]) -> None:
    clouds = [shape("chair", k, 100) for k in range(150)]
    small = len(write_report(make_run(clouds[:125])).read_text())
    html = write_report(make_run(clouds, name="large")).read_text()
    assert len(html) < 1.01 * small
    assert "The first 120 of 150" in html and "The first 48 of 150" in html


def test_a_view_has_at_most_4096_points(make_run: Callable[..., Path]) -> None:
    html = write_report(make_run([shape("chair", 0, 9000)])).read_text()
    assert "at most 4,096 points" in html and "9,000" in html
    assert len(html) < 150_000


# ---------------------------------------------------------------------------------------------------------
# The nearest training shapes.


def test_a_remembered_shape_is_found_out(make_run: Callable[..., Path], training_set: Path) -> None:
    copied = np.load(training_set / "03001627" / "train" / "chair-t3.npy")[:600]
    remembered = Cloud(id="chair-000001", points=copied, category="chair")
    run = make_run([shape("chair", 0), remembered, shape("table", 0)])
    html = write_report(run, train=training_set).read_text()
    assert page_problems(html) == []
    figures = json.loads((run / "figures.json").read_text())["nearest_training_shapes"]
    found = figures["samples"]
    assert found["chair-000001"] == {"training shape": "chair-t3", "distance": 0.0}
    assert found["chair-000000"]["distance"] > 0 and found["table-000000"]["training shape"].startswith(
        "table"
    )
    assert figures["searched"] == 20 and figures["median_of_training_shapes"] > 0
    assert html.count(">near a training shape<") >= 1
    assert html.count("data:image/png;base64,") == 6  # each sample, and its neighbour beside it


def test_the_nearest_is_the_nearest_of_all(training_set: Path) -> None:
    from polydit.pointgen.data.readers import read_clouds
    from polydit.pointgen.evaluate.chamfer import chamfer_matrix

    samples = [shape("chair", k, 600) for k in range(6)]
    train = [c for c in read_clouds(training_set, category="chair", split="train") if isinstance(c, Cloud)]
    matrix = chamfer_matrix([c.points for c in samples], [c.points for c in train])
    found = nearest_training_shapes(samples, training_set).of
    for row, sample in zip(matrix, samples, strict=True):
        assert found[sample.id].distance == pytest.approx(row.min(), rel=1e-6)
        assert found[sample.id].cloud.id == train[int(row.argmin())].id


def test_the_limit_bounds_the_comparison_and_the_command_says_where(
    make_run: Callable[..., Path], training_set: Path, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    run = make_run([shape("chair", k) for k in range(4)])
    arguments = (run, "--train", training_set, "--limit", 2, "--out", tmp_path / "page.html", "--json")
    result = invoke(pointgen, "report", *arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    figures = json.loads(Path(summary["figures"]).read_text())
    assert list(figures["nearest_training_shapes"]["samples"]) == ["chair-000000", "chair-000001"]
    assert Path(summary["report"]) == tmp_path / "page.html" and not (run / "report.html").exists()
    assert invoke(pointgen, "report", tmp_path / "ds").exit_code == 2


# ---------------------------------------------------------------------------------------------------------
# Thumbnails.


def pixels(png: bytes) -> np.ndarray:
    """Colour numbers of an indexed PNG, read without a library."""
    handle, chunks = io.BytesIO(png), dict[bytes, bytes]()
    assert handle.read(8) == b"\x89PNG\r\n\x1a\n"
    while header := handle.read(8):
        size, name = int.from_bytes(header[:4], "big"), header[4:]
        chunks[name] = handle.read(size)
        assert int.from_bytes(handle.read(4), "big") == zlib.crc32(name + chunks[name])
    width, height = (int.from_bytes(chunks[b"IHDR"][k : k + 4], "big") for k in (0, 4))
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any() and lines.max() < len(chunks[b"PLTE"]) / 3 <= 256
    return lines[:, 1:]


def test_a_thumbnail_shows_the_nearest_points() -> None:
    """Two plates, one behind the other: only the front one is seen where both are."""
    flat = np.random.default_rng(0).uniform(-1, 1, (20000, 2))
    seen = np.concatenate([np.c_[flat, np.full(20000, depth)] for depth in (-1.0, 1.0)])
    colours = np.repeat(np.uint8([0, 1]), 20000)
    picture = pixels(thumbnail(seen @ np.linalg.inv(VIEW).T, colours, ["#ff0000", "#0000ff"], size=64))
    middle = picture[48:80, 48:80]
    assert (middle > 6).mean() > 0.99  # numbers 1 to 6 are the levels of the first colour
    assert (picture == 0).mean() > 0.02  # the ground is left transparent


def test_thumbnails_of_nothing_and_of_one_place() -> None:
    assert not pixels(thumbnail(np.zeros((0, 3)), np.zeros(0, np.uint8), RAMP)).any()
    assert pixels(thumbnail(np.ones((5, 3)), np.zeros(5, np.uint8), RAMP)).any()
