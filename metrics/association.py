"""Submitted targets against true ones, as the SatVideoIRSTD challenge scores them.

Targets of a frame are an array [n, 3] of track, x, y; track 0 is none. Source: the rules of the
challenge, which leave the match radius and the meaning of "correctly associated" open; both are
defined here.

Detections. In every frame submitted targets are matched one to one with true ones no further than
the radius away: as many pairs as can be, and among those choices the one of least total distance.

Tracks. A submitted track is correct if it belongs to a true one: if the pairs of the two are at
least half of the frames of the true track and at least half of the frames of the submitted one.
Each belongs to one other at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import scipy  # its packages, which take a second, are imported where they are first named

# Points for at least this share, from the challenge's rules.
COMPLETENESS_BONUS = ((0.25, 2), (0.35, 3), (0.50, 5))
ACCURACY_BONUS = ((0.55, 2), (0.65, 3), (0.80, 5))


@dataclass
class Association:
    """What was counted over some sequences; `a + b` is the count over both.

    targets, submitted, matched: true targets, submitted ones, pairs. true_tracks,
    submitted_tracks, correct_tracks: as above. unlabelled: sequences with targets whose truth does
    not say which track they belong to; with any of these, tracks cannot be scored.
    """

    frames: int = 0
    targets: int = 0
    submitted: int = 0
    matched: int = 0
    true_tracks: int = 0
    submitted_tracks: int = 0
    correct_tracks: int = 0
    unlabelled: int = 0

    def __add__(self, other: Association) -> Association:
        return Association(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def recall(self) -> float | None:
        """Matched / true targets (None for 0/0, here and below)."""
        return _ratio(self.matched, self.targets)

    @property
    def precision(self) -> float | None:
        """Matched / submitted targets."""
        return _ratio(self.matched, self.submitted)

    @property
    def f1(self) -> float | None:
        """2 matched / (true + submitted targets): the harmonic mean of recall and precision."""
        return _ratio(2 * self.matched, self.targets + self.submitted)

    @property
    def track_completeness(self) -> float | None:
        """Correct / true tracks (None also where tracks cannot be scored)."""
        return None if self.unlabelled else _ratio(self.correct_tracks, self.true_tracks)

    @property
    def track_accuracy(self) -> float | None:
        """Correct / submitted tracks (None also where tracks cannot be scored)."""
        return None if self.unlabelled else _ratio(self.correct_tracks, self.submitted_tracks)

    @property
    def bonus(self) -> int | None:
        """Points for tracks; a ratio that is 0/0 earns none. None where they cannot be scored."""
        if self.unlabelled:
            return None
        return _points(self.track_completeness, COMPLETENESS_BONUS) + _points(
            self.track_accuracy, ACCURACY_BONUS
        )

    @property
    def total(self) -> float | None:
        """100 F1 + bonus; None where either is."""
        return None if self.f1 is None or self.bonus is None else 100 * self.f1 + self.bonus

    def report(self) -> dict:
        """The counts, then the ratios, as plain numbers; None for what is undefined or unknown."""
        ratios = ("recall", "precision", "f1", "track_completeness", "track_accuracy")
        names = (*vars(self), *ratios, "bonus", "total")
        unknown = ("true_tracks", "correct_tracks") if self.unlabelled else ()
        return {name: None if name in unknown else getattr(self, name) for name in names}


def associate(
    submitted: Sequence[np.ndarray], true: Sequence[np.ndarray], labelled: bool, radius: float
) -> Association:
    """Counts of one sequence.

    Args:
        submitted, true: targets [n, 3] (track, x, y) of every frame; within a frame a track other
            than 0 occurs once.
        labelled: whether the tracks of the true targets are known.
        radius: how far apart a pair may be, in pixels.

    Raises ValueError if the numbers of frames differ.
    """
    pairs = []
    for ours, theirs in zip(submitted, true, strict=True):
        i, j = match(ours[:, 1:], theirs[:, 1:], radius)
        pairs.append(np.stack([ours[i, 0], theirs[j, 0]], axis=1))  # [pairs, 2] tracks
    counts = Association(
        frames=len(true),
        targets=sum(map(len, true)),
        submitted=sum(map(len, submitted)),
        matched=sum(map(len, pairs)),
    )
    ours, theirs = _lengths(submitted), _lengths(true)
    counts.submitted_tracks = len(ours)
    if labelled:
        counts.true_tracks = len(theirs)
        counts.correct_tracks = _correct(pairs, ours, theirs)
    else:
        counts.unlabelled = int(counts.targets > 0)
    return counts


def match(ours: np.ndarray, theirs: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one pairs of places [n, 2] and [m, 2] no further than `radius` apart.

    As many pairs as can be, then the least total distance. Returns the indices of both sides.
    """
    nothing = np.empty(0, int), np.empty(0, int)
    if not len(ours) or not len(theirs):
        return nothing
    # Only what has a partner within reach is assigned: thousands of false alarms cost nothing.
    near = scipy.spatial.KDTree(theirs).query(ours)[0] <= radius * (1 + 1e-9)
    rows = np.nonzero(near)[0]
    if not len(rows):
        return nothing
    distance = np.linalg.norm(ours[rows, None] - theirs, axis=2)  # [near, m]
    within = distance <= radius
    # Dearer than all allowed pairs together, so that no pair is given up for it.
    forbidden = 1.0 + radius * min(distance.shape)
    i, j = scipy.optimize.linear_sum_assignment(np.where(within, distance, forbidden))
    kept = within[i, j]
    return rows[i[kept]], j[kept]


def _lengths(frames: Sequence[np.ndarray]) -> dict[float, int]:
    """Tracks other than 0, with the number of frames of each."""
    tracks = np.concatenate([np.empty(0), *(targets[:, 0] for targets in frames)])
    values, lengths = np.unique(tracks[tracks > 0], return_counts=True)
    return dict(zip(values.tolist(), lengths.tolist(), strict=True))


def _correct(pairs: Sequence[np.ndarray], ours: dict[float, int], theirs: dict[float, int]) -> int:
    """How many submitted tracks belong to a true one."""
    joined = np.concatenate([np.empty((0, 2)), *pairs])
    tracks, together = np.unique(joined[joined[:, 0] > 0], axis=0, return_counts=True)
    belongs = np.zeros((len(ours), len(theirs)), bool)
    rows, columns = {t: i for i, t in enumerate(ours)}, {t: i for i, t in enumerate(theirs)}
    for (a, b), n in zip(tracks.tolist(), together.tolist(), strict=True):
        belongs[rows[a], columns[b]] = 2 * n >= max(ours[a], theirs[b])
    # Two halves may belong to the same track: one of them counts.
    return int(belongs[scipy.optimize.linear_sum_assignment(belongs, maximize=True)].sum())


def _points(share: float | None, bands: Sequence[tuple[float, int]]) -> int:
    reached = [points for least, points in bands if share is not None and share >= least]
    return max(reached, default=0)


def _ratio(count: int, total: int) -> float | None:
    return count / total if total else None
