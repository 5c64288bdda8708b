"""Guidance: the conditional prediction is moved away from a worse one.

Plain classifier-free guidance is `guide` and `guided_model`. Everything else is a guider of diffusers, or `SoftPAG`,
which `Guided` makes a `Predict` of the denoising loop. With c the conditional prediction, u the one without condition,
p the one of the perturbed network, s `guidance_scale` and w the scale of the perturbation::

    guide, ClassifierFreeGuidance        u + s (c - u)                    none: s = 1      without condition: s = 0
    PerturbedAttentionGuidance, SLG      u + s (c - u) + w (c - p)        none: s = 1, w = 0
      the same at s = 1                  p + w (c - p)                    none: w = 1, and also w = 0, which is off
    AutoGuidance                         p + s (c - p)                    none: s = 1      p has no condition either
    AdaptiveProjectedGuidance            u + s · projection of (c - u)    none: s = 1
    SoftPAG                              u + s (c - u) + w (c - p)        none: s = 1, w = 0
      the same at s = 1                  c + w (c - p)                    none: w = 0

`use_original_formulation=True` of diffusers' guiders puts c in the place of the leading u or p, so that their s counts
from 0 (none). A literature scale of "1 + w" is s; a literature scale of "w" belongs to the original formulation.

Intervals are shares of the steps: a guider is at work from step ⌊start · n⌋ on and before step ⌊stop · n⌋. In PAG and
SLG of diffusers the perturbation begins one step later than that, so a run of one step never has it; in SoftPAG not.
"""

from polydit.core.sampling.guidance.classifier_free import guide, guided_model
from polydit.core.sampling.guidance.guided import Guided
from polydit.core.sampling.guidance.head_hunter import HeadHunter, HeadRanking, RankedHead
from polydit.core.sampling.guidance.heads import Head, heads_of
from polydit.core.sampling.guidance.interval import steps_between
from polydit.core.sampling.guidance.soft_pag import SoftPAG

__all__ = [
    "Guided",
    "Head",
    "HeadHunter",
    "HeadRanking",
    "RankedHead",
    "SoftPAG",
    "guide",
    "guided_model",
    "heads_of",
    "steps_between",
]
