"""Steps on tiles of pixels by `products.cpp`, in fp32 on a CPU: arguments and compilation."""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from models.prepared_convolutions import toom_cook
from models.tapes import without_tiny
from utils.files import cache_folder, written_whole

SOURCES = [
    Path(__file__).with_name(name)
    for name in ("products.h", "temporal.h", "products.cpp", "filters.cpp")
]
FLAGS = {"AVX512": ("-mavx512f", "-mfma"), "AVX2": ("-mavx2", "-mfma")}  # else what any CPU has


def on_products(dtype: torch.dtype, device: torch.device, compiled: bool) -> bool:
    """Whether products.cpp does the work where `--compile` is asked for."""
    return compiled and device.type == "cpu" and dtype == torch.float32


@cache
def products() -> ctypes.CDLL:
    """The functions of products.cpp and filters.cpp for this kind of processor, from the cache
    folder or compiled with $CXX or c++. OSError or RuntimeError where that does not work."""
    flags = FLAGS.get(torch.backends.cpu.get_cpu_capability(), ())
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    command = [*compiler, "-std=c++17", "-O3", "-shared", "-fPIC", *flags]
    about = b"".join(path.read_bytes() for path in SOURCES)
    about += " ".join([*command, platform.machine()]).encode()
    command += [str(path) for path in SOURCES if path.suffix == ".cpp"]
    digest = hashlib.sha256(about).hexdigest()
    path = cache_folder() / f"products-{digest[:16]}.so"
    if not _is_whole(path):
        _compile(command, path)
    return ctypes.CDLL(str(path))


def _is_whole(path: Path) -> bool:
    """Whether a library ends with the digest of the rest; a damaged one would kill the process."""
    content = path.read_bytes() if path.is_file() else b""
    return content[-32:] == hashlib.sha256(content[:-32]).digest()


def _compile(command: list[str], path: Path) -> None:
    # Interrupted, a compiler leaves its files: they are to be in a folder of ours.
    with written_whole(path) as new, tempfile.TemporaryDirectory() as scratch:
        try:
            done = subprocess.run(
                [*command, "-o", str(new)],
                capture_output=True,
                env=os.environ | {"TMPDIR": scratch},
            )
        except OSError as error:
            raise RuntimeError(f"{command[0]}: {error.strerror}") from None
        content = new.read_bytes()
        if done.returncode or not content:
            said = done.stderr.decode(errors="replace").strip()
            raise RuntimeError(said or f"{command[0]} failed")
        new.write_bytes(content + hashlib.sha256(content).digest())


def make_struct(name: str, fields: str, **others: type) -> type[ctypes.Structure]:
    """A struct of the C++ sources: 64-bit whole numbers, and pointers where a * says so."""
    kinds = [
        (f.strip("*"), ctypes.c_void_p if "*" in f else ctypes.c_int64) for f in fields.split()
    ]
    return type(name, (ctypes.Structure,), {"_fields_": [*kinds, *others.items()]})


FactorsStruct = make_struct("Factors", "taps *weights weights_step *x x_step *offsets")
StepStruct = make_struct(
    "Step",
    "kind batches outputs pixels columns *out out_step out_row *bias bias_step rectified count",
    factors=FactorsStruct * 2,
)
MapStruct = make_struct("Map", "*x columns *first *share")
EndStruct = make_struct(
    "End",
    "channels frames rows columns *sum *weights *bias *out out_frame out_row count",
    maps=MapStruct * 2,
)
PRODUCT, THREE_TAPS, CHANGES, POOLING = range(4)


def constant(name: str) -> int:
    """A number that the C++ sources choose for this kind of processor."""
    return ctypes.c_int64.in_dll(products(), name).value


def in_blocks(matrix: torch.Tensor) -> torch.Tensor:
    """[..., O, K] to [..., blocks, K, rows], as products.h wants it."""
    rows = constant("block_rows")
    matrix = F.pad(matrix, (0, 0, 0, -matrix.shape[-2] % rows)).unflatten(-2, (-1, rows))
    return matrix.mT.contiguous()


def fits(x: torch.Tensor) -> bool:
    """Whether the C++ sources can take an array: fp32, its pixels side by side."""
    return x.is_cpu and x.dtype == torch.float32 and (x.shape[-1] == 1 or x.stride(-1) == 1)


