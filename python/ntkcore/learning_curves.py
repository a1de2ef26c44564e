"""Theory of learning curves beside the experiment: the address of
`ntkcore.theory.learning_curves`.
"""

from ntkcore.theory.learning_curves import LearningCurve, sphere_experiment

__all__ = ["LearningCurve", "sphere_experiment"]
