"""The one recursion behind Muon, Moonlight, the MARS optimizers and Muon-MVR (arXiv 2411.10438, 2510.21800).

With momentum b and ``kappa = gamma b / (1 - b)``, gradient g and an earlier gradient L::

    c = g + kappa (g - L)    c = c / max(1, |c| / clip)    m = b m + (1 - b) c    x = x (1 - lr wd) - lr P(m)

L is the last step's gradient, or (exact) the gradient of the same batch at the previous point. P is the orthogonal
factor, Adam's rule or the sign. Without clipping and with the last step's gradient, m is a mixture of the gradient
and its running average s, ``m = (1 - gamma) s + gamma g``, which needs one buffer: gamma 0 is plain momentum, gamma
1 - b is Nesterov's, and values in between hold no further information.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from marslora.core.errors import ConfigError
from marslora.optim._base import AbstractOptimizer
from marslora.optim._bucket import Bucket
from marslora.optim._lookback import look_back
from marslora.optim._options import Decay
from marslora.optim._routed import ADAMW, AbstractRouted, as_matrices
from marslora.optim._stacks import foreach_values

PAPER, REFERENCE = "paper", "reference"
"""What a member's first step does, when there is no earlier gradient: see `CorrectedConfig.first_step`."""


@dataclass(frozen=True, kw_only=True)
class MomentumConfig(AbstractRouted.Config):
    """Options of every optimizer with the recursion. Without further ones it is plain Nesterov momentum."""

    momentum: Decay = 0.95
    """The recursion's b, in [0, 1)."""

    def group_numbers(self) -> dict[str, Any]:
        """The options, and the recursion's other numbers if they are not among them."""
        return {"gamma": None, "clip": None, "first_step": REFERENCE, "exact": False, **super().group_numbers()}


@dataclass(frozen=True, kw_only=True)
class NesterovConfig(MomentumConfig):
    """Options of Muon and Moonlight, whose momentum is not corrected."""

    nesterov: bool = True
    """Whether steps follow Nesterov's momentum (gamma 1 - b) or the plain one (gamma 0)."""

    def group_numbers(self) -> dict[str, Any]:
        """``nesterov`` as the recursion's gamma."""
        numbers = super().group_numbers()
        return {**numbers, "gamma": None if numbers.pop("nesterov") else 0.0}


@dataclass(frozen=True, kw_only=True)
class CorrectedConfig(MomentumConfig):
    """Options of the MARS optimizers and Muon-MVR, whose momentum follows the corrected gradient c."""

    gamma: Any = 0.025
    """Strength of the correction: one number, or one for each member; None: 1 - b, Nesterov's momentum."""
    clip: Any = 1.0
    """Largest Frobenius norm of c, for each member and matrix; None: no clipping."""
    exact: bool = False
    """Whether L is the gradient of the same batch at the previous point, which costs two passes a step."""
    first_step: Literal["paper", "reference"] = "paper"
    """``paper``: c = g at a member's first step; ``reference``: L starts at 0, so that c is (1 + kappa) g."""


class AbstractRecursion(AbstractRouted):
    """The recursion; a preset adds what it does with the momentum, and the options it has."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MomentumConfig):
        """Options of the recursion."""

    needs_corrected = False
    """Whether the preset uses c itself, which the one-buffer form never makes."""
    published_as_sum = False
    """Whether its published momentum adds gradients up, 1/(1 - b) times as large; it affects only ``ns_eps``."""
    _looked = False
    """Whether a backward at the previous point has been seen since the last step."""

    @abstractmethod
    def precondition(self, bucket: Bucket, momenta: list[Tensor], corrected: list[Tensor] | None) -> None:
        """Move along P(momentum); tensors of either list may be overwritten unless they are state."""

    @property
    def needs_two_points(self) -> bool:  # type: ignore[override]
        """Whether some group is exact: a step needs a closure, or `previous_point` before it."""
        return any(group["exact"] for group in self.param_groups)

    def own_buffers(self, group: dict[str, Any]) -> tuple[str, ...]:
        """One buffer if that is enough, else two; three if exact."""
        if group["exact"]:
            return ("momentum", "last_grad", "last_point")
        if group["clip"] is None and not self.needs_corrected:
            return ("grad_avg",)
        return ("momentum", "last_grad")

    def rule_buffers(self, rule: str, group: dict[str, Any]) -> tuple[str, ...]:
        """The state of either rule. In exact groups what AdamW moves goes back too, since L belongs to one point."""
        buffers = super().rule_buffers(rule, group)
        return (*buffers, "last_point") if group["exact"] and rule == ADAMW else buffers

    def last_gradients(self) -> list[tuple[Tensor, Tensor]]:
        """(parameter, its L) for every L that a pass at the previous point has filled; may be scaled in place."""
        own = [(param, self.state[param]) for group in self.param_groups if group["exact"] for param in group["params"]]
        return [(param, state["last_grad"]) for param, state in own if "last_grad" in state]

    @contextmanager
    def previous_point(self) -> Iterator[None]:
        """Inside, exact groups stand where they were before the last step, and backward fills their L.

        Afterwards parameters, gradients and random states are as before, so that the same batch sees the same
        randomness at both points. Once per micro-batch, before its pass at the current point::

            with optimizer.previous_point():
                loss(batch).backward()
            loss(batch).backward()
            optimizer.step()
        """
        own = [
            (param, group, self._state_of(param, group))
            for group in self.param_groups
            for param in group["params"]
            if group["exact"] and param.requires_grad
        ]
        others = [param for group in self.param_groups for param in group["params"]]
        with look_back(own, others, start=not self._looked):
            yield
        self._looked = True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; if the optimizer `needs_two_points`, ``closure`` (loss and backward) runs at both points."""
        if self.needs_two_points and closure is not None:
            self._looked = False
            with self.previous_point(), torch.enable_grad():
                closure()
            self.zero_grad()
        if self.needs_two_points and not self._looked:
            raise ConfigError(
                f"An exact step of {type(self).__name__} needs a closure, or a backward inside `previous_point()` "
                "before it. With Trainer, use `marslora.finetune.exact_trainer.ExactTrainer`; or choose `exact=False`."
            )
        loss = super().step(closure)
        self._looked = False
        return loss

    def update(self, bucket: Bucket) -> None:
        """One step of every row; exact groups remember the point where it began."""
        if "last_point" in bucket.states:
            torch._foreach_copy_(bucket.states["last_point"], bucket.params)
        super().update(bucket)

    def own_update(self, bucket: Bucket) -> None:
        """The recursion, then its preconditioner."""
        beta = momentum_of(bucket)
        gamma_K = (
            torch.tensor([1 - beta], dtype=torch.float64) if bucket.group["gamma"] is None else bucket.number("gamma")
        )
        estimate = _mixture if "grad_avg" in bucket.states else _corrected
        momenta, corrected = estimate(bucket, beta, gamma_K)
        self.precondition(bucket, momenta, corrected)

    def ns_eps(self, bucket: Bucket) -> float:
        """The number added to the norm of a momentum before it is made orthogonal."""
        eps = float(bucket.group["ns_eps"])
        return eps * (1 - momentum_of(bucket)) if self.published_as_sum else eps


