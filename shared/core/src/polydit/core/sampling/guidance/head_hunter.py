"""HeadHunter: the search for the attention heads whose perturbation serves a user's objective.

>>> hunter = HeadHunter(candidates=heads_of(network), rounds=3)
>>> hunter.num_evaluations
>>> def sample(heads):
...     guided = Guided(network, call, soft_pag.with_heads(heads), conditions, num_steps=20)
...     return denoise(guided, noise, scheduler())
>>> ranking = hunter.search(sample, objective=lambda images: float(aesthetics(images).mean()))
>>> soft_pag.with_heads(ranking.selected())
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from polydit.core.errors import InputError
from polydit.core.sampling.guidance.heads import Head


@dataclass(frozen=True, slots=True)
class RankedHead:
    """A head that was chosen.

    Args:
        block: Its block.
        head: Its number there.
        score: Of the samples with it and all heads of the rounds before perturbed.
        round: In which it was chosen, counted from 0.
    """

    block: int
    head: int
    score: float
    round: int


@dataclass(frozen=True, slots=True)
class HeadRanking:
    """What a search found.

    Args:
        baseline: Score of the samples without perturbation.
        heads: By the order in which they were chosen.
    """

    baseline: float
    heads: tuple[RankedHead, ...]

    def selected(self, count: int | None = None) -> tuple[Head, ...]:
        """The first `count` heads, for `SoftPAG`; None = all."""
        return tuple(Head(found.block, found.head) for found in self.heads[:count])

    def to_json(self) -> str:
        """One line of JSON; `from_json` gives the same ranking back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> HeadRanking:
        """A ranking that was kept.

        Raises:
            InputError: The text is something else.
        """
        try:
            kept = json.loads(text)
            return cls(float(kept["baseline"]), tuple(RankedHead(**found) for found in kept["heads"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"this is no ranking of heads: {error}", where="HeadRanking") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadHunter:
    """Greedy search in rounds (Ahn et al. 2025, "Fine-grained perturbation guidance", HeadHunter).

    Each round perturbs every head that is left together with those chosen so far, scores the samples, and adds the
    best. Heads of equal score are taken in the order of the candidates: the same scores give the same ranking.

    Args:
        candidates: Heads to try; `heads_of` lists a network's.
        rounds: Rounds of the search.
        per_round: Heads that each round adds.

    Raises:
        InputError: A candidate comes twice, or there are not enough for the rounds.
    """

    candidates: tuple[Head, ...]
    rounds: int = 3
    per_round: int = 1

    def __post_init__(self) -> None:
        if len(set(self.candidates)) < len(self.candidates):
            raise InputError("a candidate comes twice", where="HeadHunter")
        if min(self.rounds, self.per_round) < 1 or self.rounds * self.per_round > len(self.candidates):
            raise InputError(
                f"{self.rounds} rounds of {self.per_round} heads from {len(self.candidates)} candidates",
                where="HeadHunter",
                expected="1 or more of each, and as many candidates as are chosen",
            )

    @property
    def num_evaluations(self) -> int:
        """Times that samples are drawn and scored: the cost, known before the search."""
        return 1 + sum(len(self.candidates) - index * self.per_round for index in range(self.rounds))

    def search(
        self,
        sample: Callable[[tuple[Head, ...]], Any],
        objective: Callable[[Any], float],
        *,
        on_evaluation: Callable[[int, int], None] | None = None,
    ) -> HeadRanking:
        """Rank heads.

        Args:
            sample: Draws samples with these heads perturbed, none at first. Draw from the same noise each time, or
                chance is ranked.
            objective: Score of such samples; higher is better.
            on_evaluation: Told (evaluations done, `num_evaluations`), first of all (0, `num_evaluations`).

        Raises:
            InputError: A score is not finite.
        """
        done = 0
        if on_evaluation is not None:
            on_evaluation(0, self.num_evaluations)

        def score(heads: tuple[Head, ...]) -> float:
            nonlocal done
            found = float(objective(sample(heads)))
            if not math.isfinite(found):
                names = ", ".join(f"{block}.{head}" for block, head in heads) or "none"
                raise InputError(
                    f"the score with the heads {names} is {found}",
                    where="objective",
                    expected="a finite number",
                )
            done += 1
            if on_evaluation is not None:
                on_evaluation(done, self.num_evaluations)
            return found

        baseline, ranked, left = score(()), list[RankedHead](), list(self.candidates)
        for index in range(self.rounds):
            chosen = tuple(Head(found.block, found.head) for found in ranked)
            scores = {head: score((*chosen, head)) for head in left}
            best = sorted(left, key=scores.__getitem__, reverse=True)[: self.per_round]  # a stable order
            ranked += [RankedHead(*head, scores[head], index) for head in best]
            left = [head for head in left if head not in best]
        return HeadRanking(baseline, tuple(ranked))
