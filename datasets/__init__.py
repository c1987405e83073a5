"""Where frames and truth come from: layouts, sequences, clips, check and simulator."""

from datasets.clips import ClipDataset, ClipSampler, collate
from datasets.layouts import Layout, find_layout, layout_names
from datasets.sequences import Sequence, grey_statistics, open_split, split_validation

__all__ = [
    "ClipDataset",
    "ClipSampler",
    "Layout",
    "Sequence",
    "collate",
    "find_layout",
    "grey_statistics",
    "layout_names",
    "open_split",
    "split_validation",
]
