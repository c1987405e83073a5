import pytest

from utils.schedules import learning_rate


def rate(schedule, epoch=0, done=0.0, peak=1e-3):
    return learning_rate(schedule, peak, epoch, done, step_size=10, decay=0.7)


def test_the_published_schedule():
    assert [rate("step", epoch) for epoch in (0, 9, 10, 29)] == pytest.approx(
        [1e-3, 1e-3, 7e-4, 4.9e-4]
    )
    assert rate("step", 1000) == 1e-5


def test_one_cycle_rises_to_its_peak_and_ends_near_zero():
    assert rate("one_cycle", done=0.0) == pytest.approx(4e-5)
    assert rate("one_cycle", done=0.3) == pytest.approx(1e-3)
    assert rate("one_cycle", done=1.0) == pytest.approx(4e-9)
    rates = [rate("one_cycle", done=i / 100) for i in range(101)]
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
