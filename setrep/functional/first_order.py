"""Gradients written by hand, which have no gradient of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., tuple[Tensor | None, ...]]


def first_order(backward: Backward) -> Backward:
    """Compute a gradient once, and refuse to differentiate it again.

    Decorates the `backward` of an autograd function of one tensor, which saves that tensor first
    and returns its gradient first. torch's `once_differentiable` refuses only where the tensor is
    the leaf that is asked for: through a function before it, a second derivative would silently
    lack a part.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *of_outs: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            grad, *others = backward(ctx, *of_outs)
        if torch.is_grad_enabled():  # `create_graph=True`
            grad = _Refusing.apply(grad, ctx.saved_tensors[0], *of_outs)
        return grad, *others

    return refusing


class _Refusing(torch.autograd.Function):
    """A gradient as it is, tied to what it depends on."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, *depends_on: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *of_outs: Tensor) -> None:
        raise RuntimeError("This aggregator has no second derivatives; centroid has, for one.")
