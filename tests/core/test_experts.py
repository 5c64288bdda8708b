"""Mixture of experts against sums written out by hand, against diffusers' own, and against the laws of its draws."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_hidream_image import MOEFeedForwardSwiGLU
from torch import Tensor, nn

from polydit.core.nn.experts import Experts, RoutedFeedForward, Router, Routing, balance_loss, choose
from polydit.core.nn.feed_forward import FeedForward, SwiGLU

FORMS = [("swiglu", True), ("swiglu", False), ("gelu", False), ("linear", True)]
WIDTH, HIDDEN, COUNT = 16, 24, 4


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def experts_of(form: str, bias: bool) -> Experts:
    torch.manual_seed(0)
    experts = Experts(WIDTH, HIDDEN, COUNT, form=form, bias=bias)
    if experts.b_in is not None:
        nn.init.normal_(experts.b_in)
    return experts


def one_expert(experts: Experts, index: int, x: Tensor) -> Tensor:
    """An expert by its formula."""
    hidden = x @ experts.w_in[index]
    if experts.b_in is not None:
        hidden = hidden + experts.b_in[index]
    if experts.w_out is None:
        return hidden
    if experts.form == "gelu":
        return F.gelu(hidden) @ experts.w_out[index]
    return (F.silu(hidden[..., :HIDDEN]) * hidden[..., HIDDEN:]) @ experts.w_out[index]


def by_hand(experts: Experts, x: Tensor, routing: Routing) -> Tensor:
    rows = [
        sum(
            (w * one_expert(experts, int(i), row) for w, i in zip(weights, indices, strict=True)),
            torch.zeros(()),
        )
        for row, weights, indices in zip(x, routing.weights, routing.indices, strict=True)
    ]
    return torch.stack(rows)


def routing_of(rows: int, top_k: int = 2) -> Routing:
    return choose(seeded(rows, COUNT, seed=rows).softmax(-1), top_k)


@pytest.mark.parametrize(("form", "bias"), FORMS)
@pytest.mark.parametrize(("rows", "tokens", "top_k"), [(7, 5, 2), (1, 6, 2), (9, 1, 3), (3, 4, 1)])
def test_rows_get_the_weighted_sum_of_their_experts(
    form: str, bias: bool, rows: int, tokens: int, top_k: int
) -> None:
    experts, x, routing = experts_of(form, bias), seeded(rows, tokens, WIDTH), routing_of(rows, top_k)
    torch.testing.assert_close(experts(x, routing), by_hand(experts, x, routing), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("precision", ["fp32", "bf16 autocast"])
def test_compiled_in_one_graph_it_is_the_same(precision: str) -> None:
    """Another way of computing it is taken there, in each precision another one; so are its gradients."""
    experts, x, routing = experts_of("swiglu", True), seeded(5, 3, WIDTH), routing_of(5)
    compiled = torch.compile(experts, fullgraph=True, backend="aot_eager")
    gradients = []
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
        outputs = [run(x, routing) for run in (experts, compiled)]
    for out in outputs:
        experts.zero_grad()
        out.float().square().sum().backward()
        gradients.append([p.grad for p in experts.parameters()])
    exact = precision == "fp32"
    torch.testing.assert_close(
        outputs[0], outputs[1], atol=1e-5 if exact else 3e-2, rtol=1e-5 if exact else 3e-2
    )
    for ours, theirs in zip(*gradients, strict=True):
        assert ours is not None and theirs is not None
        assert (ours - theirs).abs().max() < (1e-5 if exact else 3e-2) * ours.abs().max()


def test_gradients_are_those_of_the_sum_and_zero_for_idle_experts() -> None:
    experts, x = experts_of("swiglu", True), seeded(3, 4, WIDTH)
    routing = Routing(torch.full((3, 2), 0.5), torch.tensor([[0, 2], [2, 0], [0, 2]]), torch.rand(3, COUNT))
    experts(x, routing).square().sum().backward()
    ours = [p.grad.clone() for p in experts.parameters() if p.grad is not None]
    experts.zero_grad()
    by_hand(experts, x, routing).square().sum().backward()
    theirs = [p.grad for p in experts.parameters() if p.grad is not None]
    assert len(ours) == len(theirs) == 3
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        assert a[[1, 3]].abs().max() == 0.0


def test_the_loop_allocates_no_gradient_of_all_experts_for_each() -> None:
    """Selecting w[e] in a loop makes training several times slower: its gradient is as large as the stack."""
    out = experts_of("swiglu", True)(seeded(6, 2, WIDTH), routing_of(6))
    seen, todo = set(), [out.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [parent for parent, _ in node.next_functions]
    names = {type(node).__name__ for node in seen}
    assert "UnbindBackward0" in names and "SelectBackward0" not in names


@pytest.mark.parametrize("tokens", [1, 13])
def test_token_routing_with_a_shared_expert_is_hidreams(tokens: int) -> None:
    torch.manual_seed(1)
    theirs = MOEFeedForwardSwiGLU(WIDTH, 48, COUNT, 2)
    hidden = theirs.shared_experts.w1.out_features
    shared = SwiGLU(WIDTH, hidden)
    ours = RoutedFeedForward(
        Router(nn.Linear(WIDTH, COUNT, bias=False), 2), Experts(WIDTH, hidden, COUNT), shared
    )
    state = {"router.net.weight": theirs.gate.weight}
    shapes = [(expert.w1, expert.w3, expert.w2) for expert in theirs.experts]
    state["experts.w_in"] = torch.stack([torch.cat([g.weight, u.weight]).t() for g, u, _ in shapes])
    state["experts.w_out"] = torch.stack([down.weight.t() for _, _, down in shapes])
    shared_parts = theirs.shared_experts
    state["shared.fc1.weight"] = torch.cat([shared_parts.w1.weight, shared_parts.w3.weight])
    state["shared.fc2.weight"] = shared_parts.w2.weight
    ours.load_state_dict(state)
    x = seeded(2, tokens, WIDTH)
    torch.testing.assert_close(ours(x).tokens, theirs(x), atol=1e-5, rtol=1e-5)
    scores = ours(x).routing
    theirs.gate.alpha = 1.0
    expected = theirs.gate  # its balance loss, which diffusers computes and then drops
    share = F.one_hot(expected(x)[0].flatten(), COUNT).float().mean(0)
    torch.testing.assert_close(
        balance_loss(scores.scores, scores.indices), COUNT * (share * scores.scores.mean(0)).sum()
    )
    torch.testing.assert_close(balance_loss(scores.scores, scores.indices), expected(x)[2])


def test_a_condition_routes_all_tokens_of_an_item_alike() -> None:
    torch.manual_seed(2)
    router = Router(FeedForward(8, 16, "gelu", out=COUNT), 2, normalize=True)
    layer = RoutedFeedForward(router, experts_of("swiglu", True))
    x, condition = seeded(3, 5, WIDTH), seeded(3, 8)
    tokens, routing = layer(x, condition)
    assert routing.indices.shape == (3, 2)
    torch.testing.assert_close(tokens, by_hand(layer.experts, x, routing), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="unknown form 'relu'"):
        Experts(WIDTH, HIDDEN, COUNT, form="relu")


def test_weights_are_scores_or_sum_to_one() -> None:
    scores = seeded(6, COUNT).softmax(-1)
    plain, scaled = choose(scores, 2), choose(scores, 2, normalize=True)
    torch.testing.assert_close(plain.weights, scores.topk(2).values)
    torch.testing.assert_close(scaled.weights.sum(-1), torch.ones(6))
    torch.testing.assert_close(
        scaled.weights[:, 0] / scaled.weights[:, 1], plain.weights[:, 0] / plain.weights[:, 1]
    )
    torch.testing.assert_close(plain.spread().gather(1, plain.indices), plain.weights)
    assert (plain.spread() > 0).sum() == 12


def test_draws_are_multinomial_without_replacement() -> None:
    """P(i first, j second) = p_i · p_j / (1 - p_i)."""
    p, rows = torch.tensor([0.5, 0.3, 0.15, 0.05]), 20_000
    drawn = choose(p.expand(rows, 4), 2, generator=torch.Generator().manual_seed(0)).indices
    seen = Counter(map(tuple, drawn.tolist()))
    for i in range(4):
        for j in range(4):
            expected = 0.0 if i == j else float(p[i] * p[j] / (1 - p[i]))
            assert seen[i, j] / rows == pytest.approx(expected, abs=0.012)
    again = choose(p.expand(rows, 4), 2, generator=torch.Generator().manual_seed(0)).indices
    assert torch.equal(drawn, again)


def test_a_draw_survives_scores_that_leave_no_second_candidate() -> None:
    router = Router(nn.Linear(1, COUNT, bias=False), 2, normalize=True)
    nn.init.zeros_(router.net.weight)
    with torch.no_grad():
        router.net.weight[2] = 1e4
    for generator in (None, torch.Generator().manual_seed(0)):
        routing = router(torch.ones(50, 1), generator)
        assert torch.equal(routing.indices[:, 0], torch.full((50,), 2))
        assert routing.weights.isfinite().all() and (routing.indices[:, 1] != 2).all()


def test_balance_is_one_when_even_and_as_many_as_experts_when_collapsed() -> None:
    even = torch.full((4, COUNT), 0.25)
    assert balance_loss(even, torch.tensor([[0, 1], [2, 3], [1, 0], [3, 2]])).item() == pytest.approx(1.0)
    collapsed = torch.zeros(4, COUNT)
    collapsed[:, 1] = 1.0
    assert balance_loss(collapsed, torch.full((4, 1), 1)).item() == pytest.approx(COUNT)


def test_the_balance_loss_spreads_rows() -> None:
    torch.manual_seed(0)
    router, x = Router(nn.Linear(WIDTH, COUNT), 2), seeded(256, WIDTH)
    nn.init.constant_(router.net.bias, 0.0)
    with torch.no_grad():
        router.net.bias[0] = 4.0  # everybody likes expert 0
    optimizer = torch.optim.Adam(router.parameters(), 0.05)
    losses = []
    for _ in range(60):
        routing = router(x)
        loss = balance_loss(routing.scores, routing.indices)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 1.8 and losses[-1] < 1.1


@pytest.mark.parametrize(("form", "bias"), FORMS[:3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 40])
def test_fused_experts_are_the_sum_of_them(form: str, bias: bool, dtype: torch.dtype, rows: int) -> None:
    experts, x = experts_of(form, bias).to(dtype), seeded(rows, 6, WIDTH).to(dtype)
    weights = torch.tensor([0.7, 0.3])
    routing = Routing(
        weights.expand(rows, 2), torch.tensor([[3, 1]]).expand(rows, 2), torch.rand(rows, COUNT)
    )
    fused = experts.fuse((3, 1), rows=6)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    with torch.no_grad():
        torch.testing.assert_close(fused(x, weights), experts(x, routing), atol=tolerance, rtol=tolerance)
    gates = 2 if form == "swiglu" else 1
    assert fused.nbytes == 2 * HIDDEN * WIDTH * (gates + 1) * dtype.itemsize


def test_fused_experts_do_not_change_with_those_they_were_made_of() -> None:
    experts, x, weights = experts_of("swiglu", True), seeded(1, 6, WIDTH), torch.tensor([0.7, 0.3])
    fused = experts.fuse((0, 1), rows=6)
    before = fused(x, weights)
    nn.init.zeros_(experts.w_out)
    assert torch.equal(fused(x, weights), before)


def test_linear_experts_cannot_be_fused() -> None:
    with pytest.raises(ValueError, match="no hidden layer"):
        experts_of("linear", True).fuse((0, 1), rows=6)