class Weights:
    """A matrix [O, K] or [B, O, K] for products with x [B, K, P]."""

    def __init__(self, matrix: torch.Tensor):
        matrix = without_tiny(matrix).float()
        self.outputs = matrix.shape[-2]
        self.kept = matrix.ne(0).flatten(0, -2).any(dim=0)  # taps that have any weight
        self.blocks = in_blocks(matrix[..., self.kept])
        self.step = self.blocks[0].numel() if matrix.dim() == 3 else 0

    def factors(self, x: torch.Tensor) -> tuple[FactorsStruct, torch.Tensor]:
        """The struct, and an array that has to live as long."""
        return self.at(x, x.stride(1) * torch.arange(x.shape[1]))

    def at(self, x: torch.Tensor, offsets: torch.Tensor) -> tuple[FactorsStruct, torch.Tensor]:
        """The same where a batch is x[b] and tap k lies offsets[k] behind its beginning."""
        assert fits(x)
        offsets = offsets[self.kept].contiguous()
        weights = self.blocks.data_ptr(), self.step
        struct = FactorsStruct(
            len(offsets), *weights, x.data_ptr(), x.stride(0), offsets.data_ptr()
        )
        return struct, offsets


def temporal_images(kernel: torch.Tensor) -> torch.Tensor:
    """A kernel [O, C, k, ...] of 3 or 2 taps along time as temporal.h wants it: [n, O, C, ...]
    for four frames by n = k + 3 products."""
    _, G, B = toom_cook(4, kernel.shape[2], points=(1, -1, 0.5, -0.5, 0))
    # There the last frame of every image counts once; the kernel takes what that leaves out.
    leading = torch.cat([B[:-1, -2], B[-1:, -1]])
    return torch.einsum("nk,ock...->noc...", (leading[:, None] * G).to(kernel), kernel)


class TemporalTaps(Weights):
    """A kernel [O, C, k] of a convolution along time of three or two taps, by fewer products."""

    def __init__(self, kernel: torch.Tensor):
        self.taps = kernel.shape[2]
        super().__init__(temporal_images(kernel))


class Step(NamedTuple):
    """What is done to arrays, and what has to live as long as that is done."""

    struct: StepStruct
    alive: list


def step(
    kind: int,
    out: torch.Tensor,
    factors: list[tuple[FactorsStruct, object]],
    bias: torch.Tensor | None = None,
    rectify: bool = False,
) -> Step:
    """A step of any kind, from `factors` with what has to live as long, to out [B, O, P]; a product
    with a bias [O, 1] or [B, O, 1] and rectified."""
    assert fits(out)
    struct = StepStruct(kind, len(out), *out.shape[1:])
    struct.out, struct.out_step, struct.out_row = out.data_ptr(), *out.stride()[:2]
    struct.count, struct.factors = len(factors), tuple(one for one, _ in factors)
    struct.rectified = rectify
    if bias is not None:
        assert bias.shape in ((out.shape[1], 1), (*out.shape[:2], 1))
        bias = without_tiny(bias).float().contiguous()
        struct.bias, struct.bias_step = bias.data_ptr(), out.shape[1] if bias.dim() == 3 else 0
    return Step(struct, [out, factors, bias])


def product(
    out: torch.Tensor,
    *factors: tuple[Weights, torch.Tensor],
    bias: torch.Tensor | None = None,
    rectify: bool = False,
) -> Step:
    """The sum of the products of all factors and of a bias [O, 1] or [B, O, 1], to out [B, O, P],
    rectified or not. Arrays are fp32 views whose last axis is contiguous."""
    for weights, x in factors:
        assert weights.outputs == out.shape[1]
        assert not weights.step or len(weights.blocks) == len(x)
        assert (len(x), x.shape[2]) == (len(out), out.shape[2])
    made = step(PRODUCT, out, [weights.factors(x) for weights, x in factors], bias, rectify)
    made.alive.append(factors)
    return made


def convolution(out: torch.Tensor, taps: TemporalTaps, x: torch.Tensor, bias: torch.Tensor) -> Step:
    """Along time, plus a bias [O, 1], to out [T, O, P], rectified: three taps on x [T + 2, C, P] or
    two on the changes of x [T + 4, C, P] from frame to next frame but one."""
    kind, ends = (THREE_TAPS, 1) if taps.taps == 3 else (CHANGES, 2)
    assert (len(x), x.shape[2]) == (len(out) + 2 * ends, out.shape[2])
    assert taps.outputs == out.shape[1]
    assert bias.shape == (taps.outputs, 1)
    struct, offsets = taps.factors(x)
    return step(kind, out, [(struct, (taps, offsets, x))], bias, rectify=True)


def pooling(out: torch.Tensor, x: torch.Tensor, columns: int) -> Step:
    """The largest of every 2 x 2 pixels of x [B, O, P], rows of so many columns, to out
    [B, O, P / 4]."""
    assert (*x.shape[:2], x.shape[2] // 4) == out.shape
    assert columns % 2 == 0
    assert x.shape[2] % (2 * columns) == 0
    assert fits(x)
    offsets = x.stride(1) * torch.arange(x.shape[1])
    struct = FactorsStruct(x=x.data_ptr(), x_step=x.stride(0), offsets=offsets.data_ptr())
    made = step(POOLING, out, [(struct, (x, offsets))])
    made.struct.columns = columns
    return made
