"""The baseline is what it says it is: the published figures come out of it, and the other two networks agree."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from polydit.bench.dit_s import Size, dit_s
from polydit.bench.plain_dit import PlainDiT, sample_flow
from polydit.core.sampling import denoise, guided_model
from polydit.core.sampling.solvers import EulerScheduler
from polydit.core.testing.golden import GoldenCase

ADAPTERS = Path(__file__).parents[1] / "golden" / "adapters"
TINY = Size(width=48, depth=2, heads=2)


class InOurPlace:
    """The plain network behind the interface of ours, so that the adapters of the golden cases take it."""

    def __init__(self, plain: PlainDiT) -> None:
        self.plain, self.config = plain, plain.config

    def __call__(self, x: Tensor, time: Tensor, label: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.plain(x, time, label))


def adapter_of(system: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"plain_{system}", ADAPTERS / f"{system}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
@pytest.mark.parametrize("name", ["dit-forward", "dit-sampling", "sit-forward"])
def test_golden_cases(
    name: str, read_case: Callable[[str], GoldenCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = read_case(name)

    def build(state: dict[str, Tensor], *, return_sigma: bool = True, **_: Any) -> InOurPlace:
        names = ("input_size", "hidden_size", "depth", "num_heads", "num_classes")
        model = PlainDiT(**{name: case.config[name] for name in names}, return_sigma=return_sigma).eval()
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert missing == ["pos_embed"] and not unexpected  # the table keeps what the constructor gives
        return InOurPlace(model)

    adapter = adapter_of(case.system)
    monkeypatch.setattr(adapter, "dit_from_published", build)
    case.compare(adapter.outputs(case))


@torch.no_grad()
def test_guidance_is_the_published(read_case: Callable[[str], GoldenCase]) -> None:
    """The plain network's own guidance, which the sampling row measures, is that of the golden case."""
    case = read_case("dit-forward")
    given = case.inputs()
    names = ("input_size", "hidden_size", "depth", "num_heads", "num_classes")
    model = PlainDiT(**{name: case.config[name] for name in names}).eval()
    model.load_state_dict(case.state_dict(), strict=False)
    guided = model.guided(given["x"], given["t"], given["y"], 4.0)
    conditional = model(given["x"], given["t"], given["y"])
    null = model(given["x"], given["t"], torch.full_like(given["y"], 10))
    variance = conditional[:, 4:]
    both = torch.cat([guided, variance], dim=1)
    other = torch.cat([guided[:, :3], null[:, 3:]], dim=1)
    case.check("forward_with_cfg", torch.cat([both, other]))


@torch.no_grad()
def test_three_networks_are_one() -> None:
    three = dit_s(4, TINY)
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    time, label = torch.tensor([999.0, 500.0, 3.0]), torch.tensor([1, 7, 1000])
    plain = three.plain(x, time, label)
    assert plain.std() > 0.01
    torch.testing.assert_close(three.ours(x, time, label).sample, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(three.diffusers(x, time, class_labels=label).sample, plain, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_plain_loop_is_ours() -> None:
    three, steps = dit_s(4, TINY), 4
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([1, 7])
    scheduler = EulerScheduler()
    scheduler.set_timesteps(steps)

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        labels = torch.cat([label, torch.full_like(label, 1000)])

        def both(doubled: Tensor) -> Tensor:
            return three.ours(doubled, timestep.expand(4), labels).sample[:, :4]

        return guided_model(both, x, 3.0, 3)

    ours = denoise(predict, x, scheduler)
    plain = sample_flow(three.plain, x, label, num_steps=steps, guidance_scale=3.0)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)
