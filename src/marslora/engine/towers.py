"""Run frozen towers once: on the batch before it is repeated for the members, and on each image only once in a study.

A tower that no member adapts gives every member the same features, in every epoch. Whether a batch can be split into
items (rows, or the images of a flattened batch of patches) is not assumed: the first call is also made the plain way,
and the fastest plan that gives the same features is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from marslora.core.out_of_memory import is_out_of_memory
from marslora.engine.flops import count_flops
from marslora.models.answers import inputs_on_cpu

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7}
"""Largest difference between features, relative to the largest of them, that still counts as rounding."""
HALF_TOLERANCE = 5e-2
"""The same in half precision, where a unit of rounding is 2^-8 (bfloat16) and a tower adds up its layers' roundings in
every single feature: more than a mean loss may differ (`marslora.engine.check.HALF_TOLERANCE`)."""
Leaves = list[Any]
"""Arguments or outputs of a module, flattened."""
Output = tuple[Leaves, TreeSpec]
SPLIT_ERRORS = (RuntimeError, ValueError, IndexError, TypeError)
"""What a module raises when its inputs cannot be split into items; memory that runs out is not among them."""


@dataclass
class FrozenTower:
    """One frozen module: how it may be run, and the features remembered from its calls inside `replace_forward`."""

    max_bytes: int
    """Features beyond this are not remembered but computed each time they are needed."""
    plan: Literal["items", "once", "plain"] | None = None
    """How it is run: each item alone and remembered, once for all members, or as it is. None: not known yet."""
    num_bytes: int = 0
    """Size of the remembered features."""
    flops: float = 0.0
    """Operations spent on items that were not remembered."""
    _features: dict[bytes, Output] = field(default_factory=dict)
    """The outputs of every remembered item, by the digest of its inputs."""
    _used: tuple[bool, ...] | None = None
    """Which of its outputs the model reads; None: not known, so that all are kept."""
    _probes: Leaves | None = None
    """The outputs of the latest call while `find_used_outputs` runs the model; None at all other times."""
    _item_flops: dict[Any, float] = field(default_factory=dict)
    """Operations of an item by the shapes of its inputs."""
    _inputs: dict[int, str] | None = None
    """Which of its arguments on a device are inputs of the batch, by name, except for their shape and dtype. Items are
    told apart by the numbers that the CPU has of these. None: not known yet."""

    @contextlib.contextmanager
    def replace_forward(self, module: nn.Module, members: int) -> Iterator[None]:
        """Within it, this object answers calls of ``module`` with a batch of ``members`` equal chunks."""
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                leaves, spec = self._call(original, args, kwargs, members)
            if self._probes is not None:
                leaves = [leaf.detach().requires_grad_() if _is_float(leaf) else leaf for leaf in leaves]
                self._probes = leaves
            return tree_unflatten(leaves, spec)

        module.forward = forward
        try:
            yield
        finally:
            del module.forward

    def find_used_outputs(self, loss: Callable[[], Tensor]) -> None:
        """Find out which outputs ``loss``, which runs the model, depends on; only these are remembered from now on."""
        if self._used is not None:
            return
        self._probes = []
        try:
            value = loss()
            probes: Leaves = self._probes
        finally:
            self._probes = None
        wanted = [leaf for leaf in probes if _is_float(leaf)]
        if not wanted or not value.requires_grad:
            return
        gradients = iter(torch.autograd.grad(value, wanted, allow_unused=True))
        self._used = tuple(next(gradients) is not None if _is_float(leaf) else True for leaf in probes)
        self._forget()

    def _forget(self) -> None:
        self._features.clear()
        self.num_bytes = 0

    def _call(self, original: Callable[..., Any], args: Any, kwargs: Any, members: int) -> Output:
        flat, structure = tree_flatten((args, kwargs))
        once = [_first_chunk(leaf, members) for leaf in flat]

        def run(leaves: Leaves) -> Output:
            own_args, own_kwargs = tree_unflatten(leaves, structure)
            return tree_flatten(original(*own_args, **own_kwargs))

        if self.plan is None:
            return self._try_plans(run, flat, once, members)
        if self.plan == "once":
            leaves, spec = run(once)
            return _repeat(leaves, members), spec
        if self.plan == "items":
            try:
                return self._run_items(run, once, members)
            except SPLIT_ERRORS as error:
                _raise_if_out_of_memory(error)
        return run(flat)

    def _try_plans(self, run: Callable[[Leaves], Output], flat: Leaves, once: Leaves, members: int) -> Output:
        """Run it the plain way, and choose the fastest plan that gives the same.

        Whether one run is enough for all members can only be seen with several members.
        """
        plain = run(flat)
        if self._inputs is None:
            self._inputs = _find_inputs(once)
        if (
            self._tells_items_apart(once)
            and len(_split_items(once)) > 1
            and self._agrees(plain, lambda: self._run_items(run, once, members))
        ):
            self.plan = "items"
            return plain
        self._forget()
        if members > 1:
            same = self._agrees(plain, lambda: (_repeat(run(once)[0], members), plain[1]))
            self.plan = "once" if same else "plain"
        return plain

    def _agrees(self, plain: Output, attempt: Callable[[], Output]) -> bool:
        try:
            return _outputs_agree(attempt()[0], plain[0], self._used)
        except SPLIT_ERRORS as error:
            _raise_if_out_of_memory(error)
            return False

    def _run_items(self, run: Callable[[Leaves], Output], once: Leaves, members: int) -> Output:
        items = _split_items(self._on_cpu(once), once)
        outputs = [self._run_item(run, known, item) for known, item in items]
        columns = zip(*(leaves for leaves, _ in outputs), strict=True)
        return [self._join_outputs(list(column), index, members) for index, column in enumerate(columns)], outputs[0][1]

    def _tells_items_apart(self, once: Leaves) -> bool:
        """Whether the CPU has the largest argument: to bring it back from a device would cost more than to run."""
        sizes = {index: leaf.numel() for index, leaf in enumerate(once) if isinstance(leaf, Tensor) and leaf.ndim}
        main = max(sizes, key=lambda index: sizes[index], default=None)
        return main is None or once[main].device.type == "cpu" or main in (self._inputs or {})

    def _on_cpu(self, once: Leaves) -> Leaves:
        """The arguments on the CPU. Those that are not inputs of the batch, typically masks, come from the device."""
        inputs, names = inputs_on_cpu(), self._inputs or {}
        known = {index: inputs[name] for index, name in names.items() if name in inputs}
        same = {i: value.reshape(once[i].shape) for i, value in known.items() if value.numel() == once[i].numel()}
        return [
            same[index] if index in same else leaf.cpu() if isinstance(leaf, Tensor) else leaf
            for index, leaf in enumerate(once)
        ]

    def _run_item(self, run: Callable[[Leaves], Output], known: Leaves, item: Leaves) -> Output:
        """The outputs of an item, remembered under ``known``, its arguments as `_on_cpu` has them."""
        key = _key(known)
        if key in self._features:
            return self._features[key]
        shapes = tuple(tuple(leaf.shape) for leaf in item if isinstance(leaf, Tensor))
        if shapes in self._item_flops:
            leaves, spec = run(item)
        else:
            (leaves, spec), self._item_flops[shapes] = count_flops(lambda: run(item))
        self.flops += self._item_flops[shapes]
        kept = [self._keep_output(leaf, index) for index, leaf in enumerate(leaves)]
        size = sum(leaf.untyped_storage().nbytes() for leaf in kept if isinstance(leaf, Tensor))
        if self.num_bytes + size <= self.max_bytes:
            self._features[key] = kept, spec
            self.num_bytes += size
        return kept, spec

    def _keep_output(self, leaf: Any, index: int) -> Any:
        """An output as it is remembered; of one that the model does not read only the shape is kept."""
        if not isinstance(leaf, Tensor):
            return leaf
        if self._used is None or self._used[index]:
            return leaf.clone()
        return leaf.new_zeros(()).expand(leaf.shape)

    def _join_outputs(self, column: Leaves, index: int, members: int) -> Any:
        first = column[0]
        if not isinstance(first, Tensor) or first.ndim == 0:
            return first
        if self._used is not None and not self._used[index]:
            rows = members * sum(leaf.shape[0] for leaf in column)
            return first.new_zeros(()).expand(rows, *first.shape[1:])
        return torch.cat(column * members)


def _raise_if_out_of_memory(error: Exception) -> None:
    """Pass on an error that says nothing about the inputs: the loop answers it with a smaller pack."""
    if is_out_of_memory(error):
        raise error


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _first_chunk(leaf: Any, members: int) -> Any:
    """The first member's rows of an argument; an argument without rows for each member is left whole."""
    if isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] % members == 0:
        return leaf[: leaf.shape[0] // members]
    return leaf


def _repeat(leaves: Leaves, members: int) -> Leaves:
    return [torch.cat([leaf] * members) if isinstance(leaf, Tensor) and leaf.ndim else leaf for leaf in leaves]


def _find_inputs(once: Leaves) -> dict[int, str]:
    """The names of the batch's inputs that arguments on a device are equal to, by the place of the argument."""
    found = {}
    for index, leaf in enumerate(once):
        if isinstance(leaf, Tensor) and leaf.device.type != "cpu":
            for name, value in inputs_on_cpu().items():
                if value.numel() == leaf.numel() and torch.equal(value.reshape(leaf.shape).to(leaf.dtype), leaf.cpu()):
                    found[index] = name
    return found


def _split_items(once: Leaves, *more: Leaves) -> list[tuple[Leaves, ...]]:
    """The arguments of each row alone, or of each image alone if the patches of all images are laid end to end.

    ``more`` are the same arguments elsewhere, which are split in the same way.
    """
    tensors = [leaf for leaf in once if isinstance(leaf, Tensor) and leaf.ndim]
    every = (once, *more)
    if not tensors:
        return [every]
    main = max(tensors, key=lambda tensor: tensor.numel())
    rows = main.shape[0]
    grid = next((t for t in tensors if _is_grid(t, rows)), None) if main.ndim == 2 else None
    if grid is None:
        return [tuple([_slice_rows(x, rows, slice(row, row + 1)) for x in own] for own in every) for row in range(rows)]
    bounds = [0, *grid.prod(-1).cumsum(0).tolist()]

    def take(leaf: Any, image: int, low: int, high: int) -> Any:
        return _slice_rows(_slice_rows(leaf, rows, slice(low, high)), len(grid), slice(image, image + 1))

    return [
        tuple([take(leaf, image, low, high) for leaf in own] for own in every)
        for image, (low, high) in enumerate(itertools.pairwise(bounds))
    ]


def _is_grid(tensor: Tensor, rows: int) -> bool:
    """Whether this is (images, 3): the number of patches of each image in time, height and width."""
    return not tensor.is_floating_point() and tensor.ndim == 2 and int(tensor.prod(-1).sum()) == rows


def _slice_rows(leaf: Any, rows: int, part: slice) -> Any:
    return leaf[part] if isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == rows else leaf


def _key(item: Leaves) -> bytes:
    hashed = hashlib.blake2b(digest_size=16)
    for leaf in item:
        if isinstance(leaf, Tensor):
            hashed.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            hashed.update(leaf.detach().contiguous().view(torch.uint8).numpy().tobytes())
        else:
            hashed.update(repr(leaf).encode())
    return hashed.digest()


def _outputs_agree(ours: Leaves, plain: Leaves, used: tuple[bool, ...] | None) -> bool:
    """Whether two runs gave the same up to rounding, in the outputs that the model reads."""
    used = used or (True,) * len(plain)
    pairs = zip(ours, plain, used, strict=True)
    return all(_leaves_agree(a, b) for a, b, is_used in pairs if is_used)


def _leaves_agree(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b)
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    scale = float(b.abs().max()) if b.numel() else 0.0
    return torch.allclose(a.float(), b.float(), rtol=0, atol=TOLERANCE.get(b.dtype, HALF_TOLERANCE) * max(scale, 1e-30))
