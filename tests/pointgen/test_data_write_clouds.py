"""Clouds as files: each reads back as it was, also in other programs."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh

from polydit.core.errors import InputError
from polydit.pointgen.cloud import Cloud
from polydit.pointgen.data.readers import read_clouds
from polydit.pointgen.data.writers import FORMATS, Format, render


@pytest.fixture
def cloud() -> Cloud:
    points = np.random.default_rng(0).normal(size=(257, 3)).astype(np.float32)
    return Cloud(id="a", points=points, category="chair")


@pytest.mark.parametrize("format", FORMATS)
def test_a_cloud_reads_back_bit_by_bit(format: Format, cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format}"
    path.write_bytes(render(cloud, format, {"seed": "7"}))
    (read,) = read_clouds(path)
    assert isinstance(read, Cloud)
    assert np.array_equal(read.points, cloud.points)
    assert (read.id, read.category) == ("a", "chair" if format in ("ply", "glb", "obj") else "")


@pytest.mark.parametrize("format", ["ply", "glb", "obj", "xyz"])
def test_other_programs_read_it(format: Format, cloud: Cloud) -> None:
    handle = BytesIO(render(cloud, format, {"model": "starter\n2"}))
    loaded = trimesh.load_scene(handle, file_type=format, process=False)
    (geometry,) = loaded.geometry.values()
    assert isinstance(geometry, trimesh.PointCloud)
    assert np.allclose(geometry.vertices, cloud.points)


def test_the_file_says_where_it_came_from(cloud: Cloud) -> None:
    told = {"seed": "7", "model": "a model\nof two lines", "odd key": "x"}
    ply = render(cloud, "ply", told)
    assert b"comment seed: 7\n" in ply and b"comment model: a model of two lines\n" in ply
    glb = trimesh.load_scene(BytesIO(render(cloud, "glb", told)), file_type="glb")
    assert isinstance(glb, trimesh.Scene)
    assert b'"extras":{"category":"chair","seed":"7"' in render(cloud, "glb", told)
    assert b"# odd_key: x\n" in render(cloud, "obj", told)


def test_points_are_no_triangles(cloud: Cloud) -> None:
    with pytest.raises(InputError, match=r"STL holds triangles.*ply, glb, obj, xyz, npy"):
        render(cloud, "stl")


def test_the_same_cloud_gives_the_same_bytes(cloud: Cloud) -> None:
    for format in FORMATS:
        assert render(cloud, format) == render(cloud, format)
