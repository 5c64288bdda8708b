"""Slides and images of every kind come in as 8-bit colours at the resolution that is asked for, or are refused."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8
from PIL import Image

from polydit.core.errors import InputError, MissingExtraError
from polydit.vstain.data.tissue import render
from polydit.vstain.slides import image_source
from polydit.vstain.slides.reading import open_slide
from polydit.vstain.slides.writing import build_levels, write_pyramid

WIDTH, HEIGHT = 300, 220
HALF_MICRON = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}


@pytest.fixture(scope="module")
def he() -> UInt8[np.ndarray, "h w 3"]:
    return render(0, 0, 0, WIDTH, HEIGHT, "ck").he


def whole(path: Path, mpp: float | None = 0.5) -> UInt8[np.ndarray, "h w 3"]:
    with open_slide(path, mpp=mpp) as slide:
        assert slide.mpp is not None
        return slide.read(0, 0, *slide.size, mpp=slide.mpp)


class InMemory:
    """An array as what a pyramid is made from."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.height, self.width, self.channels = pixels.shape

    def window(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self.pixels[y : y + height, x : x + width]


EXACT: dict[str, dict[str, Any]] = {
    "raw": {},
    "tiles": {"tile": (64, 64), "compression": "zlib"},
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
    "predicted": {"tile": (64, 64), "compression": "zlib", "predictor": True},
}


@pytest.mark.parametrize("name", EXACT)
def test_tiff_reads_back_exactly(tmp_path: Path, he: np.ndarray, name: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, he, photometric="rgb", **EXACT[name])
    assert np.array_equal(whole(path), he)
    with open_slide(path, mpp=0.5) as slide:
        assert np.array_equal(slide.read(33, 51, 120, 90, mpp=0.5), he[51:141, 33:153])


def test_other_kinds_of_pixels(tmp_path: Path, he: np.ndarray) -> None:
    grey = he[..., 1]
    opaque = np.full(grey.shape, 255, np.uint8)
    glass = opaque.copy()
    glass[:100] = 0
    kinds: dict[str, tuple[np.ndarray, dict[str, Any], np.ndarray]] = {
        "16 bits": (he.astype(np.uint16) * 257, {"photometric": "rgb"}, he),
        "planes": (
            np.ascontiguousarray(he.transpose(2, 0, 1)),
            {"photometric": "rgb", "planarconfig": "separate", "tile": (64, 64)},
            he,
        ),
        "grey": (grey, {}, np.repeat(grey[..., None], 3, axis=2)),
        "white is zero": (255 - grey, {"photometric": "miniswhite"}, np.repeat(grey[..., None], 3, axis=2)),
        "transparent": (
            np.dstack([he, glass]),
            {"photometric": "rgb", "extrasamples": ["unassalpha"]},
            np.where(glass[..., None] > 0, he, 255),
        ),
    }
    for name, (pixels, options, expected) in kinds.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, pixels, **options)
        assert np.array_equal(whole(path), expected), name


def test_palettes_transparency_and_16_bits_of_plain_images(tmp_path: Path, he: np.ndarray) -> None:
    palette = Image.fromarray(he).quantize(32)
    for name in ("p.png", "p.tif"):
        palette.save(tmp_path / name)
        assert np.array_equal(whole(tmp_path / name), np.asarray(palette.convert("RGB")))
    Image.fromarray(np.dstack([he, np.zeros((HEIGHT, WIDTH), np.uint8)])).save(tmp_path / "clear.png")
    assert whole(tmp_path / "clear.png").min() == 255
    Image.fromarray(he[..., 0].astype(np.uint16) * 257).save(tmp_path / "grey.png")
    assert np.array_equal(whole(tmp_path / "grey.png"), np.repeat(he[..., :1], 3, axis=2))


def test_a_codec_that_tifffile_lacks_is_left_to_another_reader(tmp_path: Path, he: np.ndarray) -> None:
    path = tmp_path / "lzw.tif"
    Image.fromarray(he).save(path, compression="tiff_lzw")
    assert np.array_equal(whole(path), he)


def test_a_codec_that_nobody_has_is_named(tmp_path: Path, he: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, he, photometric="rgb", compression="zlib")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].tags["Compression"].valueoffset
    content[offset : offset + 2] = struct.pack("<H", 50002)  # JPEG XL
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"packed by JPEGXL.*pip install imagecodecs"):
        open_slide(path)


def test_a_vendor_file_without_openslide_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(b"II*\0")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(MissingExtraError, match=r'pip install "polydit-vstain\[wsi\]"'):
        open_slide(path)


def test_openslide_reads_a_vendor_ending(tmp_path: Path, he: np.ndarray) -> None:
    pytest.importorskip("openslide")
    path = tmp_path / "a.svs"
    tifffile.imwrite(path, he, photometric="rgb", tile=(64, 64), compression="zlib", **HALF_MICRON)
    assert np.array_equal(whole(path, mpp=None), he)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="OpenSlide cannot read it"):
        open_slide(path)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_files_are_refused_before_a_pixel_is_read(
    tmp_path: Path, he: np.ndarray, share: float
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, he, photometric="rgb", tile=(64, 64), compression="zlib")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"truncated|cannot be read"):
        open_slide(path)


