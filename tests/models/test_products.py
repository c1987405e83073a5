"""The steps of products.cpp against torch, and its compilation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from models import compiled, compiler_works, products
from models.compiled import ProductTape
from models.compiled_output import CompiledOutput
from models.prepared_upsampling import Others, Output, Upsampling
from models.tapes import Tape
from tests.compiler import needs_compiler

CPU = torch.device("cpu")

pytestmark = needs_compiler


@pytest.fixture
def tape():
    return ProductTape(torch.float32, CPU)


def close(x: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(x.double(), expected, rtol=1e-5, atol=1e-5)


@given(data=st.data())
def test_products_are_those_of_torch(data):
    def size(most):
        return data.draw(st.integers(1, most))

    tape = ProductTape(torch.float32, CPU)
    B, O, P = size(4), size(20), size(120)  # noqa: E741
    factors, expected = [], 0
    for _ in range(data.draw(st.integers(1, 2))):
        K = size(9)
        matrix = torch.randn((B, O, K) if data.draw(st.booleans()) else (O, K)).double()
        matrix[..., torch.rand(K) < 0.3] = 0  # a tap without weight is left out
        x = torch.randn(B, K, P + 5)[..., data.draw(st.integers(0, 5)) :][..., :P]
        factors.append((matrix, x))
        expected = expected + matrix.expand(B, -1, -1) @ x.double()
    bias = data.draw(st.sampled_from([None, torch.randn(O, 1), torch.randn(B, O, 1)]))
    rectify = data.draw(st.booleans())
    whole = torch.full((B, O + 2, P + 2), 7.0)
    out = whole[:, 1:-1, 1:-1]
    tape.multiply(out, *factors, bias=bias, rectify=rectify)
    tape.run()
    expected = expected if bias is None else expected + bias.double()
    close(out, expected.relu() if rectify else expected)
    out.fill_(7)
    assert whole.eq(7).all()  # nothing else was written


def test_products_of_neighbouring_frames(tape):
    x, matrix = torch.randn(9, 4, 50), torch.randn(8, 12, dtype=torch.float64)
    out = torch.empty(7, 8, 50)
    tape.multiply(out, (matrix, tape.neighbours(x, 3)))
    tape.run()
    close(out, F.conv1d(x.double().permute(2, 1, 0), matrix.view(8, 3, 4).mT).permute(2, 1, 0))


def test_channels_are_mixed_at_every_frame(tape):
    x, matrix, bias = torch.randn(5, 7, 33), torch.randn(3, 5).double(), torch.randn(3, 1)
    out, rectified = torch.empty(2, 3, 7, 33)
    tape.mix(out, matrix, x, bias)
    tape.mix(rectified, matrix, x, rectify=True)
    tape.run()
    expected = torch.einsum("oc,ctp->otp", matrix, x.double())
    close(out, expected + bias.double()[..., None])
    close(rectified, expected.relu())


@pytest.mark.parametrize("kind", [Tape, ProductTape])
@pytest.mark.parametrize(("h", "w"), [(1, 1), (2, 3), (1, 16), (3, 70)])
def test_pooling(kind, h, w):
    tape = kind(torch.float32, CPU)
    x = torch.randn(4, 6, 4 * h * w + 3)[1:, :-1, 2:-1]
    x[0, 0, torch.randint(4 * h * w, (1,))] = torch.nan
    whole = torch.full((3, 7, h * w + 2), 7.0)
    out = whole[:, 1:-1, 1:-1]
    expected = F.max_pool2d(x.unflatten(2, (2 * h, 2 * w)), 2).flatten(2)
    tape.pool(out, x, 2 * w)
    tape.run()
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    out.fill_(7)
    assert whole.eq(7).all()  # nothing else was written


@given(data=st.data())
def test_convolutions_along_time(data):
    def size(most):
        return data.draw(st.integers(1, most))

    torch.manual_seed(0)
    tape, simple = (kind(torch.float32, CPU) for kind in (ProductTape, Tape))
    T, O, C, P, k = size(17), size(20), size(9), size(120), size(2) + 1  # noqa: E741
    kernel, bias = torch.randn(O, C, k, dtype=torch.float64), torch.randn(O, 1)
    kernel[:, : data.draw(st.integers(0, C))] = 0  # taps without weight are left out
    x = torch.randn(T + 2 if k == 3 else T + 4, C, P)
    whole, expected = torch.full((T, O + 2, P + 2), 7.0), torch.empty(T, O, P)
    out = whole[:, 1:-1, 1:-1]
    for one, result in ((tape, out), (simple, expected)):
        (one.convolve if k == 3 else one.convolve_changes)(result, kernel, x, bias)
        one.run()
    seen = x if k == 3 else x[2:] - x[:-2]
    exact = F.conv1d(seen.double().permute(2, 1, 0), kernel, bias.double()[:, 0], dilation=4 - k)
    for result in (out, expected):
        found = result.double().permute(2, 1, 0)
        torch.testing.assert_close(found, exact.relu(), rtol=1e-4, atol=1e-4)
    out.fill_(7)
    assert whole.eq(7).all()  # nothing else was written


@pytest.mark.parametrize("k", [2, 3])
def test_nan_stays_nan_in_a_convolution(tape, k):
    x, out = torch.randn(14 - 2 * k, 4, 64), torch.empty(6, 3, 64)
    x[4 if k == 2 else 3, 1, 5] = torch.nan
    convolve = tape.convolve if k == 3 else tape.convolve_changes
    convolve(out, torch.ones(3, 4, k).double(), x, torch.zeros(3, 1))
    tape.run()
    assert out[[0, 2, 4] if k == 2 else [1, 2, 3], :, 5].isnan().all()
    assert not out[..., :5].isnan().any()
    assert not out[..., 6:].isnan().any()


@pytest.mark.parametrize(
    ("x", "kernel", "bias", "out"),
    [
        ((6, 4, 32), (40, 4, 3), (40, 1), (4, 3, 32)),
        ((6, 4, 32), (3, 4, 3), (4, 3, 1), (4, 3, 32)),
        ((6, 4, 32), (3, 4, 3), (3, 1), (5, 3, 32)),
        ((6, 4, 32), (3, 4, 3), (3, 1), (4, 3, 33)),
        ((6, 5, 32), (3, 4, 3), (3, 1), (4, 3, 32)),
        ((6, 4, 32), (3, 4, 2), (3, 1), (4, 3, 32)),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(tape, x, kernel, bias, out):
    """They would be read or written out of bounds."""
    arrays = torch.empty(out), torch.ones(kernel), torch.empty(x), torch.zeros(bias)
    with pytest.raises((AssertionError, IndexError)):
        tape.convolve(*arrays)


@pytest.mark.parametrize(
    ("matrix", "x", "out"),
    [
        ((5, 4), (2, 4, 32), (2, 6, 32)),
        ((5, 4), (3, 4, 32), (2, 5, 32)),
        ((5, 4), (2, 4, 31), (2, 5, 32)),
        ((3, 5, 4), (2, 4, 32), (2, 5, 32)),
    ],
)
def test_products_that_do_not_fit_are_refused(tape, matrix, x, out):
    with pytest.raises(AssertionError):
        tape.multiply(torch.empty(out), (torch.ones(matrix), torch.empty(x)))


@pytest.mark.parametrize(
    ("x", "columns", "out"),
    [((2, 3, 32), 8, (2, 3, 9)), ((2, 3, 36), 9, (2, 3, 9)), ((2, 3, 24), 8, (2, 3, 6))],
)
def test_poolings_that_do_not_fit_are_refused(tape, x, columns, out):
    with pytest.raises(AssertionError):
        tape.pool(torch.empty(out), torch.empty(x), columns)


def test_nan_stays_nan(tape):
    x, bias = torch.randn(1, 4, 64), torch.zeros(3, 1)
    x[0, 1, 5] = torch.nan
    out = torch.empty(1, 3, 64)
    tape.multiply(out, (torch.ones(3, 4), x), bias=bias)
    tape.run()
    assert out.isnan().nonzero()[:, 2].tolist() == [5, 5, 5]


def test_a_step_of_torch_is_not_left_out_in_silence(tape):
    x = torch.ones(1, 1, 3)
    tape.do(torch.add, x, 1, out=x)
    with pytest.raises(AssertionError, match="a step of torch's"):
        tape.run()


def test_pieces_of_one_size_share_their_padded_arrays(tape):
    most, seen = products.constant("piece"), {}
    for piece in tape.pieces(2 * most + 10):
        size = piece.stop - piece.start
        arrays = [tape.padded(2, 4, 1, size) for _ in range(2)]
        seen.setdefault(size, set()).update(a.data_ptr() for a in arrays)
    assert {size: len(places) for size, places in seen.items()} == {most: 2, 10: 2}


@pytest.mark.parametrize("pixels", [48, 96, 192, 384])
def test_frames_do_not_drive_each_other_out_of_the_cache(tape, pixels):
    x = tape.padded(2, 40, 32, pixels)
    assert x.stride(0) * 4 % 4096
    assert tape.with_ends(x, 2).shape == (44, 32, pixels)
    assert not tape.with_ends(x, 2)[[0, 1, -2, -1]].any()


@given(data=st.data())
def test_the_output_is_that_of_torch(data):
    H, W, h, w = (data.draw(st.integers(4, most)) for most in (12, 90, 12, 90))
    conv = torch.nn.Conv3d(8, 1, 1)
    upsampling = Upsampling((H, W), (2, 4), (h, w), torch.empty(0))
    maps = [torch.randn(H // s, 8, 3, W // s) for s in (2, 4)]
    band = data.draw(st.sampled_from(list(upsampling.bands)))
    columns = data.draw(st.sampled_from(list(upsampling.columns)))
    others = Others(upsampling, upsampling.rows(maps, band), columns)
    size = band[1] - band[0], columns[1] - columns[0]
    x = torch.randn(8, 3, size[0] * size[1])
    logits = [torch.zeros(3, H, W) for _ in range(2)]
    with torch.no_grad():
        for kind, out in zip((Output, CompiledOutput), logits, strict=True):
            part = out[:, slice(*band), slice(*columns)]
            kind(conv, torch.float32)(x.clone(), others, part)
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


# Compilation


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, and nothing loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    products.products.cache_clear()
    yield tmp_path / "deeppro"
    products.products.cache_clear()


def test_it_is_compiled_once(cache, monkeypatch):
    assert compiler_works(CPU, torch.float32)
    (library,) = cache.iterdir()
    products.products.cache_clear()
    monkeypatch.setattr(products.subprocess, "run", None)
    assert products.constant("block_rows") in (4, 8)
    assert list(cache.iterdir()) == [library]


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler", "no-such-compiler: No such file or directory"),
        ("false with arguments", "false failed"),
        ("true", "true failed"),  # it writes nothing
    ],
)
def test_without_a_compiler_a_line_says_so(cache, monkeypatch, capsys, compiler, reason):
    monkeypatch.setenv("CXX", compiler)
    assert not compiler_works(CPU, torch.float32)
    err = capsys.readouterr().err
    assert err.startswith("warning: --compile: goes on without, no compiler works: ")
    assert reason in err
    assert err.count("\n") == 1
    assert not any(cache.iterdir())


def test_a_damaged_library_is_compiled_again(cache, monkeypatch, tmp_path):
    products.products()
    (library,) = cache.iterdir()
    for kept in (0, -100):
        damaged = tmp_path / str(kept) / "deeppro" / library.name
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(library.read_bytes()[:kept])
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(kept)))
        products.products.cache_clear()
        assert compiler_works(CPU, torch.float32)
        assert damaged.stat().st_size == library.stat().st_size


def test_what_the_compiler_says_is_told(cache, monkeypatch, tmp_path, capsys):
    source = tmp_path / "wrong.cpp"
    source.write_text("this is no C++\n")
    monkeypatch.setattr(products, "SOURCES", [source])
    assert not compiler_works(CPU, torch.float32)
    assert "wrong.cpp:1" in capsys.readouterr().err


def test_in_less_than_fp32_torch_compiles(monkeypatch, capsys):
    def fail(*arguments, **options):
        raise RuntimeError("no g++ here\nand much more")

    monkeypatch.setattr(torch, "compile", fail)
    assert not compiler_works(CPU, torch.bfloat16)
    assert "no compiler works: no g++ here\n" in capsys.readouterr().err
    assert compiled.compiler_works(CPU, torch.float32)
