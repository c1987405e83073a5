"""Frames in, answers out: the networks, their registry, the window rule and the Detector."""

# Importing a network, or a prepared form of one, registers it.
from models import (  # noqa: F401
    deeppro,
    deeppro_plus,
    deeppro_plus_moving,
    prepared_deeppro,
    prepared_deeppro_plus,
    prepared_deeppro_plus_moving,
)
from models.attribution import BASELINES, Explainer
from models.attribution_targets import Target, find_targets, target_at
from models.classical import CLASSICAL
from models.compiled import compiler_works
from models.detections import Detection, find_detections
from models.detector import Detector
from models.layers import window_length
from models.prepared import PRECISIONS, prepare
from models.registration import REGISTRATIONS
from models.registry import build_network, network_names, register_network
from models.targets import CENTROIDS, IDS, TargetFinder
from models.tiled_deeppro import in_tiles
from models.tracks import Tracker
from models.windows import Window, split_windows

__all__ = [
    "BASELINES",
    "CENTROIDS",
    "CLASSICAL",
    "IDS",
    "PRECISIONS",
    "REGISTRATIONS",
    "Detection",
    "Detector",
    "Explainer",
    "Target",
    "TargetFinder",
    "Tracker",
    "Window",
    "build_network",
    "compiler_works",
    "find_detections",
    "find_targets",
    "in_tiles",
    "network_names",
    "prepare",
    "register_network",
    "split_windows",
    "target_at",
    "window_length",
]
