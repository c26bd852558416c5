"""How close two trainings must end that would end equal if nothing were rounded.

Where half a dozen optimizer steps in float32 end depends on the rounding of the processor: Adam divides a tiny gradient
by its own size. So equality is stated twice: in float64, where it holds on every processor, and in float32, where the
error of one training may be at most a small multiple of the error of the other.
"""

import contextlib
import functools
from unittest import mock

import torch

EXACT = 1e-10
"""The largest distance in float64."""
FACTOR = 4.0
"""The largest error of one training in float32, in errors of the other."""
FLOOR = 1e-5
"""Errors up to this are always allowed: a single entry with a tiny gradient causes one of this size."""


NARROWING = [
    *((torch.Tensor, name) for name in ("float", "to", "type", "softmax")),
    *((torch.nn.functional, name) for name in ("softmax", "log_softmax")),
    (torch, "softmax"),
]
"""Functions by which models of `transformers` make float64 float32, in norms, rotary angles and softmax."""


@contextlib.contextmanager
def keep_float64():
    """Within it, no float64 tensor is made float32."""
    with contextlib.ExitStack() as stack:
        for owner, name in NARROWING:
            stack.enter_context(mock.patch.object(owner, name, _keep_float64_in(getattr(owner, name))))
        product = _widen_operands(torch.Tensor.__matmul__)  # Gemma 4 makes float32 weights of whole numbers
        stack.enter_context(mock.patch.object(torch.Tensor, "__matmul__", product))
        yield


def _keep_float64_in(function):
    @functools.wraps(function)
    def call(tensor, *args, **kwargs):
        if tensor.dtype != torch.float64:
            return function(tensor, *args, **kwargs)
        if function.__name__ == "float":
            return tensor
        args = [_widen(argument) for argument in args]
        return function(tensor, *args, **{name: _widen(argument) for name, argument in kwargs.items()})

    return call


def _widen_operands(function):
    @functools.wraps(function)
    def call(one, other):
        return function(*((one.double(), other.double()) if one.dtype != other.dtype else (one, other)))

    return call


def _widen(argument):
    return torch.float64 if argument is torch.float32 else argument


def distance(first, second):
    """The largest difference of any tensor, relative to the tensor's largest entry."""
    assert first.keys() == second.keys() and first
    return max(float((first[k] - second[k]).abs().max() / second[k].abs().max().clamp(min=1e-12)) for k in first)


def measure_worst_error(found, exact):
    """The largest error of a tensor: the norm of its difference relative to its norm."""
    assert found.keys() == exact.keys()
    return max(float((found[k].double() - exact[k]).norm() / exact[k].norm().clamp(min=1e-12)) for k in exact)


def measure_error(found, exact):
    """The norm of the difference of all tensors, relative to the norm of what is exact."""
    assert found.keys() == exact.keys()
    difference, size = (
        torch.cat([tensor.flatten() for tensor in tensors])
        for tensors in ([found[k].double() - exact[k] for k in exact], [exact[k] for k in exact])
    )
    return float(difference.norm() / size.norm())


def assert_exact(found, expected):
    """Check that float64 tensors by name are the same but for rounding."""
    assert {tensor.dtype for tensor in expected.values()} == {torch.float64}
    assert (difference := distance(found, expected)) < EXACT, difference


def assert_as_near(found, other, exact):
    """Check that in float32 ``found`` is about as close to the float64 result as ``other``."""
    ours, theirs = measure_worst_error(found, exact), measure_worst_error(other, exact)
    assert ours <= FACTOR * theirs + FLOOR, (ours, theirs)


def assert_twins(train):
    """Check the two lists of ``train(dtype)``: tensors by name of the same members, trained in two ways."""
    with keep_float64():
        found, exact = train(torch.float64)
    for ours, truth in zip(found, exact, strict=True):
        assert_exact(ours, truth)
    for ours, theirs, truth in zip(*train(torch.float32), exact, strict=True):
        assert_as_near(ours, theirs, truth)
