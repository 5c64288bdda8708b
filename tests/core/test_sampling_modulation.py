"""The modulation of a whole run: as that of each step by itself, and then its weights are not needed any more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.models import DiT
from polydit.core.sampling import modulation
from polydit.core.sampling.loop import denoise
from polydit.core.sampling.modulation import ModulationSchedule
from polydit.core.sampling.solvers import solver

TIMES, LABELS, ROWS = torch.linspace(0.0, 1.0, 7), torch.tensor([3, 5, 9]), torch.tensor([0, 2, 2, 1])


def network(kind: str = "adaln") -> DiT:
    torch.manual_seed(0)
    made = DiT(sample_size=8, width=32, depth=3, heads=4, num_classes=10, learn_sigma=False, modulation=kind)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.12)
    return made.eval()


@pytest.mark.parametrize("pairs", [512, 7, 6, 1])
@pytest.mark.parametrize("kind", ["adaln", "adaln_single"])
def test_every_step_has_the_table_of_its_time(kind: str, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modulation, "_MOST_PAIRS", pairs)
    made = network(kind)
    schedule = ModulationSchedule(made.modulate, TIMES, [LABELS], ROWS)
    tables = list(schedule)
    assert len(schedule) == len(tables) == len(TIMES)
    for time, table in zip(TIMES, tables, strict=True):
        alone = made.modulate(time.expand(len(ROWS)), LABELS[ROWS])
        torch.testing.assert_close(table.blocks, alone.blocks)
        torch.testing.assert_close(table.final, alone.final)
        assert not table.blocks.requires_grad


def test_a_run_needs_no_modulation_weights() -> None:
    """With them on the meta device, where there is nothing to compute with, the sample is the same to rounding."""

    def sample(made: DiT, tables: ModulationSchedule | None) -> Tensor:
        scheduler, rows = solver("euler"), None if tables is None else iter(tables)
        scheduler.set_timesteps(len(TIMES))
        clock = iter(TIMES)

        def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
            if rows is None:
                return -made(x, next(clock).expand(len(ROWS)), LABELS[ROWS]).sample
            return -made(x, modulation=next(rows)).sample

        noise = torch.randn(len(ROWS), 4, 8, 8, generator=torch.Generator().manual_seed(1))
        return denoise(predict, noise, scheduler)

    made = network()
    usual = sample(made, None)
    schedule = ModulationSchedule(made.modulate, TIMES, [LABELS], ROWS)
    for part in (made.modulator, made.time_embed, made.label_embed):
        part.to("meta")
    torch.testing.assert_close(sample(made, schedule), usual, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="meta"):
        sample(made, None)


def test_what_is_no_run_is_refused() -> None:
    made = network()
    with pytest.raises(InputError, match="0 steps"):
        ModulationSchedule(made.modulate, TIMES[:0], [LABELS], ROWS)
    with pytest.raises(InputError, match=r"conditions of \[3, 2\] rows"):
        ModulationSchedule(made.modulate, TIMES, [LABELS, LABELS[:2]], ROWS)
