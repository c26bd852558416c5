"""Train many LoRA adapters at once on one frozen model, and report what was measured.

A *pack* is K members (runs with their own ranks, seeds and learning rates) that train together in one process: every
batch is repeated K times, each adapted linear adds a batched product ``bmm(bmm(x, A), B)`` with one pair of factors
for each member, and one forward and backward gives every member exactly the gradient it would have alone. The base is
in memory once, and whatever no member adapts runs once. How a `PackSpec` is worked off::

    worker.run_pack(spec, emit)          checkpoints are read, model and rows loaded, the largest pack found
      loop.PackLoop.run                  until every member has ended
        loop.SegmentRun.run              members at one point go on together, to the next point where one ends
          step.train_step                K losses, one backward, clipping and update for each member alone
          evaluate.evaluate              at validation points: loss and accuracy of each member
          run_state.write_states         every 20 seconds and at the end of the segment

What these files call things:

- `Base`: the frozen model and what all its packs have in common.
- `Pack`: K members on a base while they train: adapters in place of its linears, and one optimizer.
- `Member`: one run between packs: its tensors and optimizer state, in PEFT's shapes on the CPU.
- `RunState`: a member with the examples it has seen, its observations and its cost; what a checkpoint holds.
- `Segment`: which members go on together, from where to where; a `SegmentRun` is a segment while it runs.
- `PackLoop`: all members of a `PackSpec`, in segments until each has ended.
- `Speedups`: what makes packs faster without changing a number: frozen towers run once, layers recomputed.
- `TrainingPosition` (`marslora.adapters`): the current step and micro-batch, which select the dropout masks.

Members never influence each other: loss, clipping, optimizer state, dropout and divergence belong to one member, and a
member whose loss becomes NaN leaves the others bit for bit as they were. The slow twin is `marslora.testing.solo`.

The name of a tensor ends in its shape: K members, B examples, T tokens, I inputs, O outputs, R (padded) rank, N answer
tokens, V vocabulary. ``x_KTI`` is a stack of K matrices of tokens by inputs.

Two runs of different ranks, trained at once::

    from marslora.core.allocation import Allocation
    from marslora.core.spec import DataSpec, MemberSpec, ModelSpec, PackSpec, TrainingSpec
    from marslora.engine.worker import run_pack

    def member(rank):
        allocation = Allocation.of({"vision": rank, "language": rank})
        return MemberSpec(id=f"rank{rank}", allocation=allocation, data_examples=32, until_examples=64)

    spec = PackSpec(
        id="example",
        model=ModelSpec(path="model"),
        data=DataSpec(train=("train.jsonl",), validation=("validation.jsonl",)),
        training=TrainingSpec(batch_size=8, optimizer="adamw"),
        full_examples=64,
        members=(member(2), member(8)),
        checkpoint_folder="members",  # an adapter that PEFT loads, for each member
        cache_folder="cache",
    )
    run_pack(spec, print)  # an Observation for every number, a MemberResult for every member, a PackResult

Run again, the same call emits the same observations from the checkpoints and trains nothing. A study runs
`prepare.prepare` before its first pack (parts, dead layers, rows); `inspect.inspect_model` is ``marslora inspect``.
"""
