"""The embedded model: a small LLaVA (SigLIP tower, projector, Llama decoder) that is shipped with the package.

Its 1.06 million parameters were trained from scratch by `scripts/pretrain_embedded.py` to answer questions about drawn
scenes (`drawing`, `questions`). In that training its pictures passed through a narrow, noisy code: without it the tower
passes all pixels on, and the language model alone could learn any new style (dev/LOG.md, 2026-11-22).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

IMAGE_PIXELS = 48
"""Height and width of the pictures that the tower reads."""
PATCH_PIXELS = 12
"""Height and width of a patch: 4 x 4 patches, 2 x 2 for each cell of a scene."""
NUM_IMAGE_TOKENS = (IMAGE_PIXELS // PATCH_PIXELS) ** 2
"""What a picture becomes: one token per patch."""
VISION_WIDTH, LANGUAGE_WIDTH = 96, 128
"""Hidden sizes, set by hand: small enough to train packs on a CPU, large enough that ranks up to 64 differ."""
PAD, USER, ASSISTANT, END, IMAGE = SPECIAL_TOKENS = ("<pad>", "<|user|>", "<|assistant|>", "<|end|>", "<image>")
"""The tokens with a meaning of their own."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|assistant|>' }}{% generation %}"
    "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ ' ' + part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ '<|user|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""An answer starts with a space, so that its first word is the same token as inside a sentence. System messages are
written like a user's, since the model was trained without any."""


def embedded_folder() -> Path:
    """The folder of the embedded model: `AutoModelForImageTextToText` and `AutoProcessor` load it like any other."""
    return Path(str(files("marslora.demo") / "assets" / "embedded"))


def new_processor(texts: Iterable[str], num_tokens: int) -> Any:
    """A `LlavaProcessor` with a byte-level BPE tokenizer trained on ``texts``: it can encode any input."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=num_tokens, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, IMAGE],
        model_max_length=512,
        padding_side="right",
    )
    size = {"height": IMAGE_PIXELS, "width": IMAGE_PIXELS}
    return LlavaProcessor(
        SiglipImageProcessorPil(size=size),
        tokenizer,
        patch_size=PATCH_PIXELS,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def new_model(tokenizer: Any) -> Any:
    """The embedded model with random weights (torch's global generator), for `scripts/pretrain_embedded.py`."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_PIXELS,
        patch_size=PATCH_PIXELS,
        vision_use_head=False,
    )
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=LANGUAGE_WIDTH,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        initializer_range=0.08,  # about 1 / sqrt(width): the usual 0.02 learns far more slowly at this width
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=NUM_IMAGE_TOKENS,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config)
