"""Recipes: the YAML files that say what is simulated, and what each of their keys may hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets.simulator.camera import DEPTHS, MOTIONS
from datasets.simulator.scenes import FAMILIES
from datasets.simulator.targets import PATHS, POLARITIES, SHAPES
from utils.errors import InputError, nearest
from utils.options import read_yaml

PRESETS = ("nudt", "wide", "snr", "demo")
_FOLDER = Path(__file__).parents[2] / "configs" / "simulator"


@dataclass(frozen=True)
class Number:
    """A number, or [low, high], within bounds."""

    least: float
    most: float

    def allows(self, spec) -> bool:
        ends = spec if isinstance(spec, list) else [spec, spec]
        inside = all(_is_number(end) and self.least <= end <= self.most for end in ends)
        return len(ends) == 2 and inside and ends[0] <= ends[1]

    def __str__(self) -> str:
        return f"a number or [low, high] from {self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Choice:
    """`choice: weight` entries, each one of `names`; weights of 0 or more, not all 0."""

    names: tuple | range

    def allows(self, spec) -> bool:
        if not isinstance(spec, dict) or any(isinstance(name, bool) for name in spec):
            return False
        weights = spec.values()
        return (
            all(name in self.names for name in spec)
            and all(_is_number(w) and 0 <= w <= 1e6 for w in weights)
            and sum(weights) > 0
        )

    def __str__(self) -> str:
        whole = isinstance(self.names, range)
        names = f"0 to {self.names[-1]}" if whole else ", ".join(map(str, self.names))
        return f"{{choice: weight, ...}} with choices from {names} and a weight above 0"


@dataclass(frozen=True)
class OneOf:
    """One of a few numbers, never drawn."""

    values: tuple

    def allows(self, spec) -> bool:
        return _is_number(spec) and spec in self.values

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


# Upper bounds are far beyond what is sensible: they catch a wrong unit, not a bold experiment.
LEVEL, SHARE, PIXELS = Number(0, 255), Number(0, 1), Number(0, 100)
KEYS: dict[str, dict[str, Number | Choice | OneOf]] = {
    "scene": {
        "families": Choice(tuple(FAMILIES)),
        "mean": LEVEL,
        "contrast": LEVEL,
        "beta": Number(0, 6),
        "layer_speed": Number(0, 10),  # the picture grows by it times the frames
        "edges": Number(0, 1000),
        "clutter": Number(0, 100_000),
    },
    "camera": {
        "motion": Choice(MOTIONS),
        "jitter": Number(0, 10),
        "drift": Number(0, 10),
        "pan": Number(0, 10),
    },
    "detector": {
        "optics": Number(0.1, 10),  # below, a spot is smaller than any pixel can tell
        "read_noise": LEVEL,
        "shot_noise": LEVEL,
        "gain": SHARE,
        "offset": LEVEL,
        "bad_pixels": SHARE,
        "column_noise": LEVEL,
        "column_pattern": LEVEL,
        "automatic_gain": SHARE,
        "bits": OneOf(DEPTHS),
    },
    "targets": {
        "count": Choice(range(1001)),
        "snr": Number(0, 1000),
        "extent": Number(0, 20),
        "shape": Choice(SHAPES),
        "polarity": Choice(tuple(POLARITIES)),
        "fluctuation": Number(0, 3),
        "occluded": SHARE,
        "behind_clouds": SHARE,
        "path": Choice(PATHS),
        "speed": PIXELS,
        "turn": Number(0, 3.15),
    },
}


def read_recipe(name: str) -> dict[str, dict]:
    """The recipe of a preset or of a YAML file, whose keys are those of the presets.

    A file gives what differs from `nudt`. Raises InputError, naming the file, for an unknown
    preset, section or key, and for a value that its key does not take.
    """
    path = _FOLDER / f"{name}.yaml" if name in PRESETS else Path(name)
    if name not in PRESETS and path.suffix not in (".yaml", ".yml"):
        raise InputError(f"unknown preset {name!r}: choose from {', '.join(PRESETS)}, or FILE.yaml")
    recipe = _read_file(_FOLDER / "nudt.yaml")
    for section, values in _read_file(path).items():
        recipe[section] |= values
    return recipe


def _read_file(path: Path) -> dict[str, dict]:
    sections = read_yaml(path)
    for section, values in sections.items():
        if section not in KEYS or not isinstance(values, dict):
            raise InputError(f"{path}: {section!r}: sections are {', '.join(KEYS)}")
        for key, spec in values.items():
            if key not in KEYS[section]:
                guess = nearest(str(key), KEYS[section])
                hint = f"; did you mean {guess!r}?" if guess else ""
                raise InputError(f"{path}: {section}: unknown key {key!r}{hint}")
            if not KEYS[section][key].allows(spec):
                expected = KEYS[section][key]
                raise InputError(f"{path}: {section}: {key}: {spec!r}: expected {expected}")
    return sections


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
