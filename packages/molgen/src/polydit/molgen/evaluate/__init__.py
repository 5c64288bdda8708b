"""The field's figures of generated molecules and crystals."""

from polydit.molgen.evaluate.evaluation import Evaluation
from polydit.molgen.evaluate.evaluator import evaluate_structures
from polydit.molgen.evaluate.summary import Figure

__all__ = ["Evaluation", "Figure", "evaluate_structures"]
