"""Where frames and truth come from: layouts, sequences, clips, check and simulator."""

from datasets.augmentation import AUGMENTATIONS
from datasets.caching import MODES as CACHE_MODES
from datasets.clips import ClipDataset, ClipSampler, load_batches
from datasets.layouts import Layout, find_layout, layout_names
from datasets.normalisation import (
    SOURCES,
    Normalisation,
    choose_input_normalisation,
    choose_normalisation,
)
from datasets.plan import Plan, make_plan
from datasets.sequences import Sequence, choose_sequences, open_split
from datasets.sources import Source, open_sources
from datasets.targets import read_targets
from datasets.truth import read_snr, snr_subsets

__all__ = [
    "AUGMENTATIONS",
    "CACHE_MODES",
    "SOURCES",
    "ClipDataset",
    "ClipSampler",
    "Layout",
    "Normalisation",
    "Plan",
    "Sequence",
    "Source",
    "choose_input_normalisation",
    "choose_normalisation",
    "choose_sequences",
    "find_layout",
    "layout_names",
    "load_batches",
    "make_plan",
    "open_sources",
    "open_split",
    "read_snr",
    "read_targets",
    "snr_subsets",
]
