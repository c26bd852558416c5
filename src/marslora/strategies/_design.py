"""Which settings to measure next: those that together are likeliest to hold one as good as the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marslora.core.arrays import Array


def cover_best(loss_SC: Array, num: int, first: Sequence[int] = ()) -> list[int]:
    """``num`` of C candidates, ``first`` among them, picked one by one to lower the expected loss of the best of them.

    A candidate that is good in the same draws as another adds little, so alternatives are preferred to neighbours.
    Fewer are returned once no further one lowers it.
    """
    picked = list(first)[:num]
    lowest_S = loss_SC[:, picked].min(axis=1) if picked else np.full(len(loss_SC), loss_SC.max())
    while len(picked) < num:
        gain_C = np.maximum(lowest_S[:, None] - loss_SC, 0.0).mean(axis=0)
        gain_C[picked] = -1.0
        best = int(gain_C.argmax())
        if gain_C[best] <= 0:
            break
        picked.append(best)
        lowest_S = np.minimum(lowest_S, loss_SC[:, best])
    return picked
