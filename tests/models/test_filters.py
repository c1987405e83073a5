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

    I, O, T, d = size(5), size(18), size(11), size(2)  # noqa: E741
    rows, w, shift = size(HIGH), size(40), size(3, least=0)
    difference, mixes = data.draw(st.booleans()), data.draw(st.booleans())
    apart = 2 if difference else 1
    kernel = torch.randn(O, I, 3, 3, 3, dtype=torch.float64) / (27 * I) ** 0.5
    kernel = whole_sum(kernel) if difference else kernel
    floor = torch.randn(O, dtype=torch.float64)
    x = torch.randn(T + 2 * apart, I, rows + 2 * d, w + 2 * d)
    expected = convolved(x, kernel, apart, d).maximum(floor[:, None, None])
    places = rows + size(3)  # of rows that out has
    first = places * size(5, least=0) + size(places - rows, least=0)
    mix = seen = None
    if mixes:
        other, matrices = torch.randn(T, 3, rows, w), [torch.randn(7, n).double() for n in (O, 3)]
        mix = Mix(*matrices, floor=torch.zeros(7))
        arrays = zip(matrices, (expected, other.double()), strict=True)
        expected = sum(torch.einsum("oc,tchw->tohw", *pair) for pair in arrays).clamp_min(0)
        seen = ring(other, first + shift, rows + 2)
    whole = torch.full((T, expected.shape[1] + 1, places, w + 2), 7.0)
    out, x = whole[:, :-1, :, 1:-1], ring(x, first, rows + 2 * d + size(4))
    Filter(kernel, floor, d, difference, mix).bind(x, out, seen, shift)(first, rows)
    made = out[:, :, first % places :][:, :, :rows]
    torch.testing.assert_close(made.double(), expected, rtol=1e-4, atol=1e-4)
    made.fill_(7)
    assert whole.eq(7).all()  # nothing else was written


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("d", [1, 2])
def test_the_widest_rows(difference, d):
    apart = 2 if difference else 1
    kernel = torch.randn(16, 8, 3, 3, 3, dtype=torch.float64)
    kernel = whole_sum(kernel) if difference else kernel
    x, out = (
        torch.randn(40 + 2 * apart, 8, HIGH + 2 * d, WIDTH + 2 * d),
        torch.zeros(40, 16, 4, WIDTH),
    )
    floor = torch.full((16,), -1e9, dtype=torch.float64)
    Filter(kernel, floor, d, difference).bind(x, out)(0, HIGH)
    torch.testing.assert_close(out.double(), convolved(x, kernel, apart, d), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("place", [(2, 1, 3, 4), (0, 0, 0, 0)])
def test_nan_stays_nan(place):
    x, out = torch.randn(6, 2, 8, 20), torch.zeros(4, 3, 4, 16)
    x[place] = torch.nan
    kernel = torch.randn(3, 2, 3, 3, 3, dtype=torch.float64)
    Filter(kernel, torch.zeros(3), 2).bind(x, out)(0, HIGH)
    assert out[convolved(x, kernel, 1, 2).isnan()].isnan().all()
    x[place] = 0
    Filter(kernel, torch.zeros(3), 2).bind(x, out)(0, HIGH)
    assert not out.isnan().any()  # nothing is left of it


def test_the_largest_call_is_that_of_the_source():
    sizes = (
        ctypes.c_int64.in_dll(products(), f"filter_{name}").value for name in ("high", "width")
    )
    assert tuple(sizes) == (HIGH, WIDTH)


@pytest.mark.parametrize(
    ("rows", "columns", "frames", "channels"),
    [(5, 20, 4, 2), (4, WIDTH + 1, 4, 2), (4, 20, 5, 2), (4, 20, 4, 3)],
)
def test_arrays_that_do_not_fit_are_refused(rows, columns, frames, channels):
    """They would be read or written out of bounds."""
    x, out = torch.zeros(6, 2, 8, columns + 4), torch.zeros(frames, 3, 8, columns)
    kernel = torch.zeros(3, channels, 3, 3, 3, dtype=torch.float64)
    with pytest.raises(AssertionError):
        Filter(kernel, torch.zeros(3), 2).bind(x, out)(0, rows)
