"""The simulator: scene, camera, targets and detector, composed into sequences."""

from datasets.simulator.compose import Simulated, simulate
from datasets.simulator.recipes import PRESETS, read_recipe
from datasets.simulator.scenes import FAMILIES

__all__ = ["FAMILIES", "PRESETS", "Simulated", "read_recipe", "simulate"]
