"""Where a data set keeps its lists, frames and masks, and what is known of it.

All published layouts are instances of `Layout`; a user's own is a YAML file with the same fields,
given to `--dataset`. Source of the published ones: paper and released lists, measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from utils.errors import InputError, nearest, unknown_name
from utils.options import read_yaml


@dataclass(frozen=True)
class Layout:
    """A data set on disk. Patterns are relative to `--datapath`; they may hold `{sequence}`, and
    `{folder}`, which stands for the split's entry in `folders`.

    Args:
        name: what `--dataset` takes and results are filed under.
        lists: split to list file; a line is `<sequence>` or `<sequence>/anything`. Splits without
            a list hold every sequence found on disk that no other list names.
        frames, masks, centroids: the folders of a sequence; without centroid masks the masks
            take their place.
        folders: split to folder, where splits lie in folders of their own.
        evaluation_split: what test.py scores unless told otherwise.
        aliases: other names.
        prefixes: any name that starts so is this layout under that name.
        clean_root: (a, b): sequences under a root `<path>/a/<any>` that have no masks take those
            under `<path>/b` (the Noise sets were published without masks of their own).
        mean, std: of the grey levels; None: from the run, from options or from the images.
        sample_rate: clips drawn in an epoch for each clip position.
        size: (H, W) that frames and masks are always resized to.
        train_size: (H, W) in place of `size` for the clips of a training.
        first_number: number of the first frame in written probability PNGs.
        subsets: name to sequence names, scored apart.
        instance_ids: whether a mask's grey levels number the targets, the same number throughout a
            sequence.
    """

    name: str
    frames: str = "{sequence}/images"
    masks: str = "{sequence}/masks"
    centroids: str | None = None
    lists: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train.txt", "test": "test.txt"}
    )
    folders: Mapping[str, str] = field(default_factory=dict)
    evaluation_split: str = "test"
    lists_required: bool = True
    aliases: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    clean_root: tuple[str, str] | None = None
    mean: float | None = None
    std: float | None = None
    sample_rate: float = 0.1
    size: tuple[int, int] | None = None
    train_size: tuple[int, int] | None = None
    first_number: int = 1
    subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    instance_ids: bool = False

    def list_of(self, split: str) -> str:
        """The list file of a split; InputError if the data set has no such split."""
        if split not in self.lists:
            raise InputError(
                f"{self.name} has no split {split!r}; its splits are {', '.join(self.lists)}"
            )
        return self.lists[split]


_LOW_SNR = (47, 56, 59, 76, 92, 101, 105, 119)
_HIGH_SNR = (85, 86, 87, 88, 89, 90, 91, 93, 94, 95, 96, 97)
_NUDT = {
    "centroids": "{sequence}/masks_centroid",
    "mean": 105.4025,
    "std": 26.6452,
    "train_size": (256, 256),
    "subsets": {
        "low_snr": tuple(f"Sequence{n}" for n in _LOW_SNR),
        "high_snr": tuple(f"Sequence{n}" for n in _HIGH_SNR),
    },
}

PUBLISHED = (
    Layout("NUDT-MIRSDT", **_NUDT),
    Layout(
        "NUDT-MIRSDT-Noise",
        prefixes=("NUDT-MIRSDT-Noise", "NUDT-MIRSDT-HiNo"),
        clean_root=("NUDT-MIRSDT-Noise", "NUDT-MIRSDT"),
        **_NUDT,
    ),
    Layout(
        "RGBT-Tiny",
        aliases=("RGB-T",),
        frames="{folder}/{sequence}/01",
        masks="segmentations/{sequence}",
        folders={"train": "train2017", "test": "test2017"},
        mean=85.0799,
        std=47.4845,
        sample_rate=0.05,
        first_number=0,
    ),
    Layout(
        "IRSDT",
        aliases=("IRDST", "IRDST-simulation"),
        frames="images/{sequence}",
        masks="masks/{sequence}",
        lists={
            "train": "img_idx/train_IRDST-simulation.txt",
            "test": "img_idx/test_IRDST-simulation.txt",
        },
        mean=106.8523,
        std=56.9243,
        sample_rate=0.03,
    ),
    Layout(
        "SatVideoIRSDT",
        aliases=("SatVideoIRSTD",),
        frames="{folder}/{sequence}/img",
        masks="{folder}/{sequence}/mask",
        lists={"train": "train.txt", "val": "val.txt", "test": "test.txt"},
        folders={"train": "train", "val": "val", "test": "test"},
        evaluation_split="val",
        mean=111.47,
        std=22.43,
        sample_rate=0.04,
        instance_ids=True,
    ),
    Layout(
        "IRSatVideo-LEO",
        frames="images/{sequence}",
        masks="masks/{sequence}",
        lists={
            "train": "annotations/train_sequences.txt",
            "val": "annotations/val_sequences.txt",
        },
        evaluation_split="val",
        mean=72.104,
        std=12.303,
        size=(512, 512),
    ),
    Layout("Folder", centroids="{sequence}/masks_centroid", lists_required=False),
    Layout("Synthetic", centroids="{sequence}/masks_centroid"),
)


def layout_names() -> list[str]:
    """Every name and alias that `--dataset` takes."""
    return [name for layout in PUBLISHED for name in (layout.name, *layout.aliases)]


def find_layout(name: str) -> Layout:
    """The layout for what `--dataset` was given: a name, an alias, or a YAML file.

    The layout bears the name it was asked for. Raises InputError, with the nearest name.
    """
    if name.endswith((".yaml", ".yml")):
        return read_layout(Path(name))
    for layout in PUBLISHED:
        prefixed = name.startswith(layout.prefixes or "\0") and "/" not in name
        if prefixed or name in (layout.name, *layout.aliases):
            return replace(layout, name=name)
    raise unknown_name("data set", name, layout_names())


def read_layout(path: Path) -> Layout:
    """A layout from a YAML file whose keys are the fields of `Layout`; its stem is the name.

    Raises InputError for a key that is no field (with the nearest) and a value of a wrong kind.
    """
    values = read_yaml(path)
    known = [f.name for f in fields(Layout) if f.name != "name"]
    for key, value in values.items():
        if key not in known:
            guess = nearest(str(key), known)
            hint = f"did you mean {guess!r}? " if guess else ""
            raise InputError(f"{path}: unknown key {key!r}: {hint}keys are {', '.join(known)}")
        values[key] = _checked(path, key, value)
    if ("mean" in values) != ("std" in values):
        raise InputError(f"{path}: mean and std go together: give both or neither")
    layout = Layout(name=path.stem, **values)
    layout.list_of(layout.evaluation_split)
    return layout


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _is_names(value) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _is_pattern(value) -> bool:
    try:
        return isinstance(value, str) and value.format(sequence="\0", folder="").count("\0") > 0
    except (KeyError, IndexError, ValueError):
        return False


def _is_table(value) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in [*value, *value.values()])


# What a value of a layout file must be: a test, and the same in words.
_PATTERN = (_is_pattern, "a folder that holds {sequence}, and {folder} if need be")
_TABLE = (_is_table, "`split: path` entries")
_NAMES = (_is_names, "a list of names")
_SIZE = (
    lambda v: isinstance(v, list) and len(v) == 2 and all(type(n) is int and n > 0 for n in v),
    "[height, width] in pixels",
)
_POSITIVE = (lambda v: _is_number(v) and v > 0, "a number above 0")
_FLAG = (lambda v: isinstance(v, bool), "true or false")
_KINDS = {
    "frames": _PATTERN,
    "masks": _PATTERN,
    "centroids": (lambda v: v is None or _is_pattern(v), _PATTERN[1]),
    "lists": (lambda v: _is_table(v) and v, _TABLE[1]),
    "folders": _TABLE,
    "evaluation_split": (lambda v: isinstance(v, str), "the name of a split"),
    "lists_required": _FLAG,
    "aliases": _NAMES,
    "prefixes": _NAMES,
    "clean_root": (lambda v: _is_names(v) and len(v) == 2, "[folder, folder]"),
    "mean": (_is_number, "a number"),
    "std": _POSITIVE,
    "sample_rate": _POSITIVE,
    "size": _SIZE,
    "train_size": _SIZE,
    "first_number": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "subsets": (
        lambda v: isinstance(v, dict) and all(map(_is_names, v.values())),
        "`name: [sequence, ...]` entries",
    ),
    "instance_ids": _FLAG,
}


def _checked(path: Path, key: str, value):
    fits, wanted = _KINDS[key]
    if not fits(value):
        raise InputError(f"{path}: {key}: expected {wanted}, got {value!r}")
    return tuple(value) if isinstance(value, list) else value
