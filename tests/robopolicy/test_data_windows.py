"""Windows against the plain loop that they replace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.robopolicy.data.info import DatasetInfo
from polydit.robopolicy.data.pictures import ArrayFrames
from polydit.robopolicy.data.readers import Dataset, measure
from polydit.robopolicy.data.statistics import Statistics
from polydit.robopolicy.data.windows import Windows
from polydit.robopolicy.episode import Episode

LENGTHS = (7, 1, 12)


class Memory(Dataset):
    """Episodes in memory; one of four is bad."""

    path, stored, problems = Path("memory"), None, ()
    info = DatasetInfo(version="memory", fps=10.0, robot_type="", features={}, tasks=("a", "b"))

    @property
    def statistics(self) -> Statistics:
        return measure(self[k] for k in (0, 1, 3))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Episode:
        if index == 2:
            raise InputError("is bad", where="episode 2")
        count, rng = LENGTHS[index - (index > 2)], np.random.default_rng(index)
        return Episode(
            index=index,
            fps=10.0,
            task="ab"[index % 2],
            state=rng.normal(size=(count, 3)).astype(np.float32),
            action=rng.normal(size=(count, 2)).astype(np.float32),
            images={"top": ArrayFrames(rng.integers(0, 256, (count, 4, 6, 3), dtype=np.uint8))},
            extra={"next.reward": np.arange(count, dtype=np.float64), "comment": np.array(["x"] * count)},
        )


GOOD = [Memory()[k] for k in (0, 1, 3)]


@pytest.fixture
def windows() -> Windows:
    return Windows(Memory(), 5)


def test_every_window_is_what_the_loop_gives(windows: Windows) -> None:
    assert len(windows) == sum(LENGTHS)
    batch = windows.batch(windows.pairs)
    row = 0
    for number, episode in enumerate(GOOD):
        for frame in range(len(episode)):
            assert (batch.episode[row], batch.frame[row]) == (number, frame)
            assert np.array_equal(batch.state[row], episode.state[frame])
            assert batch.tasks[row] == episode.task
            for step in range(5):
                last = min(frame + step, len(episode) - 1)
                assert np.array_equal(batch.actions[row, step], episode.action[last])
                assert batch.is_pad[row, step] == (frame + step >= len(episode))
            row += 1
    assert row == len(batch.state)


def test_one_window_is_a_row_of_the_batch(windows: Windows) -> None:
    one, many = windows[2, 9], windows.batch(np.array([[0, 0], [2, 9]]))
    assert np.array_equal(one.actions, many.actions[1]) and np.array_equal(one.is_pad, many.is_pad[1])
    assert one.is_pad.tolist() == [False] * 3 + [True] * 2
    assert one.tasks == ("b",) and one.images == {} and one.image_is_pad is None
    assert one.state.shape == (3,)


def test_bad_episodes_are_left_out_and_named(windows: Windows) -> None:
    assert windows.rejected == [(2, "episode 2: is bad")]
    assert windows.lengths.tolist() == list(LENGTHS)
    assert windows.fps == 10
    assert np.array_equal(windows.states, np.concatenate([episode.state for episode in GOOD]))


def test_pairs_and_numbers(windows: Windows) -> None:
    assert windows.locate(np.array([0, 6, 7, 8, 19])).tolist() == [[0, 0], [0, 6], [1, 0], [2, 0], [2, 11]]
    assert windows.pairs.shape == (20, 2)


@pytest.mark.parametrize("keep_bytes", [0, 1 << 20])
def test_pictures_at_offsets(keep_bytes: int) -> None:
    windows = Windows(Memory(), 2, cameras=["top"], image_offsets=(-1, 0, 3), keep_bytes=keep_bytes)
    batch = windows.batch(np.array([[0, 0], [2, 9], [0, 4]]))
    assert batch.images["top"].shape == (3, 3, 4, 6, 3)
    assert batch.image_is_pad is not None
    assert batch.image_is_pad.tolist() == [[True, False, False], [False, False, True], [False, False, True]]
    for row, (episode, frames) in enumerate([(0, (0, 0, 3)), (2, (8, 9, 11)), (0, (3, 4, 6))]):
        for place, frame in enumerate(frames):
            expected = GOOD[episode].images["top"][frame]
            assert np.array_equal(batch.images["top"][row, place], expected)
    assert windows[1, 0].images["top"].shape == (3, 4, 6, 3)


def test_the_next_state_as_action() -> None:
    """RDT's pre-training takes the next state; PAD plans poses some frames ahead."""
    windows = Windows(Memory(), 3, "observation.state", first=1, stride=2)
    window = windows[2, 8]
    assert np.array_equal(window.actions, GOOD[2].state[[9, 11, 11]])
    assert window.is_pad.tolist() == [False, False, True]
    rewards = Windows(Memory(), 2, "next.reward")
    assert rewards[0, 5].actions.tolist() == [[5.0], [6.0]]


def test_what_cannot_be_a_window(windows: Windows) -> None:
    for pair in ((3, 0), (0, 7), (-1, 0), (0, -1)):
        with pytest.raises(IndexError):
            windows[pair]
    with pytest.raises(InputError, match="horizon 0"):
        Windows(Memory(), 0)
    with pytest.raises(InputError, match=r"no numbers 'comment'; expected one of .*next\.reward"):
        Windows(Memory(), 2, "comment")
    with pytest.raises(InputError, match="no camera 'side'; expected one of top"):
        Windows(Memory(), 2, cameras=["side"])

    class Bad(Memory):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Episode:
            raise InputError("is bad", where="episode 0")

    with pytest.raises(InputError, match="memory: no episode can be used: episode 0: is bad"):
        Windows(Bad(), 2)
