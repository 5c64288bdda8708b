"""The network: voxels and back, order and number of points, windows, sizes, conversion both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from polydit.core.errors import CheckpointError
from polydit.core.models.convert import transfer_blocks
from polydit.core.models.dit import DiT
from polydit.pointgen.convert import convert_point_dit, point_dit_from_published, point_dit_to_published
from polydit.pointgen.model import SIZES, PointDiT
from polydit.pointgen.voxels import Cells, devoxelize, voxel_coordinates

TINY = {"voxels": 8, "patch_size": 2, "width": 24, "depth": 3, "heads": 2, "num_classes": 2}


def awake(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights where adaLN-Zero starts with zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def cloud(points: int = 100, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, points, 3, generator=torch.Generator().manual_seed(seed))


def test_a_cell_holds_the_mean_of_its_points() -> None:
    points = cloud()
    coordinates = voxel_coordinates(points, 4)
    cells = Cells.of(coordinates, 4)
    grid, count = cells.mean(points), cells.occupancy()
    cell = coordinates[1].round().long()
    inside = (cell == cell[0]).all(1)
    x, y, z = cell[0].tolist()
    torch.testing.assert_close(grid[1, :, x, y, z], points[1, inside].mean(0))
    assert count[1, 0, x, y, z] == inside.sum()
    assert count.sum() == points.shape[0] * points.shape[1]
    assert not grid.movedim(1, -1)[count[:, 0] == 0].any()


def test_devoxelize_is_exact_for_a_linear_field_and_sends_gradients_to_the_grid_alone() -> None:
    coordinates = voxel_coordinates(cloud(), 6)
    axis = torch.arange(6.0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).expand(2, -1, -1, -1, -1).clone()
    grid.requires_grad_()
    found = devoxelize(grid, coordinates)
    torch.testing.assert_close(found, coordinates)
    found.sum().backward()
    torch.testing.assert_close(grid.grad.sum(), torch.tensor(float(found.numel())))


def test_a_grid_of_fixed_extent_does_not_follow_the_cloud() -> None:
    points = cloud()
    fixed = voxel_coordinates(points, 8, 2.0)
    torch.testing.assert_close(voxel_coordinates(torch.zeros(1, 3, 3), 8, 2.0), torch.full((1, 3, 3), 4.0))
    farther = torch.cat([points, torch.full((2, 1, 3), 50.0)], dim=1)
    assert torch.equal(voxel_coordinates(farther, 8, 2.0)[:, :-1], fixed)
    assert (voxel_coordinates(farther, 8, 2.0)[:, -1] == 7).all()
    assert not torch.equal(voxel_coordinates(farther, 8)[:, :-1], voxel_coordinates(points, 8))


def test_a_cloud_in_one_place_gives_numbers() -> None:
    model = awake(PointDiT(**TINY))
    found = model(torch.full((1, 5, 3), 7.0), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    assert found.isfinite().all()


@pytest.mark.parametrize("own", [0, 8])
def test_the_order_of_points_is_theirs_and_their_number_is_free(own: int) -> None:
    model = awake(PointDiT(**TINY, occupancy=True, point_channels=own))
    points, order = cloud(), torch.randperm(100, generator=torch.Generator().manual_seed(1))
    t, y = torch.tensor([3.0, 800.0]), torch.tensor([0, 1])
    found = model(points, t, y)
    torch.testing.assert_close(model(points[:, order], t, y), found[:, order], atol=1e-5, rtol=1e-5)
    assert model(cloud(37), t, y).shape == (2, 37, 3)


def test_twice_as_many_points_are_the_same_shape() -> None:
    model = awake(PointDiT(**TINY, occupancy=True, extent=2.5))
    t, y = torch.tensor([3.0, 800.0]), torch.tensor([0, 1])
    twice = model(torch.cat([cloud(), cloud()], dim=1), t, y)
    torch.testing.assert_close(twice[:, :100], model(cloud(), t, y), atol=1e-5, rtol=1e-5)


def test_the_modulation_may_be_computed_beforehand() -> None:
    model = awake(PointDiT(**TINY))
    t, y = torch.tensor([3.0, 800.0]), torch.tensor([0, 1])
    known = model(cloud(), modulation=model.modulate(t, y))
    torch.testing.assert_close(known, model(cloud(), t, y))


def test_a_windowed_block_does_not_see_beyond_its_window() -> None:
    """All blocks windowed, so a change in one corner of the grid stays in that corner's window."""
    model = awake(PointDiT(**TINY, window=2, window_blocks=(0, 1, 2)))
    grid = torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(2))
    other = grid.clone()
    other[..., 0, 0, 0] += 1.0
    t, y = torch.zeros(1), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        moved = (model.dit(grid, t, y).sample - model.dit(other, t, y).sample).abs().amax((0, 1)) > 0
    assert moved[:4, :4, :4].any()
    assert not moved[4:].any() and not moved[:, 4:].any() and not moved[..., 4:].any()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"window": 3, "window_blocks": (0,)}, "window"),
        ({"patch_size": 3}, "patch"),
        ({"width": 20}, "width"),
    ],
)
def test_what_does_not_divide_is_said_at_construction(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        PointDiT(**{**TINY, **settings})


def test_published_sizes() -> None:
    with torch.device("meta"):
        counted = {name: PointDiT.of_size(name).num_parameters() for name in SIZES}
    millions = {name: round(count / 1e6, 1) for name, count in counted.items()}
    # the published count of S, 32.81 M, includes the fixed table of positions: 512 · 384 numbers
    assert millions == {"S": 32.6, "B": 129.8, "L": 578.5, "XL": 674.1}


def test_published_layout_both_ways(tmp_path: Path) -> None:
    model = awake(PointDiT(**TINY))
    state = point_dit_to_published(model)
    torch.save(
        {"epoch": 1, "model_state": {f"model.module.{k}": v for k, v in state.items()}}, tmp_path / "a.pth"
    )
    again = convert_point_dit(tmp_path / "a.pth", heads=2)
    t, y = torch.tensor([3.0, 800.0]), torch.tensor([0, 1])
    torch.testing.assert_close(again(cloud(), t, y), model(cloud(), t, y))
    state.pop("blocks.1.mlp.fc1.bias")
    with pytest.raises(CheckpointError, match="fc1"):
        point_dit_from_published(state, heads=2)


def test_blocks_of_images_start_a_network_of_clouds() -> None:
    images = awake(
        DiT(sample_size=8, patch_size=2, in_channels=4, width=24, depth=3, heads=2, num_classes=5), 1
    )
    model = awake(PointDiT(**TINY), 2)
    before = model.dit.patch_embed.linear.weight.clone()
    transfer_blocks(model.dit, images)
    torch.testing.assert_close(model.dit.blocks[2].mlp.fc1.weight, images.blocks[2].mlp.fc1.weight)
    rows = 6 * 3 * 24
    torch.testing.assert_close(
        model.dit.modulator.linear.weight[:rows], images.modulator.linear.weight[:rows]
    )
    assert not torch.equal(model.dit.modulator.linear.weight[rows:], images.modulator.linear.weight[rows:])
    torch.testing.assert_close(model.dit.patch_embed.linear.weight, before)
    with pytest.raises(CheckpointError, match="depth 2 into 3"):
        transfer_blocks(
            model.dit,
            DiT(sample_size=8, patch_size=2, in_channels=4, width=24, depth=2, heads=2, num_classes=5),
        )
