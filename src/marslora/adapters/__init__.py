"""Packed adapters: trained changes to frozen linears, for K members at once.

A packed adapter replaces one linear of a frozen model. The batch is the same minibatch repeated K times, and member k
sees the k-th chunk of it, so K allocations train in one forward and backward pass and never influence each other. Every
file without a leading underscore is an adapter that ``--adapter`` names; plain LoRA is `marslora.adapters.lora`::

    import torch
    from torch import nn

    from marslora.adapters import MemberSettings, TrainingPosition
    from marslora.adapters.lora import Lora

    members = [MemberSettings(rank=2, seed=0), MemberSettings(rank=3, seed=1)]
    adapter = Lora(nn.Linear(6, 4), "model.fc", members, TrainingPosition())
    output = adapter(torch.ones(5, 6).repeat(2, 1))  # five rows for each of two members
    trained = {factor.name: tuple(factor.parameter.shape) for factor in adapter.factors()}

**An adapter of your own** subclasses `AbstractAdapter`, computes every member's output in ``forward`` and lists its
trained tensors in ``factors``, stacked over members. It is used as ``--adapter package.module:Class``, its options are
the fields of its nested ``Config``, and the final run trains it as a pack of one member::

    from dataclasses import dataclass

    import torch
    from torch import nn

    from marslora.adapters import AbstractAdapter, Factor, factor_dtype

    class OutputGain(AbstractAdapter):
        merges = "yes"
        serves = "Python with marslora"

        @dataclass(frozen=True, kw_only=True)
        class Config(AbstractAdapter.Config):
            start: float = 1.0

        def __init__(self, base, path, members, position, **options):
            super().__init__(base, path, members, position, **options)
            gain_KO = torch.full((len(members), base.out_features), self.config.start, dtype=factor_dtype(base))
            self.gain_KO = nn.Parameter(gain_KO)
            self.register_buffer("is_adapted_K1", torch.tensor([[rank > 0] for rank in self.ranks]))

        def forward(self, x):
            x_KNI = x.reshape(self.num_members, -1, x.shape[-1])
            gain_KO = torch.where(self.is_adapted_K1, self.gain_KO, 1.0)  # rank 0 changes nothing
            y_KNO = self.base(x_KNI)
            return (y_KNO * gain_KO.unsqueeze(1)).to(y_KNO.dtype).view(*x.shape[:-1], -1)

        def factors(self):
            return (Factor("gain", "gain", "magnitude", self.gain_KO),)

Random numbers come from `member_generator`, so that a member has the same ones in every pack. Checkpoints
(`write_checkpoints`, `read_checkpoint`) are PEFT folders, one for each member.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
