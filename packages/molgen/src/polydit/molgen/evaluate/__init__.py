"""The field's figures of generated molecules and crystals."""

from polydit.core.figure import Figure
from polydit.molgen.evaluate.evaluation import Evaluation
from polydit.molgen.evaluate.evaluator import evaluate_structures

__all__ = ["Evaluation", "Figure", "evaluate_structures"]
