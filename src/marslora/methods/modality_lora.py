"""One shared A, a B for every kind of token: text, picture, sound; nothing to learn about where tokens go."""

from __future__ import annotations

from marslora.methods._mixture_method import MixtureMethod


class ModalityLora(MixtureMethod):
    """AsymLoRA's heads, chosen by the kind of the token instead of the row's task; MokA is its mirror image.

    In a language model every linear has a B for each kind of token that the model reads; towers and projector see one
    kind and have plain LoRA.
    """

    defaults = {"routing": "modality"}
