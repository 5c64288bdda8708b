"""Clouds from files and folders, and everything that is none."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh

from polydit.core.errors import InputError
from polydit.pointgen.cloud import Cloud, Rejected
from polydit.pointgen.data.make import make_dataset
from polydit.pointgen.data.readers import read_clouds
from polydit.pointgen.data.writers import render

MESHES = ("ply", "obj", "glb", "stl", "off")


def exported(mesh: trimesh.Trimesh, format: str) -> bytes:
    content = mesh.export(file_type=format)
    return content.encode() if isinstance(content, str) else content


def one(path: Path, **options: object) -> Cloud:
    (record,) = read_clouds(path, **options)  # type: ignore[arg-type]
    assert isinstance(record, Cloud)
    return record


@pytest.fixture
def box() -> trimesh.Trimesh:
    return trimesh.creation.box(extents=(1, 2, 3))


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", MESHES)
def test_a_mesh_is_sampled_on_its_surface(format: str, box: trimesh.Trimesh, tmp_path: Path) -> None:
    path = tmp_path / f"box.{format}"
    path.write_bytes(exported(box, format))
    cloud = one(path)
    assert cloud.num_points == 2048 and cloud.points.dtype == np.float32 and cloud.id == "box"
    distance = np.abs(np.abs(cloud.points) - np.array([0.5, 1.0, 1.5], np.float32)).min(1)
    assert distance.max() < 1e-6
    on_largest = np.isclose(np.abs(cloud.points[:, 0]), 0.5).mean()
    assert abs(on_largest - 6 / 11) < 0.05  # by area: 6 of 2 + 3 + 6
    assert np.array_equal(cloud.points, one(path).points)
    assert not np.array_equal(cloud.points, one(path, seed=1).points)
    assert one(path, num_points=100).num_points == 100


def test_meshes_lie_where_their_scene_puts_them(box: trimesh.Trimesh, tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(box)
    scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([10, 0, 0]))
    (tmp_path / "two.glb").write_bytes(scene.export(file_type="glb"))
    x = one(tmp_path / "two.glb").points[:, 0]
    assert abs((x > 5).mean() - 0.5) < 0.05 and np.isclose(x.max(), 10.5)


def test_points_are_drawn_without_replacement(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(500, 3))
    np.save(tmp_path / "a.npy", points)
    assert np.array_equal(one(tmp_path / "a.npy").points, points.astype(np.float32))
    drawn = one(tmp_path / "a.npy", num_points=300).points
    assert len(np.unique(drawn, axis=0)) == 300
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in points.astype(np.float32)}
    with pytest.raises(InputError, match="it has 500 points, fewer than the 501 asked for"):
        list(read_clouds(tmp_path / "a.npy", num_points=501))


def test_an_array_of_clouds_gives_its_rows(tmp_path: Path) -> None:
    clouds = np.random.default_rng(0).normal(size=(4, 20, 3)).astype(np.float32)
    clouds[2] = np.nan
    np.save(tmp_path / "samples.npy", clouds)
    np.savez(tmp_path / "other.npz", points=clouds, labels=np.zeros(4))
    for path in (tmp_path / "samples.npy", tmp_path / "other.npz"):
        records = list(read_clouds(path, category="chair"))
        assert [isinstance(record, Cloud) for record in records] == [True, True, False, True]
        assert records[2] == Rejected(f"{path}, row 2", "20 of 20 points are not finite")
        assert isinstance(records[3], Cloud) and records[3].id == f"{path.stem}-000003"
        assert records[3].category == "chair" and np.array_equal(records[3].points, clouds[3])


def test_text_of_points(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("# a remark\n\n0 0 0\n1, 2, 3\n4;5;6 # end\n7\t8\t9 255 0 0\n")
    assert np.array_equal(one(tmp_path / "a.xyz").points, [[0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]])


def test_polygons_and_modelnets_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text("OFF4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n")
    points = one(tmp_path / "a.off").points
    assert abs((points[:, 0] > points[:, 1]).mean() - 0.5) < 0.05


# --- what is no cloud -----------------------------------------------------------------------------------

NAN = float("nan")


def npy(points: object) -> Callable[[Path], None]:
    return lambda path: np.save(path, np.array(points))


def content(data: bytes | str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data.encode() if isinstance(data, str) else data) and None


def huge_npy(path: Path) -> None:
    with path.open("wb") as handle:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 3)}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.truncate(12 * 10**9 + handle.tell())  # a hole: it takes no room on the disk


TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
PLY = "ply\nformat ascii 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
BAD: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "not finite": ("a.npy", npy([[0.0, 0, 0], [NAN, 0, 0]]), "1 of 2 points are not finite"),
    "infinite": ("a.npy", npy([[0.0, 0, 0], [np.inf, 0, 0]]), "not finite"),
    "no points": ("a.npy", npy(np.zeros((0, 3))), "0 points are no shape"),
    "one point": ("a.npy", npy([[1.0, 2, 3]]), "1 points are no shape"),
    "one place": ("a.npy", npy(np.ones((50, 3))), "all 50 points are the same"),
    "far away": ("a.npy", npy([[0.0, 0, 0], [2e6, 0, 0]]), "beyond 1e\\+06"),
    "beyond float32": ("a.npy", npy([[0.0, 0, 0], [1e300, 0, 0]]), "beyond 1e\\+06"),
    "two columns": ("a.npy", npy(np.zeros((5, 2))), r"shape \(5, 2\) is no cloud"),
    "text": ("a.npy", npy([["a", "b", "c"]]), "it holds <U1; expected numbers"),
    "objects": ("a.npy", npy([[None, None, None]]), "no NPY file of numbers"),
    "too many": ("a.npy", huge_npy, "1,000,000,000 points; expected at most 10,000,000|bytes; expected"),
    "empty file": ("a.npy", content(b""), "it is empty"),
    "cut npy": ("a.npy", content(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'"), "cut off"),
    "no array": ("a.npz", content(b"PK\x03\x04rubbish"), "cut off"),
    "empty xyz": ("a.xyz", content("# nothing\n\n"), "no rows"),
    "cut xyz": ("a.xyz", content("0 0 0\n1 1 1\n2 2"), "a row is not as expected"),
    "words": ("a.xyz", content("0 0 0\nx y z\n"), "a row is not as expected"),
    "no faces": ("a.off", content("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n"), "it has no faces"),
    "no area": ("a.obj", content(TRIANGLE + "f 1 1 2\n"), "1 faces have no area"),
    "no area, corners in line": ("a.obj", content("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"), "have no area"),
    "mesh with nan": ("a.obj", content("v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n"), "not finite"),
    "mesh beyond": ("a.obj", content("v 0 0 0\nv 1e200 0 0\nv 0 1 0\nf 1 2 3\n"), "beyond 1e\\+06"),
    "face of nothing": ("a.obj", content(TRIANGLE + "f 1 2 9\n"), "cannot be read as OBJ"),
    "obj without vertices": ("a.obj", content("# only a remark\n"), "no vertices"),
    "cut obj": ("a.obj", content(TRIANGLE + "f 1 2"), "its last line reads 'f 1 2'"),
    "cut off": ("a.off", content("OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"), "cut off: 4 of 5 rows"),
    "off of counts": ("a.off", content("OFF\n99999999999 1 0\n"), "99,999,999,999 vertices"),
    "no off": ("a.off", content("hello\n"), "not OFF"),
    "huge ply": ("a.ply", content(PLY.format(10**12)), "1,000,000,000,000 elements 'vertex'"),
    "cut ply": ("a.ply", content(PLY.format(3) + "0 0 0\n1 1 1\n"), "cut off: 2 of 3 rows"),
    "ply head": ("a.ply", content("ply\nformat ascii 1.0\nelement"), "cut off"),
    "huge stl": ("a.stl", content(b"\0" * 80 + struct.pack("<I", 2**31) + b"\0" * 50), "cut off"),
    "empty stl": ("a.stl", content("solid a\nendsolid a\n"), "no faces"),
    "cut stl": ("a.stl", content("solid a\nfacet normal 0 0 1\n outer loop\n  vertex 0 0 0\n"), "endsolid"),
    "no glb": ("a.glb", content(b"glTF"), "cut off"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_cloud_is_refused_alone_and_left_out_in_a_folder(case: str, tmp_path: Path) -> None:
    name, write, reason = BAD[case]
    write(tmp_path / name)
    with pytest.raises(InputError, match=reason) as raised:
        list(read_clouds(tmp_path / name))
    assert raised.value.where is not None and str(tmp_path / name) in raised.value.where
    np.save(tmp_path / "good.npy", np.eye(3))
    bad, good = read_clouds(tmp_path)
    assert isinstance(bad, Rejected) and bad.source == str(tmp_path / name)
    assert bad.reason and str(tmp_path) not in bad.reason
    assert isinstance(good, Cloud) and good.id == "good"


@pytest.mark.parametrize("format", ["ply", "glb", "stl", "off"])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.7, 0.97])
def test_a_truncated_mesh(format: str, share: float, box: trimesh.Trimesh, tmp_path: Path) -> None:
    whole = exported(box, format)
    (tmp_path / f"a.{format}").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError):
        list(read_clouds(tmp_path / f"a.{format}"))


@pytest.mark.parametrize("format", ["ply", "glb", "npy"])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.97])
def test_a_truncated_cloud(format: str, share: float, tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    whole = render(Cloud(id="a", points=points), format)  # type: ignore[arg-type]
    (tmp_path / f"a.{format}").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError):
        list(read_clouds(tmp_path / f"a.{format}"))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", points=np.array([[print, 1, 2]], dtype=object))
    with pytest.raises(InputError, match="no NPZ file of numbers"):
        list(read_clouds(tmp_path / "a.npz"))


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", points=np.zeros((10_000_001, 3), bool))
    with pytest.raises(InputError, match="10,000,001 points; expected at most 10,000,000"):
        list(read_clouds(tmp_path / "a.npz"))


# --- folders --------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_order_and_each_shape_once(box: trimesh.Trimesh, tmp_path: Path) -> None:
    for name in ("b/two.obj", "a/one.stl", "b/two.ply", "c.glb"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(exported(box, path.suffix[1:]))
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    clouds = [cloud for cloud in read_clouds(tmp_path, num_points=64) if isinstance(cloud, Cloud)]
    assert [cloud.id for cloud in clouds] == ["a/one", "b/two", "c"]
    assert clouds[1].source.endswith("two.ply")


def test_categories_that_files_state_are_chosen(tmp_path: Path) -> None:
    points = np.eye(3, dtype=np.float32)
    for name, category in (("a", "chair"), ("b", "table"), ("c", "")):
        data = render(Cloud(id=name, points=points, category=category), "ply")
        (tmp_path / f"{name}.ply").write_bytes(data)
    found = [(r.id, r.category) for r in read_clouds(tmp_path, category="chair") if isinstance(r, Cloud)]
    assert found == [("a", "chair"), ("c", "chair")]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        list(read_clouds(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no files of shapes"):
        list(read_clouds(tmp_path))
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(InputError, match="its format is unknown"):
        list(read_clouds(tmp_path / "a.docx"))


# --- PC15k ----------------------------------------------------------------------------------------------


@pytest.fixture
def pc15k(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "ds", ("chair", "car"), 8, num_points=300, percent=(50, 25, 25))
    return tmp_path / "ds"


def ids(path: Path, **options: object) -> list[str]:
    return [record.id for record in read_clouds(path, **options) if isinstance(record, Cloud)]  # type: ignore[arg-type]


def test_a_data_set_has_splits_and_parts(pc15k: Path) -> None:
    assert len(ids(pc15k)) == 16 and len(ids(pc15k, split="train")) == 8
    stored = np.load(pc15k / "03001627" / "train" / "chair-000000.npy")
    train = next(iter(read_clouds(pc15k, split="train", category="chair")))
    assert isinstance(train, Cloud) and train.category == "chair"
    assert np.array_equal(train.points, stored[:200])
    drawn = next(iter(read_clouds(pc15k, split="train", category="chair", num_points=50)))
    assert isinstance(drawn, Cloud) and not np.array_equal(drawn.points, stored[:50])
    stored = np.load(pc15k / "03001627" / "val" / "chair-000004.npy")
    val = next(iter(read_clouds(pc15k, split="val", category="chair", num_points=50)))
    assert isinstance(val, Cloud) and np.array_equal(val.points, stored[200:250])


def test_parts_of_a_data_set_are_named_by_their_paths(pc15k: Path) -> None:
    names = ["car-000004", "car-000005", "chair-000004", "chair-000005"]
    assert sorted(ids(pc15k / "val")) == names
    assert ids(pc15k / "val", category="03001627") == ["chair-000004", "chair-000005"]
    assert ids(pc15k / "03001627" / "test") == ["chair-000006", "chair-000007"]
    assert len(ids(pc15k / "03001627")) == 8


def test_what_a_data_set_lacks(pc15k: Path) -> None:
    with pytest.raises(InputError, match="no shapes of table; expected one of car train"):
        ids(pc15k, category="table")
    with pytest.raises(InputError, match="no split 'valid'"):
        ids(pc15k, split="valid")
    np.save(pc15k / "03001627" / "val" / "zzz.npy", np.full((300, 3), np.nan))
    (pc15k / "03001627" / "val" / "yyy.npy").write_bytes(b"")
    records = list(read_clouds(pc15k / "03001627" / "val"))
    assert [isinstance(record, Cloud) for record in records] == [True, True, False, False]
    few = list(read_clouds(pc15k / "03001627" / "test", num_points=101))
    assert few[0] == Rejected(
        str(pc15k / "03001627" / "test" / "chair-000006.npy"),
        "it has 100 points, fewer than the 101 asked for",
    )