def as_two_point(optimizer: AbstractOptimizer | None) -> AbstractRecursion | None:
    """The optimizer if each of its steps also needs gradients at the previous point, else None."""
    return optimizer if isinstance(optimizer, AbstractRecursion) and optimizer.needs_two_points else None


def momentum_of(bucket: Bucket) -> float:
    """The group's momentum, the same for all members; `ConfigError` outside [0, 1)."""
    beta = float(bucket.group["momentum"])
    if not 0 <= beta < 1:
        raise ConfigError(f"`momentum` must be in [0, 1), found {beta}. The default is 0.95.")
    return beta


def _mixture(bucket: Bucket, beta: float, gamma_K: Tensor) -> tuple[list[Tensor], None]:
    """The one-buffer form: the running average of gradients, and the momentum made of it."""
    averages = bucket.states["grad_avg"]
    first_NK = bucket.steps_NK == 1
    if bucket.group["first_step"] == PAPER and bool(first_NK.any()):
        # c = g instead of (1 + kappa) g at the first step is a running average that starts at -gamma/(1-gamma) g.
        start_NK = torch.where(first_NK, -gamma_K / (1 - gamma_K).clamp(min=1e-12), 0.0)
        torch._foreach_add_(averages, torch._foreach_mul(bucket.grads, bucket.foreach_values(start_NK)))
    torch._foreach_lerp_(averages, bucket.grads, 1 - beta)
    return list(torch._foreach_lerp(averages, bucket.grads, bucket.foreach_values(gamma_K))), None


def _corrected(bucket: Bucket, beta: float, gamma_K: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The form with L, clipped if asked: momenta and corrected gradients."""
    group, momenta, lasts = bucket.group, bucket.states["momentum"], bucket.states["last_grad"]
    first_NK = bucket.steps_NK == 1
    kappa_NK = (gamma_K * beta / (1 - beta)).expand(first_NK.shape)
    if group["first_step"] == PAPER:
        kappa_NK = torch.where(first_NK, 0.0, kappa_NK)
    elif group["exact"]:
        torch._foreach_mul_(lasts, bucket.foreach_values((~first_NK).double()))
    corrected = list(torch._foreach_sub(bucket.grads, lasts))
    torch._foreach_mul_(corrected, bucket.foreach_values(kappa_NK))
    torch._foreach_add_(corrected, bucket.grads)
    if group["clip"] is not None:
        _clip(corrected, bucket)
    if not group["exact"]:
        torch._foreach_copy_(lasts, bucket.grads)
    torch._foreach_lerp_(momenta, corrected, 1 - beta)
    return momenta, corrected


def _clip(tensors: list[Tensor], bucket: Bucket) -> None:
    """Divide each member's matrix by ``max(1, norm / clip)``, without waiting for the device to report the norm."""
    matrices = [as_matrices(tensor, bucket.group) for tensor in tensors]
    over = [torch.linalg.vector_norm(matrix, dim=(-2, -1)) for matrix in matrices]
    torch._foreach_div_(over, foreach_values(bucket.number("clip"), over))
    torch._foreach_clamp_min_(over, 1.0)
    torch._foreach_div_(
        tensors, [o.view(o.shape + (1,) * (t.ndim - o.ndim)) for o, t in zip(over, tensors, strict=True)]
    )
