"""The field's figures of virtual stains that need no weights: images, DAB, masks and nuclei."""

from polydit.vstain.evaluate.evaluation import Evaluation, Measured, evaluate_stains
from polydit.vstain.evaluate.match import Matched, match_runs

__all__ = ["Evaluation", "Matched", "Measured", "evaluate_stains", "match_runs"]
