"""Packed weights: the same products, never those of a weight that has changed, and nothing left behind."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable

import pytest
import torch
from torch import nn

from polydit.core.models import DiT
from polydit.core.nn import packed
from polydit.core.nn.linear import linear
from polydit.core.nn.packed import SMALLEST, pack_linears, packed_copy

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="oneDNN is needed")
WIDTH = 512


def layer(*, bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, WIDTH, bias=bias).to(dtype)


@pytest.mark.parametrize("rows", [1, 16, 300])
@pytest.mark.parametrize("activation", [None, "gelu_tanh", "silu"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_products_are_the_same(
    rows: int, activation: str | None, dtype: torch.dtype, tolerance: float
) -> None:
    for made in (layer(dtype=dtype), layer(bias=False, dtype=dtype)):
        x = torch.randn(2, rows, WIDTH, dtype=dtype)
        with torch.no_grad():
            expected = linear(x, made, activation)
            assert pack_linears(made) == 1 and packed_copy(made.weight) is not None
            torch.testing.assert_close(linear(x, made, activation), expected, rtol=tolerance, atol=tolerance)


def test_small_weights_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Linear(256, SMALLEST // 256), nn.Linear(SMALLEST // 256, 256 - 1))
    assert pack_linears(network) == 1
    assert packed_copy(network[0].weight) is not None and packed_copy(network[1].weight) is None


def doubled(made: nn.Linear) -> None:
    made.weight.mul_(2.0)


def loaded(made: nn.Linear) -> None:
    made.load_state_dict({"weight": 2.0 * made.weight, "bias": made.bias.clone()})


def replaced(made: nn.Linear) -> None:
    made.weight = nn.Parameter(2.0 * made.weight)


@pytest.mark.parametrize("change", [doubled, loaded, replaced])
def test_a_changed_weight_is_not_taken_from_its_copy(change: Callable[[nn.Linear], None]) -> None:
    made, x = layer(), torch.randn(16, WIDTH)
    with torch.no_grad():
        pack_linears(made)
        before = linear(x, made) - made.bias
        change(made)
        assert packed_copy(made.weight) is None
        torch.testing.assert_close(linear(x, made) - made.bias, 2.0 * before, rtol=1e-4, atol=1e-4)
        pack_linears(made)
        torch.testing.assert_close(linear(x, made) - made.bias, 2.0 * before, rtol=1e-4, atol=1e-4)


def test_copies_and_other_precisions_are_layers_of_their_own() -> None:
    made, x = layer(), torch.randn(16, WIDTH)
    pack_linears(made)
    other = copy.deepcopy(made)
    with torch.no_grad():
        other.weight.zero_()
        assert packed_copy(other.weight) is None and packed_copy(made.weight) is not None
        torch.testing.assert_close(linear(x, other), other.bias.expand(16, -1))
        made.to(torch.bfloat16)
        assert packed_copy(made.weight) is None and linear(x.bfloat16(), made).dtype == torch.bfloat16
    assert set(made.state_dict()) == {"weight", "bias"} == set(dict(made.named_parameters()))


def test_what_comes_later_is_never_taken_for_a_weight_that_moved() -> None:
    """A layer that changes its precision gives up its memory; were it free, the next layer could lie there."""
    made = layer()
    pack_linears(made)
    made.to(torch.bfloat16)
    later = [nn.Linear(WIDTH, WIDTH) for _ in range(20)]
    assert all(packed_copy(other.weight) is None for other in later)


def test_gradients_go_their_own_way() -> None:
    made = layer()
    pack_linears(made)
    linear(torch.randn(16, WIDTH), made, "silu").sum().backward()
    assert made.weight.grad is not None and float(made.weight.grad.abs().sum()) > 0.0


def test_a_copy_goes_with_its_weight() -> None:
    made = layer()
    address = made.weight.data_ptr()
    pack_linears(made)
    assert address in packed._COPIES
    del made
    gc.collect()
    assert address not in packed._COPIES


def test_a_network_in_bf16_is_the_same_packed_and_compiled(unchecked: None) -> None:
    network = DiT(sample_size=8, width=256, depth=2, heads=4, num_classes=4, learn_sigma=False).eval()
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    network.to(torch.bfloat16)
    x, t, label = torch.randn(2, 4, 8, 8).bfloat16(), torch.tensor([100.0, 700.0]), torch.tensor([0, 3])
    with torch.no_grad():
        expected = network(x, t, label).sample
        assert pack_linears(network) > 4
        torch.testing.assert_close(network(x, t, label).sample, expected, rtol=2e-2, atol=2e-2)
        network.compile_repeated_blocks(fullgraph=True, backend="eager")
        torch.testing.assert_close(network(x, t, label).sample, expected, rtol=5e-2, atol=5e-2)
