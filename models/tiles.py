"""Layers on tiles of pixels, with gradients: the mechanism of the training form of DeepPro.

A training step on a CPU is bound by memory: the plain modules pass every array of features through
it a dozen times, forward and back. Here a layer is one loop over tiles of pixels that fit the
cache, with the BatchNorm and ReLU of the layer before done on the way in and the sums that its own
BatchNorm needs on the way out. Arrays of features lie as [n, T, C, P]: n tiles of P pixels.

What is done to a tile is matrix products and passes over it, torch operations with `out=` on views
that are made once for all tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from models.tile_products import Taps, padded, where_positive


class Inputs(NamedTuple):
    """What a layer on tiles takes: arrays [n, T, C, P] whose scaled sum, shifted and rectified, are
    its features (one array as it is if `shift` is None), a weight for every product, and perhaps
    an array that is added to the result."""

    arrays: tuple[torch.Tensor, ...]
    scales: tuple[torch.Tensor, ...]
    shift: torch.Tensor | None
    weights: tuple[torch.Tensor, ...]
    added: torch.Tensor | None

    @staticmethod
    def of(tree: tuple[int, ...], tensors: tuple[torch.Tensor, ...]) -> Inputs:
        """Tensors in the order of the fields; `tree` says how many there are of each."""
        tensors = iter(tensors)
        parts = [tuple(next(tensors) for _ in range(count)) for count in tree]
        arrays, scales, shift, weights, added = parts
        weights = tuple(weight.contiguous() for weight in weights)
        return Inputs(arrays, scales, *shift or (None,), weights, *added or (None,))

    def load(self, z: torch.Tensor) -> Callable[[int], None]:
        """A function that puts the features of tile i into the array z."""
        first, *more = [array.unbind() for array in self.arrays]
        if self.shift is None:
            return lambda i: z.copy_(first[i])
        scale, *scales = [scale[:, None] for scale in self.scales]
        shift = self.shift[:, None]

        def run(i: int) -> None:
            torch.mul(first[i], scale, out=z)
            for tiles, factor in zip(more, scales, strict=True):
                z.addcmul_(tiles[i], factor)
            z.add_(shift).clamp_(min=0)

        return run


class Multiply(torch.autograd.Function):
    """Products of the same features with weights, and the sums of every channel of the results.

    apply(products, factors, overwrite, tree, *tensors), the tensors being those of `Inputs` in
    their order and `tree` how many there are of each, gives the results, [n, *product.size(...)]
    each, then for each of them [2, O] float64: the sum and the sum of squares of every channel.

    What comes back for an array that has a scale is the gradient of the scaled array. The factor is
    left to the layer that made the array, which finds it in its `factors`: a pass less.

    With `overwrite` the gradient of the one result, if it has the shape of the arrays, is
    overwritten with that of the arrays, tile by tile, while it is in the cache. Nothing else may
    need it then.
    """

    @staticmethod
    def forward(ctx, products: tuple, factors: tuple, overwrite: bool, tree: tuple, *tensors):
        x = Inputs.of(tree, tensors)
        like = x.arrays[0]
        n, *size = like.size()
        z = _array_for(products, like, *size)
        load, added = x.load(z), [] if x.added is None else x.added.unbind()
        results, sums, steps = [], [], []
        for product, weight in zip(products, x.weights, strict=True):
            result = like.new_empty(n, *product.size(weight, *size))
            of_values, of_squares = like.new_empty(2, *result.shape[:3])
            results.append(result)
            sums.append((of_values, of_squares))
            tiles = zip(result.unbind(), of_values.unbind(), of_squares.unbind(), strict=True)
            steps.append((product.multiply(weight, z), list(tiles)))
        for i in range(n):
            load(i)
            for multiply, tiles in steps:
                y, one, two = tiles[i]
                multiply(y)
                if added:
                    y += added[i]
                torch.sum(y, 2, out=one)
                torch.linalg.vector_norm(y, 2, 2, out=two)
        ctx.products, ctx.factors, ctx.overwrite, ctx.tree = products, factors, overwrite, tree
        ctx.save_for_backward(*tensors, *results)
        return (*results, *map(_totals, products, sums))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        count, saved = len(ctx.products), ctx.saved_tensors
        x = Inputs.of(ctx.tree, saved[:-count])
        n, *size = x.arrays[0].size()
        z = _array_for(ctx.products, x.arrays[0], *size)
        load = x.load(z)
        steps = [
            Backwards(product, weight, z, result, factor, gradient, total)
            for product, weight, result, factor, gradient, total in zip(
                ctx.products, x.weights, saved[-count:], ctx.factors,
                gradients[:count], gradients[count:], strict=True,
            )
        ]  # fmt: skip
        wanted = any(ctx.needs_input_grad[4 : 4 + sum(ctx.tree[:3])])
        place = gradients[0] if ctx.overwrite and gradients[0].is_contiguous() else None
        inputs = InputGradients(x, z, place) if wanted else None
        d_added = [] if x.added is None else [torch.empty_like(x.added)]
        for i in range(n):
            load(i)
            for number, step in enumerate(steps):
                step.take(i)
                if d_added:
                    d_added[0][i] = step.dy
                if inputs:
                    step.back(inputs.places[i], add=number > 0)
            if inputs:
                inputs.give(i)
        d_weights = [step.weighing.result() for step in steps]
        to_inputs = [None] * sum(ctx.tree[:3])
        if inputs:
            parts = zip(ctx.products, x.weights, d_weights, strict=True)
            to_inputs = inputs.all(lambda: sum(p.effect(w, d) for p, w, d in parts))
        return None, None, None, None, *to_inputs, *d_weights, *d_added


def _array_for(products: tuple, like: torch.Tensor, T: int, C: int, P: int) -> torch.Tensor:
    """An array [T, C, P] for features, lying as suits the products of them."""
    if not products[0].channels:
        return like.new_empty(C, T, P).transpose(0, 1)
    return padded(max(product.ends for product in products), like, T, C, P)


def _totals(product, sums: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """[2, O]: the sum and the sum of squares of every channel, from sums and norms by tile."""
    values, norms = (each.double() for each in sums)
    others = (0, 2 - product.channels)
    return torch.stack([values.sum(others), norms.square_().sum(others)])


class Backwards:
    """Takes the gradient of a product's result back, to its weight and its features z [T, C, P].

    `dy` is that of a tile of the result, of the size that the product says.

    Args:
        result, gradient: [n, *product.size(...)].
        factor: what the gradient of the result still has to be multiplied by, [C], if anything.
        total: what comes back for the sums of its channels, [2, O].
    """

    def __init__(self, product, weight, z, result, factor, gradient, total):
        self.dy = padded(product.ends, result, *result.shape[1:])
        self.result, self.gradient = result.unbind(), gradient.contiguous().unbind()
        shape = (-1, 1) if product.channels else (-1, 1, 1)
        self.of_sum, self.of_squares = (
            each.to(result.dtype).view(shape) for each in (total[0], 2 * total[1])
        )
        self.factor = factor[0].view(shape) if factor else None
        self.weighing = product.weigh(weight, z, self.dy)
        self.back = product.back(weight, z, self.dy)

    def take(self, i: int) -> None:
        """The gradient of tile i of the result into `dy`, and its part of that of the weight."""
        torch.mul(self.result[i], self.of_squares, out=self.dy)
        if self.factor is None:
            self.dy += self.gradient[i]
        else:
            self.dy.addcmul_(self.gradient[i], self.factor)
        self.dy += self.of_sum
        self.weighing.run()


class InputGradients:
    """Takes the gradients of features z, [T, C, P], back to the arrays, scales and shift that made
    them. That of tile i is to be written to `places[i]` before `give(i)`.

    Args:
        place: an array to write the gradient of the arrays to, if it has their shape.
    """

    def __init__(self, x: Inputs, z: torch.Tensor, place: torch.Tensor | None):
        self.x, self.z = x, z
        fits = place is not None and place.shape == x.arrays[0].shape
        self.gradient = place if fits else torch.empty_like(x.arrays[0])  # of every one of them
        # Where they end up: yet another array for a tile would drive z out of the cache.
        self.places = self.gradients = self.gradient.unbind()
        if z.stride() != self.gradients[0].stride():
            self.places = [torch.empty_like(z)] * len(self.gradients)
        n, T, C, _ = x.arrays[0].size()
        self.of_shift = z.new_empty(n, T, C)
        # The sum over gradient times array is needed for every scale. That of the first array
        # follows from the weights' gradients, if there are weights and no scale is next to zero.
        weighed = all(weight.numel() for weight in x.weights)
        self.known = weighed and all((scale.abs() > 1e-3).all() for scale in x.scales[:1])
        self.tiles = [array.unbind() for array in x.arrays[int(self.known) : len(x.scales)]]
        self.of_arrays = z.new_empty(n, len(self.tiles), T, C)

    def give(self, i: int) -> None:
        """What the gradient of z says of tile i; spoils z."""
        if self.x.shift is None:
            self.gradients[i].copy_(self.places[i])
            return
        gradient = where_positive(self.places[i], self.z, 0, grad_input=self.gradients[i])
        torch.sum(gradient, 2, out=self.of_shift[i])
        for tiles, total in zip(self.tiles, self.of_arrays[i], strict=True):
            torch.mul(gradient, tiles[i], out=self.z)
            torch.sum(self.z, 2, out=total)

    def all(self, effect: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        """The gradients of arrays, scales and shift, in this order.

        Args:
            effect: gives the sum over z times its gradient, [C].
        """
        to_arrays = [self.gradient] * len(self.x.arrays)
        if self.x.shift is None:
            return to_arrays
        of_shift = self.of_shift.double().sum((0, 1))
        of_scales = list(self.of_arrays.double().sum((0, 2)))
        if self.known:  # z is sum(scales * arrays) + shift where its gradient is not zero
            scale, *others = (scale.double() for scale in self.x.scales)
            rest = effect() - self.x.shift * of_shift
            for other, of_other in zip(others, of_scales, strict=True):
                rest = rest - other * of_other
            of_scales = [rest / scale, *of_scales]
        return [*to_arrays, *(each.to(self.z) for each in (*of_scales, of_shift))]


class Found(NamedTuple):
    """A result of Multiply, the sums of its channels, and where to put the factor that what comes
    back for the result lacks."""

    y: torch.Tensor
    sums: torch.Tensor
    factor: list[torch.Tensor]


@dataclass
class Features:
    """Features of a tiled network: relu(sum(scales * arrays) + shift), not carried out yet; the
    one array as it is if there is no shift."""

    arrays: list[torch.Tensor]  # [n, T, C, P]
    scales: list[torch.Tensor] = field(default_factory=list)  # [C]
    shift: torch.Tensor | None = None  # [C]

    def times(
        self, *pairs: tuple, added: torch.Tensor | None = None, overwrite: bool = False
    ) -> list[Found]:
        """What Multiply finds for each (product, weight); several products have to be taps.

        Args:
            added: goes to the one result.
            overwrite: whether the gradient of the one result may be overwritten: only one layer
                uses the result, and that layer takes no other array.
        """
        products, weights = zip(*pairs, strict=True)
        taps = all(isinstance(product, Taps) for product in products)
        assert len(pairs) == 1 or (taps and added is None and not overwrite)
        shift = [] if self.shift is None else [self.shift]
        rest = [] if added is None else [added]
        groups = [self.arrays, self.scales, shift, weights, rest]
        tensors = [tensor for group in groups for tensor in group]
        factors = tuple([] for _ in pairs)
        found = Multiply.apply(products, factors, overwrite, tuple(map(len, groups)), *tensors)
        return list(map(Found, found[: len(pairs)], found[len(pairs) :], factors))


def normalised(found: Found, norm: nn.BatchNorm3d, bias: torch.Tensor | None = None) -> Features:
    """The result of a product through a BatchNorm in training mode, and a ReLU.

    Args:
        bias: that of the convolution, [O], not in the result: the norm takes it out again.
    """
    y = found.y
    count = y.numel() // found.sums.shape[1]
    mean, square = found.sums / count
    variance = (square - mean**2).clamp_min(0)
    with torch.no_grad():
        norm.num_batches_tracked += 1
        seen = mean if bias is None else mean + bias
        norm.running_mean.lerp_(seen.to(norm.running_mean), norm.momentum)
        unbiased = variance * count / (count - 1)
        norm.running_var.lerp_(unbiased.to(norm.running_var), norm.momentum)
    scale = (norm.weight * (variance + norm.eps).rsqrt()).to(y.dtype)
    shift = norm.bias - scale * mean
    if bias is not None:
        shift = shift + (bias - bias)  # so that it has a gradient, of zero
    found.factor.append(scale.detach())
    return Features([y], [scale], shift.to(y.dtype))
