"""Tracks: detections linked over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its packages, which take a second, are imported where they are first named

from models.detections import Detection

FRESH = 0.5  # the share of the latest step in a track's velocity


class _Track:
    """Where a target was last seen, in (x, y), and how it moves, in pixels a frame."""

    def __init__(self, number: int, place: np.ndarray):
        self.number = number
        self.place, self.velocity = place, np.zeros(2)
        self.observations, self.missed = 1, 0

    def predict(self) -> np.ndarray:
        """Where it should be in the frame that comes: constant velocity since it was last seen."""
        return self.place + self.velocity * (self.missed + 1)

    def observe(self, place: np.ndarray) -> None:
        step = (place - self.place) / (self.missed + 1)
        share = FRESH if self.observations > 1 else 1.0  # the first step is all there is
        self.velocity = (1 - share) * self.velocity + share * step
        self.place = place
        self.observations += 1
        self.missed = 0


class Tracker:
    """Links the detections of consecutive frames to tracks.

    Every frame, as many detections as possible are assigned to tracks such that each lies within
    the gate around where its track should be and the distances sum up to the least. A detection
    that is left over begins a track; a track that is left over coasts, then ends.

    Args:
        gate: radius within which a detection may continue a track, in pixels.
        growth: pixels that the gate grows by for each frame missed.
        misses: frames in a row that a track may miss; one more ends it.
        observations: detections that confirm a track.

    The defaults are those of a team of the SatVideoIRSTD challenge.
    """

    def __init__(
        self, gate: float = 20.0, growth: float = 5.0, misses: int = 2, observations: int = 3
    ):
        self.gate, self.growth = gate, growth
        self.misses, self.observations = misses, observations
        self._live: list[_Track] = []
        self._confirmed: set[int] = set()
        self._last = 0  # number of the newest track

    def update(self, detections: Sequence[Detection]) -> list[int]:
        """The track of every detection of the next frame, from 1; to be called for empty frames
        too, which count as missed."""
        places = np.array([(d.x, d.y) for d in detections], float).reshape(-1, 2)  # [n, 2]
        numbers = [0] * len(places)
        seen = set()
        for track, i in self._assign(places):
            track.observe(places[i])
            numbers[i] = track.number
            seen.add(track.number)
        for track in self._live:
            track.missed += track.number not in seen
        self._live = [track for track in self._live if track.missed <= self.misses]
        for i, number in enumerate(numbers):
            if not number:
                self._last += 1
                numbers[i] = self._last
                self._live.append(_Track(self._last, places[i]))
        self._confirmed.update(t.number for t in self._live if t.observations >= self.observations)
        return numbers

    def confirmed(self, number: int) -> bool:
        """Whether a track has had enough observations so far; once confirmed, it stays so."""
        return number in self._confirmed

    def _assign(self, places: np.ndarray) -> list[tuple[_Track, int]]:
        """Live tracks with the index of the place [n, 2] that continues each."""
        if not self._live or not len(places):
            return []
        predicted = np.array([track.predict() for track in self._live])  # [m, 2]
        reach = np.array([self.gate + self.growth * track.missed for track in self._live])
        pairs = scipy.spatial.KDTree(predicted).sparse_distance_matrix(
            scipy.spatial.KDTree(places), reach.max(), output_type="ndarray"
        )
        pairs = pairs[pairs["v"] <= reach[pairs["i"]]]
        m, n = len(predicted), len(places)
        # A track may also stay alone, at a price above all distances together, so that no pair is
        # given up for it. The 1 keeps a distance of 0 from being taken for no pair.
        alone = np.full(m, 1 + reach.max() * min(m, n))
        rows = np.concatenate([pairs["i"], np.arange(m)])
        columns = np.concatenate([pairs["j"], n + np.arange(m)])
        costs = 1 + np.concatenate([pairs["v"], alone])
        chosen = scipy.sparse.csgraph.min_weight_full_bipartite_matching(
            scipy.sparse.coo_array((costs, (rows, columns)), shape=(m, n + m)).tocsr()
        )
        return [(self._live[i], int(j)) for i, j in zip(*chosen, strict=True) if j < n]
