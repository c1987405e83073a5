"""Counts add up; their ratios by hand."""

import json
from dataclasses import fields, replace
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metrics import THRESHOLDS, Counts, ShootingRule

LEVELS = (0.0, 0.5, 1.0)
EXAMPLE = Counts(
    LEVELS, frames=2, pixels=100, targets=10, intersection=3, union=4,
    hits=np.array([10, 8, 0]), false_pixels=np.array([100, 20, 0]),
)  # fmt: skip


def same(one: Counts, other: Counts) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Counts))


@st.composite
def counts(draw) -> Counts:
    whole = st.integers(0, 10**12)
    by_threshold = arrays.arrays(np.int64, len(LEVELS), elements=whole)
    names = ("frames", "pixels", "targets", "intersection", "union")
    numbers = {name: draw(whole) for name in names}
    return Counts(LEVELS, **numbers, hits=draw(by_threshold), false_pixels=draw(by_threshold))


@given(a=counts(), b=counts(), c=counts())
def test_addition_in_any_order(a, b, c):
    assert same(a + b, b + a)
    assert same((a + b) + c, a + (b + c))
    assert same(a + Counts(LEVELS), a)


@given(a=counts(), b=counts())
def test_addition_is_number_by_number(a, b):
    both = a + b
    for name in ("frames", "pixels", "targets", "intersection", "union"):
        assert getattr(both, name) == getattr(a, name) + getattr(b, name)
    for i in range(len(LEVELS)):
        assert both.hits[i] == a.hits[i] + b.hits[i]
        assert both.false_pixels[i] == a.false_pixels[i] + b.false_pixels[i]


@given(data=st.data(), radius=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_frames_added_are_frames_counted_jointly(data, radius, seed):
    """One tall frame, with rows between its parts where nothing is predicted or protected."""
    rule, rng, width = ShootingRule(window_radius=radius), np.random.default_rng(seed), 7
    heights = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    parts, tall = [], ([], [], [])
    for height in heights:
        score = rng.choice(np.array([0, 0.2, 0.5, 0.7, 1], np.float32), (height, width))
        mask = rng.random((height, width)) < 0.2
        parts.append((score, mask & (rng.random(mask.shape) < 0.5), mask))
        gap = (radius + 1, width)
        fill = (np.full(gap, -1, np.float32), np.zeros(gap, bool), np.zeros(gap, bool))
        for column, part, between in zip(tall, parts[-1], fill, strict=True):
            column.extend([part, between])
    added = reduce(add, (rule.count(*part) for part in parts))
    joint = rule.count(*map(np.concatenate, tall))
    assert added.frames == len(heights)
    assert added.pixels == sum(heights) * width
    assert same(replace(joint, frames=added.frames, pixels=added.pixels), added)


def test_addition_leaves_its_terms_alone():
    total = Counts(LEVELS)
    total += EXAMPLE
    total += EXAMPLE
    assert total.hits.tolist() == [20, 16, 0]
    assert EXAMPLE.hits.tolist() == [10, 8, 0]


def test_large_sets_do_not_overflow():
    big = replace(EXAMPLE, pixels=2**40, false_pixels=np.array([2**40, 2**33, 0]))
    assert (big + big).fa.tolist() == [1, 2**-7, 0]


def test_other_thresholds_do_not_add_up():
    with pytest.raises(ValueError, match="different thresholds"):
        Counts(LEVELS) + Counts((0.0, 1.0))


def test_ratios_by_hand():
    assert EXAMPLE.pd.tolist() == [1, 0.8, 0]
    assert EXAMPLE.fa.tolist() == [1, 0.2, 0]
    assert EXAMPLE.iou == 0.75
    assert EXAMPLE.at(0.5) == (0.8, 0.2)


def test_ratio_of_a_sum_is_not_the_mean_of_ratios():
    small = replace(EXAMPLE, pixels=20, targets=1, hits=np.array([1, 0, 0]), intersection=0)
    both = EXAMPLE + small
    assert both.pd.tolist() == [1, 8 / 11, 0]
    assert both.fa[1] == 40 / 120
    assert both.iou == 3 / 8


def test_auc_by_hand():
    """(0, 0) (.2, .8) (1, 1): a triangle of .08 and a trapezoid of .72."""
    assert EXAMPLE.auc == pytest.approx(0.8)


def test_auc_adds_no_end_points():
    """(.1, .6) to (.5, 1) only."""
    curve = Counts(
        (0.0, 0.5), pixels=10, targets=5, hits=np.array([5, 3]), false_pixels=np.array([5, 1])
    )
    assert curve.auc == pytest.approx(0.4 * 0.8)


def test_auc_does_not_mind_the_order_of_thresholds():
    turned = replace(
        EXAMPLE, thresholds=(0.5, 1.0, 0.0), hits=np.array([8, 0, 10]),
        false_pixels=np.array([20, 0, 100]),
    )  # fmt: skip
    assert turned.auc == pytest.approx(EXAMPLE.auc)


def test_vertical_curve_has_no_area():
    assert replace(EXAMPLE, false_pixels=np.array([20, 20, 20])).auc == 0


@pytest.mark.filterwarnings("error")
def test_nothing_counted_is_none_in_the_report():
    report = Counts(LEVELS).report()
    assert report["pd"] == report["fa"] == [None, None, None]
    assert report["auc"] is None
    assert report["iou"] is None


@pytest.mark.filterwarnings("error")
def test_no_targets_still_has_a_false_alarm_rate():
    report = replace(EXAMPLE, targets=0, hits=np.zeros(3, np.int64)).report()
    assert report["pd"] == [None, None, None]
    assert report["auc"] is None
    assert report["fa"] == [1, 0.2, 0]


def test_one_threshold_has_no_area():
    one = Counts((0.5,), pixels=4, targets=1, hits=np.array([1]), false_pixels=np.array([1]))
    assert one.report()["auc"] is None
    assert one.report()["pd"] == [1]


def test_report_is_plain():
    report = EXAMPLE.report()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report == {
        "frames": 2,
        "pixels": 100,
        "targets": 10,
        "thresholds": [0, 0.5, 1],
        "hits": [10, 8, 0],
        "false_pixels": [100, 20, 0],
        "pd": [1, 0.8, 0],
        "fa": [1, 0.2, 0],
        "auc": pytest.approx(0.8),
        "iou": 0.75,
    }


def test_the_published_thresholds():
    assert len(THRESHOLDS) == 27
    assert list(THRESHOLDS) == sorted(set(THRESHOLDS))
    assert Counts().thresholds == THRESHOLDS
    assert Counts().hits.tolist() == [0] * 27
