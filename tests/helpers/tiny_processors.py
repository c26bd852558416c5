"""Small processors of real families, made without a download: a tokenizer over bytes and a tiny image processor."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_MARKED = CHATML.replace(
    "{% for part in message['content'] %}",
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'][0]['text'] }}{% endgeneration %}"
    "{% else %}{% for part in message['content'] %}",
).replace("{% endfor %}<|im_end|>", "{% endfor %}{% endif %}<|im_end|>")
LLAVA_15 = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SPECIALS = ("<pad>", "<s>", "</s>", "<image>", "<|im_start|>", "<|im_end|>")


def byte_tokenizer(extra: tuple[str, ...] = (), adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer whose every byte is a token, with a few special tokens; reads any text."""
    specials = SPECIALS + extra
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(specials))
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>", "<|im_start|>", "<|im_end|>", *extra],
    )


def llava_processor(template: str = CHATML, size: int = 28, adds_bos: bool = False) -> LlavaProcessor:
    """LLaVA's processor for pictures of ``size`` x ``size`` pixels and patches of 14."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"height": size, "width": size}, do_center_crop=False, do_resize=True, crop_size=None
        ),
        tokenizer=byte_tokenizer(adds_bos=adds_bos),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
