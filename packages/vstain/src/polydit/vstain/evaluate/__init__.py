"""The field's figures of virtual stains, and distances in the features of a network that is named."""

from polydit.vstain.evaluate.evaluation import Evaluation, Measured, evaluate_stains
from polydit.vstain.evaluate.match import Matched, match_runs

__all__ = ["Evaluation", "Matched", "Measured", "evaluate_stains", "match_runs"]
