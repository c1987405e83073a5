"""The shooting rule, by hand, against the loop over its slices, and against the published one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from metrics import BORDERS, Counts, ShootingRule
from tests.golden import GOLDEN, needs_shared

LEVELS = (0.0, 1e-20, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0)
# float32 scores at the thresholds (some round up, some down), and just beside one.
SCORES = [
    *(float(np.float32(level)) for level in LEVELS),
    float(np.nextafter(np.float32(0.3), np.float32(0))),
    float(np.nextafter(np.float32(0.5), np.float32(1))),
]


def slow_count(rule: ShootingRule, score, centroids, mask) -> Counts:
    """Slice by slice, threshold by threshold."""
    H, W = score.shape
    labels, targets = ndimage.label(centroids, np.ones((3, 3)))

    def around(y: int, x: int, radius: int) -> tuple[slice, slice]:
        top, left = y - radius, x - radius
        if rule.border == "clipped":
            top, left = max(top, 0), max(left, 0)
        return slice(top, y + radius + 1), slice(left, x + radius + 1)

    hits, false_pixels = [], []
    for threshold in rule.thresholds:
        predicted = np.array([[float(s) >= threshold for s in row] for row in score])
        hit, protected = set(), np.zeros((H, W), bool)
        for y in range(H):
            for x in range(W):
                if centroids[y, x]:
                    protected[around(y, x, rule.window_radius)] = True
                    if predicted[around(y, x, 1)].any():
                        hit.add(labels[y, x])
        hits.append(len(hit))
        false_pixels.append(int((predicted & ~protected).sum()))
    positive = score > rule.iou_threshold
    return Counts(
        rule.thresholds, frames=1, pixels=H * W, targets=targets,
        intersection=int((positive & mask).sum()), union=int((positive | mask).sum()),
        hits=np.array(hits), false_pixels=np.array(false_pixels),
    )  # fmt: skip


def at_half(border: str, shape: tuple[int, int], *targets, radius: int = 4, score=None) -> tuple:
    """Targets, hits and false pixels at 0.5 where (by default) everything is predicted."""
    centroids = np.zeros(shape, bool)
    for y, x in targets:
        centroids[y, x] = True
    score = np.ones(shape, np.float32) if score is None else score
    rule = ShootingRule(window_radius=radius, border=border, thresholds=(0.5,))
    counts = rule.count(score, centroids, centroids)
    return counts.targets, counts.hits.item(), counts.false_pixels.item()


def spot(shape: tuple[int, int], *pixels: tuple[int, int]) -> np.ndarray:
    score = np.zeros(shape, np.float32)
    for y, x in pixels:
        score[y, x] = 1
    return score


@st.composite
def frames(draw):
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    score = draw(arrays.arrays(np.float32, shape, elements=st.sampled_from(SCORES)))
    masks = arrays.arrays(bool, shape, elements=st.booleans(), fill=st.just(False))
    return score, draw(masks), draw(masks)


@pytest.mark.parametrize("border", BORDERS)
@given(frame=frames(), radius=st.sampled_from([0, 1, 2, 4, 5]))
@settings(max_examples=150)
def test_rule_is_the_loop(border, frame, radius):
    rule = ShootingRule(window_radius=radius, border=border, thresholds=LEVELS)
    counts, expected = rule.count(*frame), slow_count(rule, *frame)
    assert counts.report() == expected.report()
    assert (counts.intersection, counts.union) == (expected.intersection, expected.union)


@pytest.mark.parametrize("border", BORDERS)
@given(seed=st.integers(0, 2**32 - 1), density=st.sampled_from([0.0, 0.01, 0.05, 0.3]))
@settings(max_examples=60)
def test_rule_is_the_loop_on_sparse_targets(border, seed, density):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 15, 2))
    frame = rng.choice(SCORES, shape).astype(np.float32), rng.random(shape) < density
    rule = ShootingRule(border=border, thresholds=LEVELS)
    assert rule.count(*frame, frame[1]).report() == slow_count(rule, *frame, frame[1]).report()


@needs_shared
def test_published_counts():
    golden = np.load(GOLDEN / "shooting_rules.npz")
    rule = ShootingRule(window_radius=4, border="published", thresholds=golden["thresholds"])
    for i, (score, target) in enumerate(zip(golden["probability"], golden["target"], strict=True)):
        counts = rule.count(score, target, target)
        np.testing.assert_array_equal(counts.hits, golden["hits"][i], str(i))
        np.testing.assert_array_equal(counts.false_pixels, golden["false_pixels"][i], str(i))
        assert (golden["targets"][i] == counts.targets).all(), i


# Hits


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    ("shot", "hit"), [((10, 10), 1), ((9, 11), 1), ((11, 9), 1), ((12, 10), 0), ((10, 8), 0)]
)
def test_hit_zone_is_three_by_three(border, shot, hit):
    shape = (20, 20)
    assert at_half(border, shape, (10, 10), score=spot(shape, shot)) == (1, hit, 0)


@pytest.mark.parametrize("border", BORDERS)
def test_diagonal_pixels_are_one_target(border):
    shape = (20, 20)
    targets = [(8, 8), (9, 9), (10, 10), (10, 12)]  # the last one lies two columns off
    assert at_half(border, shape, *targets, score=spot(shape, (7, 7))) == (2, 1, 0)
    assert at_half(border, shape, *targets, score=spot(shape, (10, 11))) == (2, 2, 0)


# False pixels


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("radius", "window"), [(0, 1), (3, 49), (4, 81), (5, 121)])
def test_window_protects_its_square(border, radius, window):
    assert at_half(border, (20, 30), (10, 15), radius=radius) == (1, 1, 600 - window)


@pytest.mark.parametrize("border", BORDERS)
def test_overlapping_windows_protect_their_union(border):
    assert at_half(border, (20, 30), (10, 10), (10, 13)) == (2, 2, 600 - 9 * 12)


@pytest.mark.parametrize("border", BORDERS)
def test_far_shot_is_false_and_no_hit(border):
    shape = (20, 20)
    assert at_half(border, shape, (10, 10), score=spot(shape, (10, 14), (10, 15))) == (1, 0, 1)


@pytest.mark.parametrize("border", BORDERS)
def test_frame_without_targets(border):
    assert at_half(border, (6, 7)) == (0, 0, 42)
    report = ShootingRule(border=border).count(*np.zeros((3, 6, 7), np.float32) > 0).report()
    assert report["targets"] == 0
    assert set(report["hits"]) == {0}
    assert report["false_pixels"] == [42] + 26 * [0]
    assert set(report["pd"]) == {None}


# Borders


@pytest.mark.parametrize(
    ("target", "clipped", "published"),
    [
        ((0, 0), (1, 375), (0, 400)),  # clipped 5 x 5; published neither hit zone nor window
        ((0, 10), (1, 400 - 5 * 9), (0, 400)),
        ((10, 0), (1, 400 - 9 * 5), (0, 400)),
        ((1, 10), (1, 400 - 6 * 9), (1, 400)),
        ((3, 10), (1, 400 - 8 * 9), (1, 400)),
        ((10, 3), (1, 400 - 9 * 8), (1, 400)),
        ((4, 4), (1, 400 - 81), (1, 400 - 81)),
        ((19, 10), (1, 400 - 5 * 9), (1, 400 - 5 * 9)),  # bottom and right are cut by both
        ((10, 19), (1, 400 - 9 * 5), (1, 400 - 9 * 5)),
        ((19, 19), (1, 375), (1, 375)),
        ((19, 0), (1, 375), (0, 400)),
    ],
)
def test_borders_by_hand(target, clipped, published):
    assert at_half("clipped", (20, 20), target) == (1, *clipped)
    assert at_half("published", (20, 20), target) == (1, *published)


def test_published_border_works_by_target_pixel():
    """Of a target in rows 0 to 4 the pixels from row 1 on give hits, only row 4 protects."""
    targets = [(y, 10) for y in range(5)]
    assert at_half("published", (20, 20), *targets) == (1, 1, 400 - 9 * 9)
    assert at_half("published", (20, 20), *targets[:4]) == (1, 1, 400)
    assert at_half("published", (20, 20), *targets[:1]) == (1, 0, 400)


@pytest.mark.parametrize(
    ("size", "target", "protected"),
    [
        (5, (2, 2), 2 * 2),  # [-2:7] of 5 is rows 3 and 4
        (3, (1, 1), 3 * 3),  # [-3:6] of 3 is all of them
        (6, (1, 5), 3 * 5),  # [-3:6] of 6 is rows 3 to 5; [1:10] is columns 1 to 5
    ],
)
def test_published_border_wraps_on_frames_smaller_than_the_window(size, target, protected):
    assert at_half("published", (size, size), target) == (1, 1, size * size - protected)


@pytest.mark.parametrize(("border", "hits"), [("clipped", 1), ("published", 1)])
def test_one_pixel_frame(border, hits):
    assert at_half(border, (1, 1), (0, 0)) == (1, hits, 0)


# Comparison


@pytest.mark.parametrize(("level", "reached"), [(0.3, 1), (0.7, 0), (0.5, 1), (0.1, 1), (0.95, 0)])
def test_float32_scores_are_compared_in_float64(level, reached):
    """float32(0.3) lies above 0.3, float32(0.7) below 0.7."""
    assert (float(np.float32(level)) >= level) == bool(reached)
    target = np.zeros((20, 20), bool)
    target[10, 10] = True
    score = np.zeros((20, 20), np.float32)
    score[10, 10] = score[0, 0] = level
    counts = ShootingRule(thresholds=(level,)).count(score, target, target)
    assert counts.hits.tolist() == [reached]
    assert counts.false_pixels.tolist() == [reached]


@pytest.mark.parametrize(("level", "hits", "false"), [(0.0, 1, 319), (1e-20, 0, 0), (1.0, 0, 0)])
def test_empty_map_fires_everywhere_at_threshold_zero(level, hits, false):
    target = np.zeros((20, 20), bool)
    target[10, 10] = True
    score = np.zeros((20, 20), np.float32)
    counts = ShootingRule(thresholds=(level,)).count(score, target, target)
    assert (counts.hits.item(), counts.false_pixels.item()) == (hits, false)


def test_thresholds_in_any_order():
    rng = np.random.default_rng(0)
    score, target = rng.random((20, 20), np.float32), rng.random((20, 20)) < 0.02
    up = ShootingRule(thresholds=LEVELS).count(score, target, target)
    down = ShootingRule(thresholds=LEVELS[::-1]).count(score, target, target)
    assert down.hits.tolist() == up.hits.tolist()[::-1]
    assert down.false_pixels.tolist() == up.false_pixels.tolist()[::-1]


def test_iou_looks_at_the_full_mask_above_its_threshold():
    score = np.array([[0.9, 0.6, 0.5, 0.2]], np.float32)
    mask = np.array([[True, False, True, True]])
    counts = ShootingRule().count(score, np.zeros_like(mask), mask)
    assert (counts.intersection, counts.union) == (1, 4)  # 0.5 itself is not above 0.5
    counts = ShootingRule(iou_threshold=0.4).count(score, np.zeros_like(mask), mask)
    assert (counts.intersection, counts.union) == (2, 4)
    assert counts.targets == 0


# Refusals


def test_shapes_that_differ_raise():
    score, mask = np.zeros((4, 5), np.float32), np.zeros((4, 5), bool)
    for wrong in ((score.T, mask, mask), (score, mask.T, mask), (score, mask, mask[:, :4])):
        with pytest.raises(ValueError, match="shapes differ"):
            ShootingRule().count(*wrong)


def test_nan_raises():
    score, mask = np.zeros((4, 5), np.float32), np.zeros((4, 5), bool)
    score[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        ShootingRule().count(score, mask, mask)


def test_unknown_border_and_negative_radius_raise():
    with pytest.raises(ValueError, match="clipped, published"):
        ShootingRule(border="wrapped")
    with pytest.raises(ValueError, match="0 or more"):
        ShootingRule(window_radius=-1)
