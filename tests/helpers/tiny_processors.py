"""Small processors of real families, made without a download: a tokenizer over bytes and a tiny image processor."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    AudioFlamingo3Processor,
    CLIPImageProcessorPil,
    Gemma3ImageProcessorPil,
    Gemma3nAudioFeatureExtractor,
    Gemma3nProcessor,
    Gemma3Processor,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PreTrainedTokenizerFast,
    Qwen2AudioProcessor,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessorPil,
    WhisperFeatureExtractor,
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_MARKED = CHATML.replace(
    "{% for part in message['content'] %}",
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'][0]['text'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{% for part in message['content'] %}",
).replace("{% endfor %}<|im_end|>\n", "{% endfor %}<|im_end|>{% endif %}{{ '\\n' }}")
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


def llava_next_processor() -> LlavaNextProcessor:
    """Cuts a picture into tiles; the number of tiles follows its shape."""
    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 28},
            crop_size={"height": 28, "width": 28},
            image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
        ),
        tokenizer=byte_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHATML,
    )


def idefics3_processor() -> Idefics3Processor:
    """One entry of ``pixel_values`` a row, padded to the most tiles; a frame of special tokens around every tile."""
    tiles = tuple(f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3))
    return Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer=byte_tokenizer(("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles)),
        image_seq_len=4,
        chat_template=CHATML,
    )


def mllama_processor() -> MllamaProcessor:
    """One token a picture, and a cross-attention mask over text and pictures."""
    return MllamaProcessor(
        image_processor=MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=1),
        tokenizer=byte_tokenizer(("<|image|>", "<|python_tag|>")),
        chat_template=CHATML.replace("<image>", "<|image|>"),
    )


def gemma3_processor() -> Gemma3Processor:
    """Line breaks around every expanded picture, and ``token_type_ids``."""
    tokenizer = byte_tokenizer(("<start_of_image>", "<end_of_image>", "<soft>"))
    for name, token in (("boi", "<start_of_image>"), ("eoi", "<end_of_image>"), ("image", "<soft>")):
        setattr(tokenizer, f"{name}_token", token)
        object.__setattr__(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=CHATML.replace("<image>", "<start_of_image>"),
    )


def qwen2_vl_processor() -> Qwen2VLProcessor:
    """Patches without a batch axis. Needs torchvision, which its video processor demands."""
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}),
        tokenizer=byte_tokenizer(("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHATML.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>"),
    )


def hearing(template: str, audio: str) -> str:
    """The template with the placeholder of a sound."""
    return template.replace("{% else %}{{ part", "{% elif part['type'] == 'audio' %}" + audio + "{% else %}{{ part")


def whisper_features() -> WhisperFeatureExtractor:
    """16 mel bins and 40 frames for each second at 16 kHz, as the tiny models that hear want them."""
    return WhisperFeatureExtractor(feature_size=16, hop_length=400, chunk_length=1, n_fft=800)


def qwen2_audio_processor() -> Qwen2AudioProcessor:
    """One entry of ``input_features`` a sound, filled up to a second, and a mask."""
    return Qwen2AudioProcessor(
        feature_extractor=whisper_features(),
        tokenizer=byte_tokenizer(("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")),
        chat_template=hearing(CHATML, "<|audio_bos|><|AUDIO|><|audio_eos|>"),
    )


def audioflamingo3_processor() -> AudioFlamingo3Processor:
    """A long sound becomes several entries; only one sound a row; padded on the left."""
    return AudioFlamingo3Processor(
        feature_extractor=whisper_features(),
        tokenizer=byte_tokenizer(("<sound>",)),
        chat_template=hearing(CHATML, "<sound>"),
    )


def gemma3n_processor() -> Gemma3nProcessor:
    """Sees and hears; sounds as long as the longest beside them."""
    tokenizer = byte_tokenizer(("<soi>", "<eoi>", "<soft>", "<soa>", "<eoa>", "<heard>"))
    tokens = {"boi": "<soi>", "eoi": "<eoi>", "image": "<soft>", "boa": "<soa>", "eoa": "<eoa>", "audio": "<heard>"}
    for name, token in tokens.items():
        setattr(tokenizer, f"{name}_token", token)
        object.__setattr__(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    return Gemma3nProcessor(
        feature_extractor=Gemma3nAudioFeatureExtractor(feature_size=8),
        image_processor=SiglipImageProcessorPil(size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        audio_seq_length=3,
        image_seq_length=4,
        chat_template=hearing(CHATML.replace("<image>", "<soft>"), "<heard>"),
    )
