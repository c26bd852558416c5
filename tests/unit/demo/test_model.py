import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from marslora.demo import drawing, task_files
from marslora.demo.model import embedded_folder, new_model, new_processor
from marslora.demo.rows import make_messages


@pytest.fixture(scope="module")
def model():
    return AutoModelForImageTextToText.from_pretrained(embedded_folder()).eval()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(embedded_folder())


def test_it_loads_like_any_other_and_is_small(model):
    assert isinstance(model, LlavaForConditionalGeneration)
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 3e6
    assert sum(path.stat().st_size for path in embedded_folder().iterdir()) < 12e6
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@torch.no_grad()
def share_right(model, processor, kind: str, num: int = 128) -> float:
    """Share of whole answers that greedy decoding gets right on test scenes."""
    drawn = drawing.draw_scenes(num, "test", np.random.default_rng(77))
    talks = task_files.make_conversations(drawn, [kind], ["english"], np.random.default_rng(7))
    texts = [processor.apply_chat_template(make_messages(turns)[:1], add_generation_prompt=True) for turns in talks]
    processor.tokenizer.padding_side = "left"
    inputs = processor(
        text=texts, images=[Image.fromarray(image) for image in drawn.images_NHWC], padding=True, return_tensors="pt"
    )
    said = model.generate(**inputs, max_new_tokens=16, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    answers = processor.batch_decode(said, skip_special_tokens=True)
    return float(np.mean([answer.strip() == turns[0][1] for answer, turns in zip(answers, talks, strict=True)]))


@pytest.mark.parametrize(
    ("kind", "chance", "expected"),
    [("place", 0.2, 0.9), ("list", 0.05, 0.75), ("count", 0.45, 0.9), ("background", 0.2, 0.95)],
)
def test_it_answers_its_own_questions_on_test_pictures(model, processor, kind, chance, expected):
    assert share_right(model, processor, kind) > expected > chance


def test_it_needs_the_picture(model, processor):
    """With the pictures of other scenes its answers are no better than the commonest one."""
    right = share_right(model, processor, "place")
    handle = model.model.multi_modal_projector.register_forward_hook(lambda _module, _inputs, output: output.roll(1, 0))
    try:
        assert share_right(model, processor, "place") < 0.5 * right
    finally:
        handle.remove()


def test_no_text_is_unknown_to_the_tokenizer(processor):
    for text in ("what color is the shape?", "is there a red circle in the image?", "Wie spät? 日本 🦄\n"):
        assert processor.tokenizer.decode(processor.tokenizer(text)["input_ids"]) == text


def test_the_chat_template_marks_the_answers(processor):
    talk = make_messages([("what is it?", "cat"), ("where?", "top left")])
    encoded = processor.tokenizer.apply_chat_template(talk, return_assistant_tokens_mask=True, return_dict=True)
    marked = [
        token for token, is_answer in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if is_answer
    ]
    assert processor.tokenizer.decode(marked) == " cat<|end|> top left<|end|>"


def test_a_picture_of_any_size_gives_sixteen_tokens(processor, model):
    for size in ((64, 64), (200, 30)):
        encoded = processor(text="<|user|><image>what?", images=[Image.new("RGB", size)], return_tensors="pt")
        assert int((encoded["input_ids"] == model.config.image_token_id).sum()) == 16
        assert model(**encoded).logits.isfinite().all()


def test_an_untrained_one_can_be_built():
    processor = new_processor(["what is it? cat"] * 3, 300)
    assert new_model(processor.tokenizer).config.text_config.vocab_size == len(processor.tokenizer)
