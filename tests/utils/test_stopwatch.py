import torch

from utils.stopwatch import Stopwatch


def test_it_waits_for_the_gpu_it_was_given(monkeypatch):
    """Not for the current one, on which the work may not be."""
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    Stopwatch(torch.device("cuda", 1)).lap("forward")
    Stopwatch(torch.device("cpu")).lap("forward")
    assert waited == [torch.device("cuda", 1)]
