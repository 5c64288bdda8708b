"""The field's figures of generated clouds: 1-NNA, COV, MMD and JSD on the full sets."""

from polydit.pointgen.evaluate.evaluation import Figures, evaluate_clouds

__all__ = ["Figures", "evaluate_clouds"]
