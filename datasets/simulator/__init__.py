"""The simulator: scene, camera, targets and detector, composed into sequences."""

from datasets.simulator.compose import Simulated, simulate
from datasets.simulator.draws import PRESETS, read_recipe

__all__ = ["PRESETS", "Simulated", "read_recipe", "simulate"]
