"""What the tests of the cache do again and again."""

import numpy as np

from datasets.caching import cache_sequences
from datasets.layouts import find_layout
from datasets.sequences import open_split


def opened(root):
    return open_split(find_layout("Folder"), root, "train")


def on_disk(sequences, place):
    cached, warnings = cache_sequences(sequences, "disk", place)
    assert warnings == []
    return cached


def files(place):
    """Everything in the cache by name, hidden files but the lock included."""
    return {p.name: p for p in place.iterdir() if p.name != ".lock"}


def check_same(cached, original):
    n = len(original)
    assert (cached.name, len(cached), cached.size) == (original.name, n, tuple(original.size))
    assert cached.frames(0, n).dtype == original.frames(0, n).dtype
    for one, other in (
        (cached.frames(0, n), original.frames(0, n)),
        (cached.frames(2, 5), original.frames(2, 5)),
        (np.stack(list(cached.iter_frames())), original.frames(0, n)),
        (cached.masks(1, n), original.masks(1, n)),
        (cached.centroids(0, n), original.centroids(0, n)),
        *((cached.centres(i), original.centres(i)) for i in range(n)),
    ):
        np.testing.assert_array_equal(one, other)
