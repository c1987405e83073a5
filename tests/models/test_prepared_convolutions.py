"""Convolutions by fewer products against those that are written down."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prepared_convolutions import (
    Convolution,
    FewerProducts,
    paired,
    temporal_convolution,
    toom_cook,
)


@given(m=st.integers(2, 4), k=st.integers(2, 3))
def test_toom_cook_is_a_filter(m, k):
    torch.manual_seed(0)
    A, G, B = toom_cook(m, k, FewerProducts.POINTS)
    taps, x = torch.randn(k, dtype=torch.float64), torch.randn(m + k - 1, dtype=torch.float64)
    filtered = x.unfold(0, k, 1) @ taps
    torch.testing.assert_close(A @ ((G @ taps) * (B @ x)), filtered, rtol=1e-12, atol=1e-12)


@settings(max_examples=40)
@given(data=st.data())
def test_fewer_products_are_the_same_convolution(data):
    torch.manual_seed(0)
    taps, dilation = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 2))
    padding = data.draw(st.integers(0, taps - 1))
    T = data.draw(st.integers(taps, 13))
    kernel, bias = torch.randn(3, 2, taps, 3, 3, dtype=torch.float64), torch.randn(3).double()
    x = torch.randn(T, 7, 6, 2, dtype=torch.float64)
    few = FewerProducts(kernel, bias, torch.float64, padding, dilation)
    geometry = {"padding": (padding, 0, 0), "dilation": (1, dilation, dilation)}
    whole = Convolution(kernel, bias, torch.float64, **geometry)
    torch.testing.assert_close(few(x), whole(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("channels", "dtype", "kind"),
    [
        (32, torch.float32, FewerProducts),
        (32, torch.bfloat16, Convolution),
        (16, torch.float32, Convolution),
    ],
)
def test_only_what_is_worth_it_and_precise_goes_by_fewer(channels, dtype, kind):
    kernel, bias = torch.randn(channels, channels, 3, 3, 3), torch.randn(channels)
    assert type(temporal_convolution(kernel, bias, dtype, padding=1, dilation=2)) is kind


def test_pairs_of_pixels_are_the_pixels():
    torch.manual_seed(0)
    kernel, bias = torch.randn(4, 3, 3, 5, 5), torch.randn(4)
    x = torch.randn(6, 9, 12, 3)
    each = Convolution(kernel, bias, torch.float32)(x)  # [4, 5, 8, 4]
    pairs = Convolution(*paired(kernel, bias), torch.float32)(x.view(6, 9, 6, 6))
    torch.testing.assert_close(pairs.view(each.shape), each, rtol=1e-4, atol=1e-4)
