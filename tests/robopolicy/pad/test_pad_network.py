"""PAD's network: who sees whom, what is not there, its sizes, and that it is saved and rounded without harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polydit.core.nn import Groups
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.pad.network import Modalities, PADTransformer
from polydit.robopolicy.pad.policy import PADPolicy

NetworkOf = Callable[..., PADTransformer]
BatchOf = Callable[..., PolicyBatch]
PartsOf = Callable[..., tuple[Modalities, Modalities]]
DEPTH: dict[str, Any] = {"depth_map_size": 16, "depth_map_patch": 8}
TIMES = torch.tensor([10, 900])
TEXT = torch.linspace(-1, 1, 10).reshape(2, 5)


def call(
    model: PADTransformer, noisy: Modalities, now: Modalities, present: Mapping[str, Tensor] | None = None
) -> Modalities:
    """The prediction without gradients."""
    with torch.no_grad():
        return model(noisy, now, TIMES, TEXT, present)[0]


def test_groups_attend_as_their_table_says() -> None:
    sees = torch.tensor([[[True, False], [True, True]], [[True, True], [False, True]]])
    mask = Groups(torch.tensor([0, 0, 1]), sees).mask()
    assert mask.int().tolist() == [
        [[[1, 1, 0], [1, 1, 0], [1, 1, 1]]],
        [[[1, 1, 1], [1, 1, 1], [0, 0, 1]]],
    ]


def test_frames_see_only_frames_and_actions_see_everything(network: NetworkOf, part: PartsOf) -> None:
    noisy, now = part()
    model, open_model = network(**DEPTH), network(**DEPTH, frames_see_all=True)
    moved = replace(noisy, actions=noisy["actions"] + 1.0)
    deeper = replace(noisy, depth_maps=noisy["depth_maps"] + 1.0)
    plain = call(model, noisy, now)
    assert torch.equal(call(model, moved, now)["images"], plain["images"])
    assert torch.equal(call(model, deeper, now)["images"], plain["images"])
    assert not torch.allclose(call(open_model, moved, now)["images"], call(open_model, noisy, now)["images"])
    assert not torch.allclose(call(model, deeper, now)["actions"], plain["actions"], atol=1e-4)
    dreamt = replace(noisy, images=noisy["images"] + 1.0)
    assert not torch.allclose(call(model, dreamt, now)["actions"], plain["actions"], atol=1e-4)


@pytest.mark.parametrize("frames_see_all", [False, True])
def test_a_missing_modality_is_not_seen(network: NetworkOf, part: PartsOf, frames_see_all: bool) -> None:
    """An item that lacks depth maps is predicted as if the network were called without them."""
    model = network(**DEPTH, frames_see_all=frames_see_all)
    noisy, now = part()
    some = call(model, noisy, now, {"depth_maps": torch.tensor([True, False])})
    every, none = call(model, noisy, now), call(model, part(depth_maps=False)[0], now)
    for name in ("images", "actions"):
        torch.testing.assert_close(some[name][0], every[name][0])
        torch.testing.assert_close(some[name][1], none[name][1])
    assert not torch.allclose(every["actions"][1], none["actions"][1], atol=1e-4)


def test_missing_frames_are_zeros(network: NetworkOf, part: PartsOf) -> None:
    model = network()
    noisy, now = part(depth_maps=False)
    black = replace(noisy, images=noisy["images"] * torch.tensor([1.0, 0.0])[:, None, None, None, None])
    some = call(model, noisy, now, {"images": torch.tensor([True, False])})
    torch.testing.assert_close(some["actions"], call(model, black, now)["actions"])
    left_out = call(model, part(images=False, depth_maps=False)[0], now)
    torch.testing.assert_close(left_out["actions"][1], some["actions"][1])
    assert [name for name, _ in left_out.items()] == ["actions"]


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_actions_in_one_token_or_several_keep_their_shape(
    network: NetworkOf, part: PartsOf, tokens: int
) -> None:
    noisy, now = part(depth_maps=False)
    model = network(action_tokens=tokens, learned_positions=tokens == 4)
    value, variance = model(noisy, now, TIMES, TEXT)
    for made in (value, variance):
        assert {name: x.shape for name, x in made.items()} == {name: x.shape for name, x in noisy.items()}
    assert ("actions.positions" in model.state_dict()) == (tokens == 4)


def test_untrained_network_predicts_zero(network: NetworkOf, part: PartsOf) -> None:
    noisy, now = part()
    for _, x in call(network(random=False, **DEPTH), noisy, now).items():
        assert not x.any()


def test_published_size_has_the_published_count() -> None:
    """677.4 M, counted on the published program, which counts the fixed positions of 256 patches and a token too."""
    with torch.device("meta"):
        model = PADTransformer()
    assert round((model.num_parameters() + 257 * 1152) / 1e6, 1) == 677.4


def test_saved_network_is_the_same(network: NetworkOf, part: PartsOf, tmp_path: Path) -> None:
    model = network(**DEPTH, learned_positions=True)
    model.save_pretrained(tmp_path)
    again = PADTransformer.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    noisy, now = part()
    for name, x in call(model, noisy, now).items():
        assert torch.equal(call(again, noisy, now)[name], x)


def test_bf16_weights_agree_with_float32(network: NetworkOf, batch: BatchOf, part: PartsOf) -> None:
    exact, rough = network(), torch.nn.Module.to(network(), torch.bfloat16)
    noisy, now = part(depth_maps=False)
    for name, x in call(rough, noisy, now).items():
        torch.testing.assert_close(x.float(), call(exact, noisy, now)[name], atol=0.1, rtol=0.1)
        assert x.dtype == torch.bfloat16
    actions = PADPolicy(rough).sample(batch(), torch.zeros(3, 4, 2), 3)
    assert actions.dtype == torch.float32 and actions.isfinite().all()


def test_sizes_that_do_not_fit_are_named(network: NetworkOf) -> None:
    with pytest.raises(ValueError, match="patches of 5 do not divide pictures of 16"):
        network(patch_size=5)
    with pytest.raises(ValueError, match="4 actions do not fill 3 tokens"):
        network(action_tokens=3)
    with pytest.raises(ValueError, match="depth maps of 3 x 3 patches do not fit"):
        network(depth_map_size=24, depth_map_patch=8)
