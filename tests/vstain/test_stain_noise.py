"""Noise that belongs to a place."""

from __future__ import annotations

import numpy as np
import pytest

from polydit.vstain.noise import noise_field


@pytest.mark.parametrize("x, y", [(0, 0), (-70, 130), (63, -1), (1000, 64)])
def test_overlapping_windows_agree(x: int, y: int) -> None:
    whole = noise_field(7, x - 50, y - 30, 200, 190, 4)
    part = noise_field(7, x, y, 96, 80, 4)
    np.testing.assert_array_equal(part, whole[:, 30:110, 50:146])


def test_it_is_normal_and_seeds_blocks_and_channels_differ() -> None:
    field = noise_field(3, 0, 0, 256, 256, 2)
    assert abs(float(field.mean())) < 0.01
    assert abs(float(field.std()) - 1.0) < 0.01
    blocks = [field[0, :64, :64], field[1, :64, :64], field[0, 64:128, :64], field[0, :64, 64:128]]
    blocks.append(noise_field(4, 0, 0, 64, 64, 2)[0])
    for index, block in enumerate(blocks):
        for other in blocks[:index]:
            assert abs(float((block * other).mean())) < 0.06
