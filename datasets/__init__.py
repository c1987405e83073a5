"""Where frames and truth come from: layouts, sequences, clips, check and simulator."""

from datasets.caching import MODES as CACHE_MODES
from datasets.caching import cache_sequences
from datasets.clips import ClipDataset, ClipSampler, load_batches
from datasets.layouts import Layout, find_layout, layout_names
from datasets.normalisation import SOURCES, Normalisation, choose_normalisation
from datasets.sequences import Sequence, open_split, split_validation
from datasets.targets import TrueTargets, read_targets
from datasets.truth import read_snr, snr_subsets

__all__ = [
    "CACHE_MODES",
    "SOURCES",
    "ClipDataset",
    "ClipSampler",
    "Layout",
    "Normalisation",
    "Sequence",
    "TrueTargets",
    "cache_sequences",
    "choose_normalisation",
    "find_layout",
    "layout_names",
    "load_batches",
    "open_split",
    "read_snr",
    "read_targets",
    "snr_subsets",
    "split_validation",
]
