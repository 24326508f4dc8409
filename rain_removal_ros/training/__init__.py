"""Training: one loop for all networks. Each network's ``Objective`` defines what is minimised."""

from __future__ import annotations

from rain_removal_ros.training.recipe import Recipe, load_recipe
from rain_removal_ros.training.run import TrainingRun, train

__all__ = ["Recipe", "TrainingRun", "load_recipe", "train"]
