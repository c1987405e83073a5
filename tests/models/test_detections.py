"""Detections against hand-computed ones and against the slow obvious loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.detections import Detection, find_detections


def test_hand_computed():
    probability = np.zeros((5, 6), np.float32)
    probability[1, 4] = 0.75
    probability[2, 3] = 0.5  # touches by a corner
    probability[3, 0] = 0.625
    probability[3, 1] = 0.25  # below the threshold: not a part of it
    assert find_detections(probability, 0.5) == [
        Detection(
            x=(4 * 0.75 + 3 * 0.5) / 1.25, y=(1 * 0.75 + 2 * 0.5) / 1.25, width=2, height=2,
            area=2, peak=0.75, mean=0.625, left=3, top=1,
        ),
        Detection(0.0, 3.0, 1, 1, 1, 0.625, 0.625, 0, 3),
    ]  # fmt: skip
    assert [d.area for d in find_detections(probability, 0.5, min_area=2)] == [2]
    assert find_detections(probability, 0.7501) == []


def test_the_order_is_that_of_the_first_pixels():
    """OpenCV numbers components by blocks of 2 x 2: the lower left one would come first."""
    probability = np.zeros((4, 8), np.float32)
    probability[1, 0] = probability[0, 5] = probability[3, 2] = 1
    assert [(d.left, d.top) for d in find_detections(probability, 0.5)] == [(5, 0), (0, 1), (2, 3)]


def test_scores_are_compared_in_float64():
    probability = np.full((1, 1), 0.7, np.float32)  # 0.699999988
    assert find_detections(probability, 0.7) == []
    assert len(find_detections(probability, 0.69999998)) == 1


def test_a_map_of_zeros_at_threshold_0_is_one_detection_in_its_middle():
    (detection,) = find_detections(np.zeros((3, 5), np.float32), 0.0)
    assert detection[:5] == (2.0, 1.0, 5, 3, 15)
    assert (detection.peak, detection.mean) == (0.0, 0.0)


def obvious(probability, threshold):
    """Flood filling, pixel by pixel."""
    H, W = probability.shape
    left_over = {
        (y, x) for y in range(H) for x in range(W) if float(probability[y, x]) >= threshold
    }
    detections = []
    while left_over:
        pending = [min(left_over)]
        left_over.discard(pending[0])
        pixels = []
        while pending:
            y, x = pending.pop()
            pixels.append((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left_over
            left_over -= near
            pending += near
        scores = [float(probability[p]) for p in pixels]
        ys, xs = [y for y, _ in pixels], [x for _, x in pixels]
        mass = sum(scores)
        detections.append(
            (
                sum(s * x for s, x in zip(scores, xs, strict=True)) / mass,
                sum(s * y for s, y in zip(scores, ys, strict=True)) / mass,
                max(xs) - min(xs) + 1, max(ys) - min(ys) + 1, len(pixels),
                max(scores), mass / len(pixels), min(xs), min(ys),
            )
        )  # fmt: skip
    return detections


@given(
    arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)),
           elements=st.floats(0, 1, width=32)),
    st.floats(0.01, 1),
)  # fmt: skip
def test_as_the_obvious_loop(probability, threshold):
    found, expected = find_detections(probability, threshold), obvious(probability, threshold)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other)
