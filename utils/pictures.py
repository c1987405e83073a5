"""Observers of an evaluation that keep pictures: probability PNGs and example frames.

An observer is called with (sequence, frame index from 0, probability [H, W]) for every frame.
"""

import shutil
from pathlib import Path

import cv2
import numpy as np


class ProbabilityWriter:
    """An observer that writes 8-bit probability PNGs, `<folder>/<sequence>/<number>.png`.

    Grey level = floor(255 x probability) (published).
    """

    def __init__(self, folder: Path, first_number: int = 1):
        self.folder, self.first_number = folder, first_number

    def __call__(self, sequence, index: int, probability: np.ndarray) -> None:
        folder = self.folder / sequence.name
        if index == 0:  # what an earlier evaluation left would mix with this one
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        content = cv2.imencode(".png", (probability * 255).astype(np.uint8))[1].tobytes()
        (folder / f"{index + self.first_number:05d}.png").write_bytes(content)


class ExampleCollector:
    """An observer that keeps the middle frame of some sequences for a picture."""

    def __init__(self, sequences: list, most: int = 5):
        step = max(1, len(sequences) // most)
        self.wanted = {s.name: len(s) // 2 for s in sequences[::step][:most]}
        self.examples: list[dict] = []

    def __call__(self, sequence, index: int, probability: np.ndarray) -> None:
        if self.wanted.get(sequence.name) != index:
            return
        self.examples.append(
            {
                "title": f"{sequence.name}, frame {index + 1}",
                "frame": sequence.frames(index, index + 1)[0],
                "probability": probability.copy(),  # not the whole window it is a part of
                "truth": sequence.masks(index, index + 1)[0] if sequence.has_masks else None,
            }
        )
