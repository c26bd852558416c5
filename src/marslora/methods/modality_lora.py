"""One shared A and a B for each modality of tokens (text, picture, sound); no router to train."""

from __future__ import annotations

from dataclasses import dataclass

from marslora.methods._mixture_method import MixtureMethod, Routing


class ModalityLora(MixtureMethod):
    """AsymLoRA with heads chosen by the modality of the token instead of the task of the row.

    In a language model every linear has a B for each modality that the model reads. Towers and projectors read a single
    modality and have plain LoRA. MokA does the opposite: it shares B and has an A for each modality.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(MixtureMethod.Config):
        """The options of the mixture family, with heads by modality."""

        routing: Routing = "modality"