def test_damaged_pixels_are_an_error_of_the_input(tmp_path: Path, he: np.ndarray) -> None:
    tiff, png = tmp_path / "a.tif", tmp_path / "a.png"
    tifffile.imwrite(tiff, he, photometric="rgb", compression="zlib")
    with tifffile.TiffFile(tiff) as file:
        offset = file.pages[0].dataoffsets[0]
    content = bytearray(tiff.read_bytes())
    content[offset : offset + 20] = bytes(20)
    tiff.write_bytes(content)
    Image.fromarray(he).save(png)
    png.write_bytes(png.read_bytes()[:2000])
    for path in (tiff, png):
        with pytest.raises(InputError, match="damaged"):
            whole(path)


def test_what_is_no_slide_is_refused(tmp_path: Path, he: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "thin.tif", he[:, :1], photometric="rgb")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([he[..., 0]] * 5))
    tifffile.imwrite(tmp_path / "real.tif", he.astype(np.float32), photometric="rgb")
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    for name, problem in {
        "thin.tif": "is 1 x 220 pixels; expected at least 16",
        "stack.tif": "stack with the axes",
        "real.tif": "samples of type float32",
        "text.tif": "cannot be read as TIFF",
        "text.png": "cannot be read as an image",
        "notes.txt": "is no slide or image",
        "absent.tif": "there is no such file",
    }.items():
        with pytest.raises(InputError, match=problem):
            open_slide(tmp_path / name)


def test_bombs_are_refused_without_memory_for_them(
    tmp_path: Path, he: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_source, "MOST_PIXELS", WIDTH * HEIGHT - 1)
    Image.fromarray(he).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"300 x 220 pixels.*tiled TIFF"):
        open_slide(tmp_path / "a.png")
    strip = tmp_path / "strip.tif"  # one strip of 30,000 x 30,000 pixels that are claimed and not there
    tifffile.imwrite(strip, shape=(30_000, 30_000), dtype=np.uint8, rowsperstrip=30_000, data=None)
    with pytest.raises(InputError, match=r"pieces of 30000 x 30000 pixels.*tiles"):
        open_slide(strip)


def test_a_piece_that_unpacks_to_more_than_it_may_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    packed = zlib.compress(bytes(400 << 20), 1)
    assert len(packed) > 256 << 10
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        places = {name: (tags[name].valueoffset) for name in ("TileOffsets", "TileByteCounts")}
    content = bytearray(path.read_bytes())
    content[places["TileOffsets"] : places["TileOffsets"] + 4] = struct.pack("<I", len(content))
    content[places["TileByteCounts"] : places["TileByteCounts"] + 4] = struct.pack("<I", len(packed))
    path.write_bytes(bytes(content) + packed)
    with pytest.raises(InputError, match="unpacks to more than its 4,096 bytes"):
        whole(path)


def test_microns_per_pixel_come_from_wherever_the_file_says_them(tmp_path: Path, he: np.ndarray) -> None:
    def mpp(name: str, **options: Any) -> float | None:
        tifffile.imwrite(tmp_path / name, he, photometric="rgb", **options)
        with open_slide(tmp_path / name) as slide:
            return slide.mpp

    sizes = {"axes": "YXS", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    assert mpp("ome.ome.tif", metadata={**sizes, "PhysicalSizeYUnit": "µm"}) == pytest.approx(0.25)
    assert mpp("cm.tif", **HALF_MICRON) == pytest.approx(0.5)
    assert mpp("inch.tif", resolution=(101_600, 101_600), resolutionunit="INCH") == pytest.approx(0.25)
    assert mpp("printer.tif", resolution=(72, 72), resolutionunit="INCH") is None
    assert mpp("silent.tif") is None
    with pytest.raises(InputError, match="square ones"):
        mpp("oblong.tif", resolution=(2e4, 1e4), resolutionunit="CENTIMETER")


def test_a_slide_without_microns_asks_for_them(tmp_path: Path, he: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", he, photometric="rgb")
    with open_slide(tmp_path / "a.tif") as slide, pytest.raises(InputError, match=r"--mpp 0\.5"):
        slide.read(0, 0, 8, 8, mpp=0.5)


def test_windows_agree_wherever_they_are_cut_and_beyond_is_glass(tmp_path: Path, he: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, he, photometric="rgb", tile=(64, 64), **HALF_MICRON)
    with open_slide(path) as slide:
        for mpp in (0.5, 1.0, 0.37, 1.63):
            width, height = slide.size_at(mpp)
            large = slide.read(-10, -10, width + 20, height + 20, mpp=mpp, outside=(1, 2, 3))
            small = slide.read(17, 23, 50, 40, mpp=mpp, outside=(1, 2, 3))
            difference = np.abs(large[33:73, 27:77].astype(int) - small)
            assert difference.max() <= (1 if mpp in (0.37, 1.63) else 0)  # Pillow rounds the window's place
            assert np.array_equal(large[0, 0], (1, 2, 3))
        assert slide.read(500, 500, 8, 8, mpp=0.5).min() == 255


def test_the_coarsest_level_with_the_detail_is_read(tmp_path: Path) -> None:
    he = render(0, 0, 0, 1400, 1100, "ck").he
    path = tmp_path / "a.tif"
    write_pyramid(path, build_levels(InMemory(he), tmp_path / "levels"), mpp=0.25, format="tiff")
    with open_slide(path) as slide:
        assert [round(level.downsample, 6) for level in slide.levels] == [1.0, 2.0, 4.0]
        assert slide.working_mpp(0.505) == pytest.approx(0.5)  # of level 1; scanners differ by as much
        assert slide.working_mpp(0.6) == 0.6
        half = slide.read(0, 0, 700, 550, mpp=0.5)
    means = he.reshape(550, 2, 700, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - means).max() <= 0.5
