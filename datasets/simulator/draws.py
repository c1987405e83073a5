"""Distributions from a recipe file, and the recipes that are shipped.

A value in a recipe is a number (always that), [low, high] (uniform), or `choice: weight` entries.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.errors import InputError, nearest
from utils.options import read_yaml

PRESETS = ("nudt", "wide", "snr", "demo")
_FOLDER = Path(__file__).parents[2] / "configs" / "simulator"


def draw(spec, rng: np.random.Generator):
    """One value of a distribution."""
    if isinstance(spec, dict):
        weights = np.array(list(spec.values()), np.float64)
        return list(spec)[rng.choice(len(spec), p=weights / weights.sum())]
    if isinstance(spec, list):
        return float(rng.uniform(*spec))
    return spec


def read_recipe(name: str) -> dict[str, dict]:
    """The recipe of a preset or of a YAML file, whose keys are those of the presets.

    A file gives what differs from `nudt`. Raises InputError for an unknown preset, section or key,
    and for a value that is no distribution.
    """
    recipe = read_yaml(_FOLDER / "nudt.yaml")
    path = _FOLDER / f"{name}.yaml" if name in PRESETS else Path(name)
    if name not in PRESETS and path.suffix not in (".yaml", ".yml"):
        raise InputError(f"unknown preset {name!r}: choose from {', '.join(PRESETS)}, or FILE.yaml")
    for section, values in read_yaml(path).items():
        if section not in recipe or not isinstance(values, dict):
            raise InputError(f"{path}: {section!r}: sections are {', '.join(recipe)}")
        for key, spec in values.items():
            if key not in recipe[section]:
                guess = nearest(str(key), recipe[section])
                hint = f"; did you mean {guess!r}?" if guess else ""
                raise InputError(f"{path}: {section}: unknown key {key!r}{hint}")
            if not _is_distribution(spec) or isinstance(spec, dict) != isinstance(
                recipe[section][key], dict
            ):
                raise InputError(f"{path}: {section}: {key}: {spec!r} is not what the key takes")
        recipe[section] |= values
    return recipe


def _is_distribution(spec) -> bool:
    if isinstance(spec, dict):
        weights = list(spec.values())
        return bool(weights) and all(_is_number(w) and w >= 0 for w in weights) and sum(weights) > 0
    if isinstance(spec, list):
        return len(spec) == 2 and all(map(_is_number, spec)) and spec[0] <= spec[1]
    return _is_number(spec)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
