"""Optimizers for ordinary parameters and for packs of K members, each of which is updated independently.

Every optimizer is one file with one class, and the file's name is what users type (``--optimizer mars_m``). It is an
ordinary `torch.optim.Optimizer`, constructed and used as in torch, so any training loop and `transformers.Trainer` can
take it::

    import torch
    from marslora.optim.mars_m import MarsM

    layer = torch.nn.Linear(6, 4, bias=False)
    optimizer = MarsM(layer.parameters(), lr=1e-3, momentum=0.9)
    layer(torch.ones(2, 6)).square().mean().backward()
    optimizer.step()
    print(optimizer.describe())

**Options** are the fields of the class's nested ``Config``, as for every plugin: keyword arguments of its constructor,
which checks them. Afterwards they are numbers of every parameter group, where any of them can be scheduled.
`create_optimizer` builds the one that a `TrainingSpec` names; `check_optimizer` raises its errors early.

**Packs**: a group with ``members=K`` holds parameters whose first dimension is K independent copies; ``ranks`` gives
their true ranks, ``active`` which of them may move. `AbstractOptimizer` explains all fields of a group, `peft_groups`
makes the groups of a PEFT model.

**An optimizer of your own** subclasses `AbstractOptimizer`, names its state in ``rule_buffers`` and changes a `Bucket`
in place in ``update``::

    from marslora.optim import AbstractOptimizer

    class SignDescent(AbstractOptimizer):
        def rule_buffers(self, rule, group):
            return ()

        def update(self, bucket):
            bucket.move([grad.sign() for grad in bucket.grads])

``--optimizer my_package.my_module:SignDescent`` names it; tests/contracts/test_optim.py lists what it must guarantee.
Nearly all optimizers here are presets of one recursion, which `AbstractRecursion` explains with its equations. Those
that need gradients at two points say so (``needs_two_points``); `as_two_point` gives a training loop their handle.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
