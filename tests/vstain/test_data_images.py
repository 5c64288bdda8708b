"""Image files of every kind that a user may bring, and those that must be refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from polydit.core.errors import InputError
from polydit.vstain.data.images import (
    image_size,
    png_bytes,
    read_mask,
    read_rgb,
    resized,
    resized_mask,
)

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("ending", ["png", "tif", "tiff"])
def test_colours_come_back(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"[1,2]_a+.{ending}"
    Image.fromarray(COLOURS).save(path)
    assert np.array_equal(read_rgb(path), COLOURS)
    assert image_size(path) == (9, 6)


def test_our_png_comes_back(tmp_path: Path) -> None:
    mask = COLOURS[..., 0] > 100
    (tmp_path / "a.png").write_bytes(png_bytes(COLOURS))
    (tmp_path / "m.png").write_bytes(png_bytes(mask))
    assert np.array_equal(read_rgb(tmp_path / "a.png"), COLOURS)
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)
    with Image.open(tmp_path / "m.png") as stored:
        assert stored.mode == "L" and set(np.unique(stored)) == {0, 255}


def test_a_palette_gives_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS).quantize(16)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_what_is_transparent_is_glass(tmp_path: Path) -> None:
    opacity = np.zeros((6, 9, 1), np.uint8)
    opacity[:, :4] = 255
    Image.fromarray(np.concatenate([COLOURS, opacity], axis=2)).save(tmp_path / "a.png")
    read = read_rgb(tmp_path / "a.png")
    assert np.array_equal(read[:, :4], COLOURS[:, :4]) and (read[:, 4:] == 255).all()
    Image.fromarray(COLOURS).quantize(4).save(tmp_path / "p.png", transparency=0)
    clear = np.asarray(Image.open(tmp_path / "p.png")) == 0
    assert clear.any() and (read_rgb(tmp_path / "p.png")[clear] == 255).all()


def test_a_png_of_16_bits_gives_the_upper_8(tmp_path: Path) -> None:
    deep = (COLOURS.astype(">u2") << 8) + 77
    rows = b"".join(b"\0" + row.tobytes() for row in deep.astype(">u2"))
    (tmp_path / "a.png").write_bytes(png(9, 6, 16, 2, zlib.compress(rows)))
    assert np.array_equal(read_rgb(tmp_path / "a.png"), COLOURS)


def test_other_16_bit_and_grey_images_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb16.tif", COLOURS.astype(np.uint16) << 4, photometric="rgb")
    Image.fromarray(COLOURS[..., 0].astype(np.uint16)).save(tmp_path / "grey16.png")
    Image.fromarray(COLOURS[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(COLOURS[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    reasons = {
        "rgb16.tif": "8 bits",
        "grey16.png": "no colours",
        "grey.png": "no colours",
        "float.tif": "no colours",
    }
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=reason) as caught:
            read_rgb(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    whole = png_bytes(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    cases = {
        "empty.png": (b"", "cannot be read"),
        "text.png": (b"hello", "cannot be read"),
        "cut.png": (whole[:2000], "damaged"),
        "garbled.png": (png(64, 64, 8, 2, zlib.compress(b"\0" * 10)), "damaged"),
        "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read"),
        "cut.tif": (b"II*\0\x08\0\0\0", "cannot be read"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=reason):
            read_rgb(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_rgb(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot be read"):
        read_rgb(tmp_path)


@pytest.mark.parametrize("side", [8193, 10_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 2, zlib.compress(b"\0" * 1000)))
    for read in (read_rgb, read_mask, image_size):
        with pytest.raises(InputError, match=r"has (too many|\d+ x \d+) pixels; expected at most 67,108,864"):
            read(tmp_path / "bomb.png")


def test_masks(tmp_path: Path) -> None:
    mask = COLOURS[..., 0] > 128
    stored = {
        "255.png": Image.fromarray(mask.astype(np.uint8) * 255),
        "one.png": Image.fromarray(mask.astype(np.uint8)),
        "bits.png": Image.fromarray(mask),
        "opaque.png": Image.fromarray(mask.astype(np.uint8) * 255).convert("LA"),
        "labels.tif": Image.fromarray(mask.astype(np.uint16) * 300),
        "rgb.png": Image.fromarray(np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255),
        "rgba.png": Image.fromarray(
            np.dstack([mask * np.uint8(255)] * 3 + [np.full(mask.shape, 255, np.uint8)])
        ),
    }
    for name, image in stored.items():
        image.save(tmp_path / name)
        assert np.array_equal(read_mask(tmp_path / name), mask), name
    stored["255.png"].save(tmp_path / "lossy.jpg")
    with pytest.raises(InputError, match="no exact zeros"):
        read_mask(tmp_path / "lossy.jpg")


def test_resized() -> None:
    flat = np.full((20, 30, 3), 200, np.uint8)
    assert np.array_equal(resized(flat, 15, 10), np.full((10, 15, 3), 200, np.uint8))
    mask = np.zeros((4, 8), bool)
    mask[:, :3] = True
    assert np.array_equal(resized_mask(mask, 4, 2), np.array([[True, True, False, False]] * 2))
