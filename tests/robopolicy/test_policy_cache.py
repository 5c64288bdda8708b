"""Caches of steps in a policy: each run is one chunk, whatever the system; and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache import CacheReport, CacheWarning
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.evaluate.choice import PolicyChoice
from polydit.robopolicy.models import Sizes, action_model, build_network
from polydit.robopolicy.policy import RobotPolicy
from polydit.robopolicy.recipe import MoDESettings, NetworkSize, PADSettings, Recipe

Make = Callable[..., RobotPolicy]
Observation = Mapping[str, np.ndarray | str]
SIZES = Sizes(state=5, action=3, language=8, language_tokens=2)
NEWTON = "newton(every=3,order=2,warm_up=2,cool_down=0,first=1,time=step)"


def system(name: str, **settings: Any) -> Any:
    """A system with random weights."""
    torch.manual_seed(0)
    recipe = Recipe(
        model=name,  # type: ignore[arg-type]
        network=NetworkSize(width=32, depth=3, heads=2),
        cameras=("top",) if name == "pad" else (),
        image_size=16,
        pad=PADSettings(joint=True, future_frames=1),
        mode=MoDESettings(dense=settings.pop("dense", False)),
    )
    network = build_network(recipe, SIZES).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():  # a head that starts at zero would answer nothing but zeros
                nn.init.normal_(parameter, std=0.2)
    return action_model(name, network, **settings)


def batch(items: int = 2) -> PolicyBatch:
    generator = torch.Generator().manual_seed(1)
    return PolicyBatch(
        state=torch.randn(items, 5, generator=generator),
        language=torch.randn(items, 2, 8, generator=generator),
        language_mask=torch.ones(items, 2, dtype=torch.bool),
        control_frequency=torch.full((items,), 20.0),
        images=torch.rand(items, 1, 3, 16, 16, generator=generator),
    )


def seen_by(name: str) -> PolicyBatch:
    found = batch()
    return found if name == "pad" else PolicyBatch(**{**vars(found), "images": None})


def chunk(model: Any, name: str, cache: str | None, steps: int = 8, **told: Any) -> Tensor:
    noise = torch.randn(2, model.horizon, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found: Tensor = model.sample(seen_by(name), noise, steps, cache=cache, **told)
    return found


@pytest.mark.parametrize(
    "cache", ["newton", "newton(time=sigma)", "taylorseer", "delta-dit", "newton(time=log_snr)"]
)
@pytest.mark.parametrize("name", ["rdt", "mode", "pad"])
def test_every_system_can_be_cached_and_is_left_as_it_was(name: str, cache: str) -> None:
    model, reports = system(name), list[CacheReport]()
    plain = chunk(model, name, None)
    assert torch.equal(chunk(model, name, "none"), plain)
    first = chunk(model, name, cache, on_cache=reports.append)
    assert torch.equal(chunk(model, name, cache, on_cache=reports.append), first)
    assert not torch.equal(first, plain) and torch.equal(chunk(model, name, None), plain)
    assert len(reports) == 2 and reports[0] == reports[1]
    assert reports[0].num_steps == 8 and len(reports[0].skipped_steps) >= 4


def test_experts_that_are_chosen_in_every_call_leave_no_block_to_forecast() -> None:
    model = system("mode", cached=False)
    with pytest.raises(InputError, match=r"outputs of NoiseBlock.*cache modules of the block"):
        chunk(model, "mode", "newton")
    with pytest.raises(InputError, match=r"module 0\.mlp gives more than tensors: Tensor, Routing"):
        chunk(model, "mode", "taylorseer")
    assert chunk(system("mode", dense=True), "mode", "newton").isfinite().all()


def test_a_policys_own_cache_serves_every_chunk(
    new_tiny_policy: Make, observation: Observation, tmp_path: Path
) -> None:
    plain = new_tiny_policy()
    noise = plain.draw(torch.Generator().manual_seed(0))[None]
    plain.register_to_config(cache=NEWTON)
    plain.save_pretrained(tmp_path)
    policy, reports = RobotPolicy.from_pretrained(tmp_path), list[CacheReport]()
    policy.on_cache = reports.append
    planned = policy.plan([observation], noise)
    assert reports[0].skipped_steps == (2, 3) and reports[0].num_steps == 5
    assert np.array_equal(policy.plan([observation], noise, cache="newton"), planned)
    uncached = policy.plan([observation], noise, cache=None)
    assert len(reports) == 2 and not np.array_equal(uncached, planned)
    policy.reset(3)
    actions = [policy.select_action(observation) for _ in range(4)]
    assert len(reports) == 4 and np.isfinite(actions).all()  # a chunk for every two actions


def test_a_cache_that_skips_nothing_says_so(tiny_policy: RobotPolicy, observation: Observation) -> None:
    noise = tiny_policy.draw(torch.Generator().manual_seed(0))[None]
    with pytest.warns(CacheWarning, match="skips nothing in 2 steps"):
        found = tiny_policy.sample([observation], noise, num_steps=2, cache="newton")
    assert torch.equal(found, tiny_policy.sample([observation], noise, num_steps=2))


def test_a_choice_settles_what_auto_is_and_refuses_before_the_first_episode(tiny_folder: Path) -> None:
    from polydit.robopolicy.checkpoint import Checkpoint

    found = Checkpoint.find(str(tiny_folder))
    assert PolicyChoice.of(found).cache == "none"
    assert PolicyChoice.of(found, cache=NEWTON).cache == NEWTON
    suggesting = Checkpoint(found.path, "mine", "", {**found.index, "cache": "newton"})
    assert PolicyChoice.of(suggesting).cache == NEWTON
    with pytest.raises(InputError, match="table is for 4 steps and the run has 5"):
        PolicyChoice.of(found, cache="ddt(full=0+2,of=4)").load()
    with pytest.raises(InputError, match="no cache is called 'magic'"):
        PolicyChoice.of(Checkpoint(found.path, "mine", "", {**found.index, "cache": "magic"}))
