"""Methods: ways to fine-tune a model at chosen ranks, which the final run and `marslora.comparison` train.

`AbstractMethod.apply` changes a frozen model in place and returns an `AbstractChange`: the model to call, its trained
parameters with their roles, an extra loss if there is one, and what is saved. An `AdapterPlan` gives the ranks by
module path. Every file without a leading underscore is a method that ``--adapter`` names::

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from marslora.methods import AdapterPlan
    from marslora.methods.pissa import Pissa

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=32)).requires_grad_(False)
    path = "transformer.h.0.attn.c_attn"
    plan = AdapterPlan(ranks={path: 2}, parts={path: "language"})
    change = Pissa(niter=0).apply(model, plan)
    names = [trainable.name for trainable in change.trainables()]
    output = change.model(input_ids=torch.ones(1, 3, dtype=torch.long)).logits
    change.remove()

**A method of your own** subclasses `AbstractMethod`. Its options are the fields of its nested ``Config``, and it is
used as ``--adapter package.module:Class``. This one trains a bias for the output of every linear::

    import contextlib
    from dataclasses import dataclass

    import torch
    from torch import nn

    from marslora.methods import AbstractChange, AbstractMethod, Trainable

    class BiasChange(AbstractChange):
        def __init__(self, model, plan, start):
            self.model, self.biases, self.enabled = model, {}, True
            self.handles = []
            for path in plan.ranks:
                linear = model.get_submodule(path)
                self.biases[path] = bias = nn.Parameter(torch.full((linear.out_features,), start))
                add = lambda module, args, output, bias=bias: output + bias if self.enabled else output
                self.handles.append(linear.register_forward_hook(add))

        def trainables(self):
            return [Trainable(f"{path}.bias", path, "other", bias) for path, bias in self.biases.items()]

        @contextlib.contextmanager
        def disabled(self):
            self.enabled = False
            yield
            self.enabled = True

        def save(self, folder):
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.state(), folder / "biases.pt")

        def remove(self):
            for handle in self.handles:
                handle.remove()

    class OutputBias(AbstractMethod):
        merges = "no"
        serves = "Python with marslora"

        @dataclass(frozen=True, kw_only=True)
        class Config(AbstractMethod.Config):
            start: float = 0.0

        def apply(self, model, plan, batches=()):
            return BiasChange(model, plan, self.config.start)

        def count(self, sizes, plan):
            return sum(sizes[path][1] for path in plan.ranks)

`attach` puts a saved adapter back on a model, `find_adapter` and `make_method` turn names into classes and methods, and
`PackedMethod` trains a packed adapter (`marslora.adapters`) in the final run. docs/methods.md describes every method.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
