"""Train a pack in a process whose address space is limited: ``python -m tests.helpers.limited_pack PACK.json SHARE``.

The process may take ``SHARE`` times what the whole pack is estimated to need, beyond the loaded model. With a tiny
model the libraries themselves need several times that. Every event is printed as a line of JSON, after one with
the members and micro-batches that were tried.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch

from marslora.core.spec import PackSpec
from marslora.engine import worker
from marslora.engine.loop import SegmentRun
from marslora.engine.planning import PackPlan


def main(path: str, share: float) -> None:
    """Train the pack in the file."""
    torch.set_num_threads(1)
    spec, tried, run = PackSpec.load(Path(path)), [], SegmentRun.run

    def limit(measure, limits):
        need = measure(False).bytes(limits.batch_size, limits.members)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(share * need),) * 2)
        return PackPlan(limits.members, limits.pieces)

    def note(self):
        tried.append((len(self.segment.indices), self.loop.plan.pieces))
        return run(self)

    worker.plan_pack, SegmentRun.run = limit, note
    events = []
    worker.run_pack(spec, events.append)
    print(json.dumps(tried))
    for event in events:
        print(json.dumps({"kind": type(event).__name__, **event.model_dump(mode="json")}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
