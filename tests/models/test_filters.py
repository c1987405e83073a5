"""The convolutions of filters.cpp against those that are written down."""

import ctypes

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from models.filters import HIGH, WIDTH, Filter, Mix
from models.products import products
from tests.compiler import needs_compiler

pytestmark = needs_compiler


def ring(x: torch.Tensor, first: int, rows: int) -> torch.Tensor:
    """An array of so many rows that holds those of x [T, C, h, w] from row `first` on, at their
    place modulo `rows`; the others are NaN."""
    made = torch.full((*x.shape[:2], rows, x.shape[3]), torch.nan)
    for i in range(x.shape[2]):
        made[:, :, (first + i) % rows] = x[:, :, i]
    return made


def convolved(x: torch.Tensor, kernel: torch.Tensor, apart: int, d: int) -> torch.Tensor:
    """[T, I, h, w] to [T', O, h', w'], in float64."""
    y = F.conv3d(x.double().transpose(0, 1), kernel, dilation=(apart, d, d))
    return y.transpose(0, 1)


def whole_sum(kernel: torch.Tensor) -> torch.Tensor:
    """A kernel whose taps in time sum to zero."""
    return kernel - kernel.mean(dim=2, keepdim=True)


@given(data=st.data())
def test_rows_are_those_of_the_convolution(data):
    def size(most, least=1):
        return data.draw(st.integers(least, most))

    torch.manual_seed(0)
    I, O, T, d = size(5), size(18), size(11), size(2)  # noqa: E741
    rows, w, shift = size(HIGH), size(40), size(3, least=0)
    difference, mixes = data.draw(st.booleans()), data.draw(st.booleans())
    apart = 2 if difference else 1
    kernel = torch.randn(O, I, 3, 3, 3, dtype=torch.float64) / (27 * I) ** 0.5
    kernel = whole_sum(kernel) if difference else kernel
    bias = torch.randn(O, dtype=torch.float64)
    x = torch.randn(T + 2 * apart, I, rows + 2 * d, w + 2 * d)
    expected = (convolved(x, kernel, apart, d) + bias[:, None, None]).relu()
    places = rows + size(3)  # of rows that out has
    first = places * size(5, least=0) + size(places - rows, least=0)
    mix = seen = None
    if mixes:
        mixed, others = size(18), size(18)
        matrices = [torch.randn(mixed, n, dtype=torch.float64) for n in (O, others)]
        other, own = torch.randn(T, others, rows, w), torch.randn(mixed)
        mix = Mix(*matrices, own)
        arrays = zip(matrices, (expected, other.double()), strict=True)
        expected = sum(torch.einsum("oc,tchw->tohw", *pair) for pair in arrays)
        expected = (expected + own[:, None, None]).relu()
        seen = ring(other, first + shift, rows + 2)
    whole = torch.full((T, expected.shape[1] + 1, places, w + 2), 7.0)
    out, x = whole[:, :-1, :, 1:-1], ring(x, first, rows + 2 * d + size(4))
    Filter(kernel, bias, d, difference, mix).bind(x, out, seen, shift)(first, rows)
    made = out[:, :, first % places :][:, :, :rows]
    torch.testing.assert_close(made.double(), expected, rtol=1e-4, atol=1e-4)
    made.fill_(7)
    assert whole.eq(7).all()  # nothing else was written


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("d", [1, 2])
def test_the_widest_rows(difference, d, mixes):
    apart, bias = 2 if difference else 1, torch.randn(16)
    kernel = torch.randn(16, 8, 3, 3, 3, dtype=torch.float64)
    kernel = whole_sum(kernel) if difference else kernel
    x = torch.randn(8 + 2 * apart, 8, HIGH + 2 * d, WIDTH + 2 * d)
    out = torch.zeros(8, 16, HIGH, WIDTH)
    expected = (convolved(x, kernel, apart, d) + bias[:, None, None]).relu()
    mix = other = None
    if mixes:
        other = torch.randn(8, 16, HIGH, WIDTH)
        mix = Mix(*[torch.eye(16)] * 2, bias=bias)
        expected = (expected + other + bias[:, None, None]).relu()
    Filter(kernel, bias, d, difference, mix).bind(x, out, other)(0, HIGH)
    torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("place", [(2, 1, 3, 4), (0, 0, 0, 0)])
def test_nan_stays_nan(place, difference):
    apart = 2 if difference else 1
    x, out = torch.randn(4 + 2 * apart, 2, 8, 20), torch.zeros(4, 3, 4, 16)
    x[place] = torch.nan
    kernel = whole_sum(torch.randn(3, 2, 3, 3, 3, dtype=torch.float64))
    convolution = Filter(kernel, torch.zeros(3), 2, difference)
    convolution.bind(x, out)(0, HIGH)
    assert out[convolved(x, kernel, apart, 2).isnan()].isnan().all()
    x[place] = 0
    convolution.bind(x, out)(0, HIGH)
    assert not out.isnan().any()  # nothing is left of it


def test_the_largest_call_is_that_of_the_source():
    sizes = (
        ctypes.c_int64.in_dll(products(), f"filter_{name}").value for name in ("high", "width")
    )
    assert tuple(sizes) == (HIGH, WIDTH)


@pytest.mark.parametrize(
    ("x", "out", "first"),
    [
        ((6, 2, 8, 24), (4, 3, 8, 20), -1),
        ((6, 2, 7, 24), (4, 3, 8, 20), 0),  # 4 rows of 8
        ((6, 2, 8, 24), (4, 3, 3, 20), 0),
        ((6, 2, 8, 24), (4, 2, 8, 20), 0),
        ((6, 2, 8, 24), (5, 3, 8, 20), 0),
        ((6, 2, 8, 24), (4, 3, 8, 21), 0),
        ((6, 1, 8, 24), (4, 3, 8, 20), 0),
        ((6, 2, 8, WIDTH + 5), (4, 3, 8, WIDTH + 1), 0),
    ],
)
def test_arrays_that_do_not_fit_are_refused(x, out, first):
    """They would be read or written out of bounds."""
    convolution = Filter(torch.zeros(3, 2, 3, 3, 3, dtype=torch.float64), torch.zeros(3), 2)
    with pytest.raises(AssertionError):
        convolution.bind(torch.zeros(x), torch.zeros(out))(first, HIGH)


def test_other_arrays_that_do_not_fit_are_refused():
    mix = Mix(torch.zeros(3, 3), torch.zeros(3, 2), torch.zeros(3))
    kernel, x = torch.zeros(3, 2, 3, 3, 3, dtype=torch.float64), torch.zeros(6, 2, 8, 24)
    for other in (None, torch.zeros(4, 1, 8, 20), torch.zeros(4, 2, 8, 20).double()):
        with pytest.raises(AssertionError):
            Filter(kernel, torch.zeros(3), 2, mix=mix).bind(x, torch.zeros(4, 3, 8, 20), other)
