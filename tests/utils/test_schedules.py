import pytest
import torch
from torch import nn

from utils.schedules import build_average, learning_rate


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


def test_the_average_of_the_weights_is_that_of_the_slow_loop():
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    average, decay = build_average(network, 0.5), 0.5
    expected = {}
    for n in range(12):
        torch.manual_seed(n)
        for tensor in (*network.parameters(), network[1].running_mean):
            tensor.data = torch.randn_like(tensor)
        network[1].num_batches_tracked += 1
        average.update_parameters(network)
        d = min(decay, (1 + n) / (10 + n)) if n else 0.0  # the first weights are taken as they are
        for name, now in network.state_dict().items():
            expected[name] = d * expected.get(name, 0.0) + (1 - d) * now.double()
    for name, averaged in average.module.state_dict().items():
        if name != "1.num_batches_tracked":
            torch.testing.assert_close(averaged.double(), expected[name], rtol=1e-5, atol=1e-6)
