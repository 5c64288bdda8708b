"""A router's training that goes on where it stopped, and what is no state of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.models import DiT
from polydit.core.sampling.cache import RouterTraining, RouteTable, train_router
from polydit.core.sampling.cache.router_state import RouterState
from polydit.core.sampling.loop import denoise
from polydit.core.sampling.solvers import solver

STEPS = 4
TRAINING = RouterTraining(iterations=5, beta=1e-9, rate=1.0, proxy_every=3)
SETTINGS = {"beta": "1e-09", "seed": "0"}


def network(depth: int = 2) -> DiT:
    torch.manual_seed(0)
    made = DiT(sample_size=8, width=32, depth=depth, heads=4, num_classes=10, learn_sigma=False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.12)
    return made.eval()


def learn(made: DiT, start: RouterState | None = None) -> list[tuple[RouteTable, RouterState]]:
    """The table and the state after each trajectory."""

    def sample() -> list[Tensor]:
        scheduler = solver("euler")
        scheduler.set_timesteps(STEPS)

        def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
            return made(x, (timestep / 1000).expand(2), torch.tensor([3, 5])).sample

        noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        return list(denoise(predict, noise, scheduler))

    found: list[tuple[RouteTable, RouterState]] = []
    train_router(made, sample, TRAINING, start=start, on_iteration=lambda *both: found.append(both))
    return found


@pytest.mark.parametrize("stopped", [1, 3, 4])
def test_a_training_goes_on_as_if_it_had_not_stopped(stopped: int, tmp_path: Path) -> None:
    made, path = network(), tmp_path / "routes.json.training"
    whole = learn(made)
    whole[stopped - 1][1].write(path, SETTINGS)
    start = RouterState.read(path, SETTINGS)
    assert start.iterations == stopped
    rest = learn(made, start)
    assert [table for table, _ in rest] == [table for table, _ in whole[stopped:]]
    for name in ("logits", "mean", "square", "weights"):
        assert torch.equal(getattr(rest[-1][1], name), getattr(whole[-1][1], name))
    assert not learn(made, whole[-1][1])  # nothing is left to do


def state() -> RouterState:
    logits, mean, square = torch.zeros(3, 3, 4).unbind()
    return RouterState(
        iterations=2,
        logits=logits.clone(),
        mean=mean.clone(),
        square=square.clone(),
        weights=torch.zeros(3, dtype=torch.float64),
    )


def test_other_settings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state().write(path, SETTINGS)
    with pytest.raises(InputError, match=r"seed \(0 before, 1 now\)") as refused:
        RouterState.read(path, {**SETTINGS, "seed": "1"})
    assert "beta" not in refused.value.problem and "--overwrite" in str(refused.value)


def test_a_state_of_another_network_is_refused() -> None:
    with pytest.raises(InputError, match="the training has 4 steps of 4 modules; expected 4 steps of 6"):
        learn(network(3), state())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"logits": torch.full((3, 4), float("nan"))}, "it holds what is no number"),
        ({"mean": torch.zeros(2, 4)}, "do not fit one another"),
        ({"weights": torch.zeros(5).double()}, "do not fit one another"),
    ],
)
def test_tensors_that_cannot_be_are_refused(change: dict[str, Any], problem: str, tmp_path: Path) -> None:
    path, good = tmp_path / "state", state()
    tensors = {name: getattr(good, name).clone() for name in ("logits", "mean", "square", "weights")} | change
    save_file(tensors, path, metadata={"iterations": "2", "settings": '{"beta": "1e-09", "seed": "0"}'})
    with pytest.raises(InputError, match=problem):
        RouterState.read(path, SETTINGS)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    replace(state(), iterations=7).write(path, SETTINGS)
    whole = path.read_bytes()
    for damaged in (b"", whole[:-9], whole[9:], whole.replace(b"iterations", b"iterationz")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            RouterState.read(path, SETTINGS)
