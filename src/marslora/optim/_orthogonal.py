"""The recursion followed by the orthogonal factor: what Muon, Moonlight, MARS-M, MARS-Shampoo and Muon-MVR share."""

from __future__ import annotations

from torch import Tensor

from marslora.optim._bucket import Bucket
from marslora.optim._recursion import AbstractRecursion


class AbstractOrthogonal(AbstractRecursion):
    """The recursion, whose momentum is made orthogonal by Newton-Schulz or exactly."""

    def precondition(self, bucket: Bucket, momenta: list[Tensor], corrected: list[Tensor] | None) -> None:  # noqa: ARG002
        """Move along the orthogonal factor of the momentum."""
        self.orthogonal_step(bucket, momenta, self.ns_eps(bucket))
