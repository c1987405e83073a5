"""The published arithmetic, and the benchmark of a training step."""

import pytest
import torch

from models import build_network
from models.step_benchmark import main, published


def test_published_arithmetic_is_that_of_the_plain_module():
    torch.manual_seed(0)
    network = build_network("DeepPro", seqlen=6).double().train()
    other = published(network)
    frames = torch.randn(1, 1, 6, 8, 8, dtype=torch.float64)
    one, two = network(frames), other(frames)
    assert torch.allclose(one, two)
    torch.nn.functional.softplus(one).sum().backward()
    torch.nn.functional.softplus(two).sum().backward()
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-9)


def test_a_row_for_every_form(capsys):
    main(["--patch_size", "16", "--batch_size", "2", "--seqlen", "4", "--repeats", "1"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["path", "published", "plain", "tiles"]
    assert rows[1][-1] == "1.00"
    assert all(float(value) > 0 for row in rows[1:] for value in row[1:])


def test_it_says_when_there_are_no_tiles(capsys):
    main(["--patch_size", "6", "--batch_size", "1", "--seqlen", "4", "--repeats", "1"])
    assert "no tiles fit [1, 1, 4, 6, 6]: the plain module did" in capsys.readouterr().out


def test_sizes_that_make_no_sense(capsys):
    with pytest.raises(SystemExit):
        main(["--patch_size", "3"])
    assert "--patch_size 3: at least 4" in capsys.readouterr().err
