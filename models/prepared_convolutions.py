"""Convolutions of the prepared forms that look around a pixel: of [T, h, w, I] to [T', h', w', O].

torch calls this order channels_last_3d. In space nothing is padded.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from models.tapes import without_tiny

WORTH_IT = 1024  # products a tap, I * O, from which fewer of them pay for the sums around them


class Convolution:
    """A convolution as it is written down.

    Args:
        kernel, bias: [O, I, kT, kH, kW] and [O], of any floating type.
        padding, dilation, stride: in time, down and across, as for F.conv3d.
    """

    def __init__(self, kernel: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype, **geometry):
        kernel = without_tiny(kernel).to(dtype)
        self.kernel = kernel.contiguous(memory_format=torch.channels_last_3d)
        self.bias, self.geometry = bias.to(dtype), geometry

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv3d(x.permute(3, 0, 1, 2)[None], self.kernel, self.bias, **self.geometry)
        return y[0].permute(1, 2, 3, 0).contiguous()


def paired(kernel: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel [2 O, 2 I, kT, kH, (kW + 1) / 2] and bias [2 O] of the same convolution with pairs of
    neighbouring columns as channels: [T, h, w / 2, 2 I] to [T', h', w' / 2, 2 O].

    Two pixels of 8 channels each fill the vector registers. w must be even, kW odd.
    """
    kernel = torch.cat([F.pad(kernel, (0, 1)), F.pad(kernel, (1, 0))])
    kernel = kernel.unflatten(4, (-1, 2)).movedim(5, 1)  # [2 O, 2, I, kT, kH, (kW + 1) / 2]
    return kernel.flatten(1, 2), bias.repeat(2)


def temporal_convolution(
    kernel: torch.Tensor,
    bias: torch.Tensor,
    dtype: torch.dtype,
    padding: int,
    dilation: int,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A convolution of several taps in time, by fewer products where they are what takes time.

    On GPUs and in less than fp32, which the sums would not leave precise enough, it stays as it is.

    Args:
        padding: in time, by less than there are taps.
        dilation: in space.
    """
    few = kernel.is_cpu and dtype == torch.float32
    if few and kernel.shape[0] * kernel.shape[1] >= WORTH_IT:
        return FewerProducts(kernel, bias, dtype, padding, dilation)
    geometry = {"padding": (padding, 0, 0), "dilation": (1, dilation, dilation)}
    return Convolution(kernel, bias, dtype, **geometry)


class FewerProducts:
    """A convolution that multiplies less: m frames cost m + k - 1 convolutions in space, not m k.

    The taps in time are a polynomial's coefficients, and so are the frames. Multiplying polynomials
    means to evaluate both at some points, to multiply the values and to interpolate (Toom, Cook).
    Turned around it is a filter, as Winograd and, for networks, Lavin and Gray (2016) have it:
    y = A ((G g) * (B x)) with A [m, n], G [n, k], B [n, n], n = m + k - 1. Here g and x hold
    images, and * is their convolution in space.

    Args:
        kernel, bias: [O, I, k, 3, 3] and [O], of any floating type.
        padding: in time, at most k - 1.
        dilation: in space.

    [T, h, w, I] to [T + 2 padding - k + 1, h - 2 dilation, w - 2 dilation, O].
    """

    POINTS = (0, 1, -1, 2, -0.5)  # and infinity; small numbers keep the rounding small
    FRAMES = 4  # m; with 5 some released weights answered up to 6e-4 off

    def __init__(
        self,
        kernel: torch.Tensor,
        bias: torch.Tensor,
        dtype: torch.dtype,
        padding: int,
        dilation: int,
    ):
        self.padding, self.dilation = padding, dilation  # in time, in space
        A, G, B = toom_cook(self.FRAMES, kernel.shape[2], self.POINTS)
        kernels = torch.einsum("nk,oikhw->noihw", G.to(kernel), kernel)
        self.kernels = [
            without_tiny(k).to(dtype).contiguous(memory_format=torch.channels_last) for k in kernels
        ]
        # Shares of the bias in the products that come out as the bias itself.
        shares = torch.linalg.pinv(A).sum(dim=1)
        self.biases = (shares[:, None].to(bias) * bias).to(dtype)
        self.A, self.B = A.to(dtype).contiguous(), B.to(dtype).contiguous()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        m, n = self.A.size()
        T, reach = len(x) + 2 * self.padding - (n - m), 2 * self.dilation
        out = x.new_empty(T, x.shape[1] - reach, x.shape[2] - reach, self.biases.shape[1])
        for start in range(0, T, m):
            frames = out[start : start + m]
            products = x.new_empty(n, *frames.shape[1:])
            self._multiply(x, start - self.padding, products)
            torch.mm(self.A[: len(frames)], products.flatten(1), out=frames.flatten(1))
        return out

    def _multiply(self, x: torch.Tensor, start: int, products: torch.Tensor) -> None:
        """Fill [n, h, w, O] from the n frames of x from `start` on, zero where x has none."""
        frames, missing = x[max(start, 0) : start + len(self.B)], max(-start, 0)
        mixed = self.B[:, missing : missing + len(frames)] @ frames.flatten(1)
        mixed = mixed.view(-1, 1, *x.shape[1:]).permute(0, 1, 4, 2, 3)  # [n, 1, I, h', w']
        each = zip(products, mixed, self.kernels, self.biases, strict=True)
        for product, image, kernel, bias in each:
            y = F.conv2d(image, kernel, bias, dilation=self.dilation)
            product.copy_(y[0].permute(1, 2, 0))


def toom_cook(m: int, k: int, points: tuple[float, ...]) -> tuple[torch.Tensor, ...]:
    """A [m, n], G [n, k] and B [n, n], float64, of m outputs of a filter of k taps, n = m + k - 1.

    The first n - 1 of the points are taken, and infinity.
    """
    n = m + k - 1
    finite = torch.tensor(points[: n - 1], dtype=torch.float64)

    def values(count: int) -> torch.Tensor:
        """At all points, those of the powers below `count`: [n, count]."""
        at_infinity = torch.eye(count, dtype=torch.float64)[-1:]
        return torch.cat([torch.linalg.vander(finite, N=count), at_infinity])

    return values(m).T, values(k), torch.linalg.inv(values(n)).T
