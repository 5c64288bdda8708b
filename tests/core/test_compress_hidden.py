"""Feed-forwards with fewer units: what is superfluous goes without a trace, the rest makes up for what is lost."""

from __future__ import annotations

import pytest
import torch

from polydit.core.compress.hidden import prune_hidden, pruned
from polydit.core.models.dit import DiT
from polydit.core.nn.feed_forward import FeedForward


def layer(hidden: int = 24) -> FeedForward:
    torch.manual_seed(0)
    return FeedForward(8, hidden, "gelu")


def tokens() -> torch.Tensor:
    return torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(1))


def test_units_that_nobody_hears_go_without_a_trace() -> None:
    found, x = layer(), tokens()
    with torch.no_grad():
        found.fc2.weight[:, 5:17] = 0.0
    before, heard = found(x), found.fc1.weight[[*range(5), *range(17, 24)]].clone()
    prune_hidden([found], 12, lambda: found(x))
    assert torch.equal(found.fc1.weight, heard) and found.fc2.weight.shape == (8, 12)
    torch.testing.assert_close(found(x), before, atol=1e-3, rtol=0)


def test_the_others_make_up_for_what_is_lost() -> None:
    fitted, cut, x = layer(), layer(), tokens()
    before = fitted(x)
    prune_hidden([fitted], 18, lambda: fitted(x))
    with torch.no_grad():
        weakest = cut.fc2.weight.square().sum(0).argsort()[:6]
        cut.fc2.weight[:, weakest] = 0.0
    assert (fitted(x) - before).square().mean() < 0.5 * (cut(x) - before).square().mean()


def test_a_network_is_fitted_to_its_training_items() -> None:
    torch.manual_seed(0)
    network = DiT(sample_size=4, in_channels=1, width=8, depth=2, heads=2, num_classes=1, learn_sigma=False)
    items = list(torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1)))
    seen: list[torch.Tensor] = []

    def loss(model: DiT, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(batch + torch.randn(batch.shape, generator=generator))
        return model(seen[-1], torch.zeros(3), torch.zeros(3, dtype=torch.int64))

    smaller = pruned(network, 12, items, torch.stack, loss, batches=2, batch_size=3)
    assert [block.mlp.fc1.out_features for block in smaller.blocks] == [12, 12]
    assert smaller.config.mlp_ratio == 1.5 and not smaller.training
    assert len(seen) == 4 and torch.equal(seen[0], seen[2])  # each layer sees the same
    assert not torch.equal(seen[0], seen[1])


def test_what_cannot_be_pruned_is_said() -> None:
    with pytest.raises(ValueError, match="25 of 24"):
        prune_hidden([layer()], 25, lambda: None)
    with pytest.raises(ValueError, match="was not run"):
        prune_hidden([layer()], 12, lambda: None)
