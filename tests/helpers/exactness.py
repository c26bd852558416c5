"""How near two trainings must be that would be equal if nothing were rounded.

Half a dozen optimizer steps in float32 end where the processor's rounding takes them: Adam divides a tiny gradient by
its own size. So equality is stated twice: in float64, where it holds on every processor; and in float32, where one
training may be a little farther from the float64 result than the other is.
"""

import copy

import torch
from torch.overrides import TorchFunctionMode

from marslora.models.loading import hold, load

EXACT = 1e-10
"""The largest distance in float64."""
FACTOR = 4.0
"""The largest error of one training in float32, in errors of the other."""
FLOOR = 1e-5
"""Errors below this say nothing: one entry whose gradient was tiny makes as much of it."""


class Float64Stays(TorchFunctionMode):
    """While this is entered, float64 is never made float32: models of `transformers` do so in norms and softmax."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not args or not isinstance(args[0], torch.Tensor) or args[0].dtype != torch.float64:
            return func(*args, **kwargs)
        if func is torch.Tensor.float:
            return args[0]
        if func in (torch.Tensor.to, torch.Tensor.type):
            args = [_widened(argument) for argument in args]
        return func(*args, **{name: _widened(argument) for name, argument in kwargs.items()})


def _widened(argument):
    return torch.float64 if argument is torch.float32 else argument


def in_float64(spec):
    """The spec of the same run with its model in float64, held by this process."""
    loaded = load(spec.model)
    name = hold(f"float64-{spec.model.digest()}", copy.deepcopy(loaded.model).double(), loaded.processor)
    return spec.model_copy(update={"model": spec.model.model_copy(update={"path": name})})


def distance(first, second):
    """The largest difference of any tensor, relative to the tensor's largest entry."""
    assert first.keys() == second.keys() and first
    return max(float((first[k] - second[k]).abs().max() / second[k].abs().max().clamp(min=1e-12)) for k in first)


def error(found, exact):
    """The norm of the difference of all tensors, relative to the norm of what is exact."""
    assert found.keys() == exact.keys()
    difference, size = (
        torch.cat([tensor.flatten() for tensor in tensors])
        for tensors in ([found[k].double() - exact[k] for k in exact], [exact[k] for k in exact])
    )
    return float(difference.norm() / size.norm())


def assert_exact(found, expected):
    """Float64 tensors by name are the same but for rounding."""
    assert {tensor.dtype for tensor in expected.values()} == {torch.float64}
    assert (apart := distance(found, expected)) < EXACT, apart


def assert_as_near(found, other, exact):
    """In float32, ``found`` is about as near to the float64 result as ``other``."""
    ours, theirs = error(found, exact), error(other, exact)
    assert ours <= FACTOR * theirs + FLOOR, (ours, theirs)


def assert_twins(train):
    """``train(dtype)`` gives two lists of tensors by name, of members trained in two ways: both ways are the same."""
    with Float64Stays():
        found, exact = train(torch.float64)
    for ours, truth in zip(found, exact, strict=True):
        assert_exact(ours, truth)
    for ours, theirs, truth in zip(*train(torch.float32), exact, strict=True):
        assert_as_near(ours, theirs, truth)
