"""Every layout of paired images, from files as their authors lay them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polydit.core.errors import InputError
from polydit.vstain.colour import OPTICAL_DENSITY, dab
from polydit.vstain.data.find import find_pairs
from polydit.vstain.data.fluorescence import brightfield


def colours(seed: int, width: int = 12, height: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def put(path: Path, image: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


# --- published data sets --------------------------------------------------------------------------------


def test_bci(tmp_path: Path) -> None:
    for split, name in (("train", "00000_train_1+"), ("train", "00001_train_0"), ("test", "00000_test_3+")):
        put(tmp_path / "HE" / split / f"{name}.png", colours(1))
        put(tmp_path / "IHC" / split / f"{name}.png", colours(2))
    found = find_pairs(tmp_path)
    assert [(pair.id, pair.stain, pair.split) for pair in found] == [
        ("00000_train_1+", "her2", "train"), ("00001_train_0", "her2", "train"), ("00000_test_3+", "her2", "test"),
    ]  # fmt: skip
    pair = found[0].read()
    assert np.array_equal(pair.he, colours(1)) and np.array_equal(pair.ihc, colours(2))
    assert pair.mask is None and pair.mpp is None and pair.stain == "her2"


def test_bci_glued(tmp_path: Path) -> None:
    put(tmp_path / "train" / "00000_train_2+.png", np.hstack([colours(1), colours(2)]))
    put(tmp_path / "test" / "00000_test_2+.png", np.hstack([colours(3), colours(4)]))
    found = find_pairs(tmp_path)
    assert [(pair.id, pair.stain, pair.split) for pair in found] == [
        ("train/00000_train_2+", "her2", "train"), ("test/00000_test_2+", "her2", "test"),
    ]  # fmt: skip
    pair = found[1].read()
    assert found[1].size() == (12, 12) and found[1].paths == (tmp_path / "test" / "00000_test_2+.png",)
    assert np.array_equal(pair.he, colours(3)) and np.array_equal(pair.ihc, colours(4))


def test_mist(tmp_path: Path) -> None:
    for stain in ("HER2", "Ki67"):
        for split in ("train", "val"):
            for side, seed in (("A", 1), ("B", 2)):
                put(tmp_path / stain / "TrainValAB" / f"{split}{side}" / "a_1.jpg", colours(seed))
    found = find_pairs(tmp_path)
    assert [pair.id for pair in found] == [
        "her2/train/a_1", "her2/val/a_1", "ki67/train/a_1", "ki67/val/a_1",
    ]  # fmt: skip
    assert {pair.mpp for pair in found} == {0.4661}
    assert [pair.id for pair in find_pairs(tmp_path / "Ki67", split="val")] == ["ki67/val/a_1"]
    assert [pair.stain for pair in find_pairs(tmp_path / "Ki67" / "TrainValAB")] == ["ki67", "ki67"]
    assert [pair.id for pair in find_pairs(tmp_path, stain="HER2", split="train")] == ["her2/train/a_1"]
    assert found[0].read().he.shape == (12, 12, 3)


def test_folders_of_a_and_b_alone_name_no_stain(tmp_path: Path) -> None:
    put(tmp_path / "trainA" / "a.png", colours(1))
    put(tmp_path / "trainB" / "a.png", colours(2))
    (pair,) = find_pairs(tmp_path)
    assert (pair.id, pair.stain, pair.split, pair.mpp) == ("train/a", "", "train", None)


def test_hemit(tmp_path: Path) -> None:
    label = np.zeros((12, 12, 3), np.uint8)
    label[:, :4, 0], label[:, 4:8, 1], label[:, 8:, 2] = 255, 255, 255
    name = "[10000,20000]_patch_1_2.tif"
    for split in ("train", "val", "test"):
        put(tmp_path / split / "input" / name, colours(1))
        put(tmp_path / split / "label" / name, label)
    with pytest.raises(InputError, match=r"dapi,panck,cd3.*--channels") as caught:
        find_pairs(tmp_path)
    assert caught.value.hint is not None
    found = find_pairs(tmp_path, channels=("dapi", "panck", "cd3"), split="val")
    assert [(pair.id, pair.stain) for pair in found] == [
        ("val/[10000,20000]_patch_1_2/panck", "panck"), ("val/[10000,20000]_patch_1_2/cd3", "cd3"),
    ]  # fmt: skip
    panck, cd3 = (dab(pair.read().ihc) for pair in found)
    assert panck[:, 4:8].min() > 0.15 and cd3[:, 8:].min() > 0.15
    assert max(panck[:, 8:].max(), cd3[:, 4:8].max(), panck[:, :4].max()) < 0.01
    swapped = find_pairs(tmp_path, channels=("dapi", "cd3", "panck"), split="val", stain="panck")
    assert np.array_equal(swapped[0].read().ihc, found[1].read().ihc)


def test_brightfield_obeys_beer_and_lambert() -> None:
    marker = np.array([[0, 64, 128, 255]], np.uint8)
    image = brightfield(np.zeros_like(marker), marker)
    density = OPTICAL_DENSITY * dab(image)[0]
    assert (image[0, 0] == 245).all()
    assert np.allclose((density - density[0]) / (density[3] - density[0]), marker[0] / 255, atol=0.02)


# --- two folders, glued images --------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "right"), [("HE", "IHC"), ("he", "ihc"), ("A", "B")])
def test_two_folders(left: str, right: str, tmp_path: Path) -> None:
    put(tmp_path / left / "b [1].png", colours(1))
    put(tmp_path / right / "b [1].tif", colours(2))
    put(tmp_path / left / "a.png", colours(3))
    put(tmp_path / right / "a.png", colours(4))
    put(tmp_path / "mask" / "a.png", (colours(5)[..., 0] > 99).astype(np.uint8) * 255)
    (tmp_path / left / "._a.png").write_bytes(b"what a Mac leaves")
    (tmp_path / left / "notes.txt").write_text("mine")
    found = find_pairs(tmp_path, stain="CK")
    assert [(pair.id, pair.stain, pair.split) for pair in found] == [("a", "ck", ""), ("b [1]", "ck", "")]
    with_mask, without = found[0].read(), found[1].read()
    assert with_mask.mask is not None and np.array_equal(with_mask.mask, colours(5)[..., 0] > 99)
    assert without.mask is None and np.array_equal(without.ihc, colours(2))
    assert {pair.stain for pair in find_pairs(tmp_path)} == {""}


def test_two_folders_below_the_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for part in ("HE", "IHC"):
            put(tmp_path / split / part / "a.png", colours(1))
    assert [(pair.id, pair.split) for pair in find_pairs(tmp_path)] == [
        ("train/a", "train"),
        ("test/a", "test"),
    ]
    assert [(pair.id, pair.split) for pair in find_pairs(tmp_path / "test")] == [("test/a", "test")]


def test_a_missing_partner_is_named_when_it_is_read(tmp_path: Path) -> None:
    put(tmp_path / "HE" / "a.png", colours(1))
    put(tmp_path / "HE" / "b.png", colours(1))
    put(tmp_path / "IHC" / "b.png", colours(2))
    put(tmp_path / "IHC" / "c.png", colours(2))
    found = find_pairs(tmp_path)
    assert [pair.id for pair in found] == ["a", "b", "c"]
    for pair, missing in ((found[0], "IHC/a.png"), (found[2], "HE/c.png")):
        with pytest.raises(InputError, match="no such file") as caught:
            pair.read()
        assert caught.value.where == str(tmp_path / missing)


def test_sizes_must_agree(tmp_path: Path) -> None:
    put(tmp_path / "HE" / "a.png", colours(1, 12, 10))
    put(tmp_path / "IHC" / "a.png", colours(2, 11, 10))
    put(tmp_path / "HE" / "b.png", colours(1))
    put(tmp_path / "IHC" / "b.png", colours(2))
    put(tmp_path / "mask" / "b.png", np.zeros((12, 13), np.uint8))
    first, second = find_pairs(tmp_path)
    with pytest.raises(InputError, match=r"a.png: 11 x 10 pixels, but its H&E has 12 x 10"):
        first.read()
    with pytest.raises(InputError, match=r"mask/b.png: 13 x 12 pixels"):
        second.read()


def test_one_stem_twice_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "HE" / "a.png", colours(1))
    put(tmp_path / "HE" / "a.jpg", colours(1))
    put(tmp_path / "IHC" / "a.png", colours(2))
    with pytest.raises(InputError, match="two images are named 'a'"):
        find_pairs(tmp_path)


def test_glued_images(tmp_path: Path) -> None:
    (tmp_path / "0 damaged.png").write_bytes(b"")
    put(tmp_path / "a.png", np.hstack([colours(1), colours(2)]))
    put(tmp_path / "odd.png", colours(1, 13, 6))
    found = find_pairs(tmp_path, stain="er")
    assert [(pair.id, pair.stain) for pair in found] == [("0 damaged", "er"), ("a", "er"), ("odd", "er")]
    assert np.array_equal(found[1].read().ihc, colours(2))
    with pytest.raises(InputError, match="13 columns are not two images"):
        found[2].read()


# --- CSV ------------------------------------------------------------------------------------------------


def test_a_csv_file(tmp_path: Path) -> None:
    put(tmp_path / "x" / "h.png", colours(1))
    put(tmp_path / "x" / "i.png", colours(2))
    put(tmp_path / "m.png", np.zeros((12, 12), np.uint8))
    table = tmp_path / "pairs.csv"
    table.write_text(
        "\ufeffIHC,HE,Mask,stain,split,mpp,note\n"
        'x/i.png,x/h.png,m.png,CD3,val,0.25,"a, b"\n'
        "\n"
        f"{tmp_path}/x/i.png, x/none.png ,,,,,\n",
        encoding="utf-8",
    )
    first, second = find_pairs(table)
    assert (first.id, first.stain, first.split, first.mpp) == ("1", "cd3", "val", 0.25)
    pair = first.read()
    assert pair.mask is not None and not pair.mask.any() and np.array_equal(pair.ihc, colours(2))
    assert (second.id, second.stain, second.split, second.mpp, second.mask) == ("2", "", "", None, None)
    with pytest.raises(InputError, match=r"pairs.csv, row 2: .*none.png: there is no such file"):
        second.read()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "first line: there is no column 'he'"),
        ("he,mask\n", "there is no column 'ihc'"),
        ("he,ihc,he\n", "two columns are named 'he'"),
        ("he,ihc\na,b\na\n", "row 2: 1 cells in a table of 2 columns"),
        ("he,ihc\na,\n", "row 1, column ihc: the path is empty"),
        ("he,ihc,split\na,b,dev\n", "row 1, column split: 'dev' is no split"),
        ("he,ihc,mpp\na,b,\na,b,0.5um\n", "row 2, column mpp: '0.5um' is out of range"),
        ("he,ihc,mpp\na,b,nan\n", "row 1, column mpp"),
        ("he,ihc,mpp\na,b,-1\n", "row 1, column mpp"),
        ("id,he,ihc\nx,a,b\ny,a,b\nx,c,d\n", "row 3: the id 'x' is that of row 1 too"),
        ('he,ihc\n"a,b\n', "cannot be read as CSV"),
        ("he,ihc\n", "it has no pairs"),
    ],
)
def test_a_wrong_csv_file_names_the_row(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        find_pairs(tmp_path / "a.csv")
    assert reason in str(caught.value) and "a.csv" in str(caught.value)


def test_a_csv_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        find_pairs(tmp_path / "a.csv")


# --- what is not there ----------------------------------------------------------------------------------


def test_what_is_asked_for_in_vain(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no layout .* expected manifest.csv"):
        find_pairs(tmp_path)
    put(tmp_path / "train" / "HE" / "a.png", colours(1))
    put(tmp_path / "train" / "IHC" / "a.png", colours(1))
    with pytest.raises(InputError, match="no pairs of test ck; expected one of train"):
        find_pairs(tmp_path, split="test", stain="ck")
    with pytest.raises(InputError, match="layout 'bcii' is unknown"):
        find_pairs(tmp_path, layout="bcii")
    with pytest.raises(InputError, match="pairs in the layout bci"):
        find_pairs(tmp_path, layout="bci")
    with pytest.raises(InputError, match="channels dapi,cd8,cd3"):
        find_pairs(tmp_path, layout="hemit", channels=("dapi", "cd8", "cd3"))


def test_a_split_of_data_that_are_not_split(tmp_path: Path) -> None:
    put(tmp_path / "HE" / "a.png", colours(1))
    put(tmp_path / "IHC" / "a.png", colours(1))
    with pytest.raises(InputError, match=r"no pairs of val.*vstain data import"):
        find_pairs(tmp_path, split="val")
