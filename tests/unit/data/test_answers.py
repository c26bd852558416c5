"""Answers are where a chat template marks them, or where the template's own family puts them: never the next turn."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marslora.core.errors import DataError
from marslora.data._answers import SpecialTokens, Template
from marslora.data._example import Example
from marslora.data._process import DecodedMedia, RowProcessor
from tests.helpers import chat_templates as families
from tests.helpers import tiny_processors as tiny

IGNORED = -100


def talk(*texts, system=None):
    """Questions and answers in turn, in marslora's form."""
    start = [] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}]
    roles = ["user", "assistant"] * (len(texts) // 2)
    return [
        *start,
        *({"role": role, "content": [{"type": "text", "text": text}]} for role, text in zip(roles, texts, strict=True)),
    ]


def processor_of(family):
    processor = tiny.llava_processor(family.template)
    processor.tokenizer = tiny.byte_tokenizer(family.tokens)
    processor.tokenizer.bos_token, processor.tokenizer.eos_token = family.bos, family.eos
    return processor


def learned(family, messages):
    """The texts that are learned, one for each answer."""
    rendered = Template(processor_of(family)).render(messages)
    return [rendered.text[start:end] for start, end in rendered.answers]


@pytest.mark.parametrize("family", families.UNMARKED, ids=lambda family: family.name)
@pytest.mark.parametrize("answers", [("red",), ("red", "blue"), ("<b>red</b>", "<|none", "3 < 4")])
def test_an_answer_ends_with_its_own_end_in_every_family(family, answers):
    texts = [text for number, answer in enumerate(answers) for text in (f"question {number}?", answer)]
    *earlier, last = answers
    expected = [family.write(answer, False) for answer in earlier] + [family.write(last, True)]
    assert learned(family, talk(*texts)) == expected


@pytest.mark.parametrize("family", [family for family in families.UNMARKED if family.has_system], ids=lambda f: f.name)
def test_a_system_turn_is_not_learned(family):
    assert learned(family, talk("what?", "red", "and now?", "blue", system="Name colors.")) == [
        family.write("red", False),
        family.write("blue", True),
    ]


def test_thinking_is_learned_where_the_template_writes_it():
    thought = "<think>\nhm\n</think>\n\n"
    assert learned(families.QWEN3, talk("a?", thought + "red")) == [f"{thought}red<|im_end|>"]
    assert learned(families.QWEN3, talk("a?", "red")) == ["<think>\n\n</think>\n\nred<|im_end|>"]
    assert learned(families.QWEN3, talk("a?", thought + "red", "b?", thought + "blue")) == [
        "red<|im_end|>",
        f"{thought}blue<|im_end|>",
    ]
    assert learned(families.DEEPSEEK_R1, talk("a?", "<think>hm</think>red", "b?", "blue")) == [
        "red<｜end▁of▁sentence｜>",
        "blue<｜end▁of▁sentence｜>",
    ]


MARKED = {
    "with the end token": "{% generation %}{{ text }}<|im_end|>{% endgeneration %}\n",
    "with all that ends a turn": "{% generation %}{{ text }}<|im_end|>\n{% endgeneration %}",
    "without the end token": "{% generation %}{{ text }}{% endgeneration %}<|im_end|>\n",
    "with a space before": " {%- generation -%}{{ ' ' + text }}<|im_end|>{%- endgeneration -%}",
    "thinking apart": "<think>{% generation %}{{ text }}</think>{% endgeneration %}{% generation %}{{ text }}<|im_end|>"
    "{% endgeneration %}",
}


def marked(block):
    return (
        "{% for message in messages %}{% set text = message['content'][0]['text'] %}<|im_start|>{% if message['role'] "
        "== 'assistant' %}assistant\n" + block + "{% else %}user\n{{ text }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def test_marked_answers_that_nothing_ends_get_an_end():
    """As `llava-hf` publishes its template: without it, the model would never learn to stop."""
    assert learned(families.LLAVA_HF, talk("a?", "red", "b?", "blue")) == ["red ", "blue</s>"]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(str.strip)


@pytest.mark.parametrize("block", MARKED.values(), ids=MARKED)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_marked_answers_are_the_mask_of_transformers(block, texts):
    processor = tiny.llava_processor(marked(block))
    messages = talk(*(text for answer in texts for text in ("what?", answer)))
    example = Example(tuple(messages), (), "test", 1)
    (row,) = RowProcessor(processor).encode_rows([example], [DecodedMedia()])
    expected = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="np", return_assistant_tokens_mask=True
    )
    assert row.text["input_ids"].tolist() == expected["input_ids"][0].tolist()
    assert (row.text["labels"] != IGNORED).tolist() == (expected["assistant_masks"][0] == 1).tolist()


@pytest.mark.parametrize("family", families.UNMARKED, ids=lambda family: family.name)
@given(answers=st.lists(TEXTS.filter(lambda text: text == text.strip()), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_unmarked_answers_are_what_the_family_writes(family, answers):
    texts = [text for answer in answers for text in ("what?", answer)]
    expected = [family.write(answer, False) for answer in answers[:-1]] + [family.write(answers[-1], True)]
    assert learned(family, talk(*texts)) == expected


def test_the_token_that_opens_the_next_turn_is_not_learned():
    """A template that ends a whole conversation with another token than a turn: both begin with the same characters."""
    rendered = Template(processor_of(families.PHI3)).render(talk("a?", "red", "b?", "blue"))
    start, end = rendered.answers[0]
    assert rendered.text[start:end] == "red<|end|>"
    assert rendered.text[end:].startswith("\n<|user|>")


def test_a_template_that_leaves_the_end_out_of_the_last_turn_still_teaches_it():
    template = tiny.CHATML.replace("<|im_end|>", "{% if not loop.last or message['role'] == 'user' %}</s>{% endif %}")
    rendered = Template(tiny.llava_processor(template)).render(talk("a?", "red", "b?", "blue"))
    assert [rendered.text[start:end] for start, end in rendered.answers] == ["red</s>", "blue</s>"]


def test_a_template_for_text_alone_gets_text_and_refuses_pictures():
    template = Template(processor_of(families.ZEPHYR))
    assert "[{" not in template.render(talk("a?", "red")).text
    seen = [{"role": "user", "content": [{"type": "image"}]}, *talk("a?", "red")[1:]]
    with pytest.raises(DataError, match="reads text alone, and a turn has image"):
        template.render(seen)


def test_what_a_template_raises_is_the_reason_of_the_row():
    template = tiny.CHATML + "{{ raise_exception('no system turns') if messages[0]['role'] == 'system' }}"
    with pytest.raises(DataError, match=r"chat template refuses the row \(no system turns\)"):
        Template(tiny.llava_processor(template)).render(talk("a?", "red", system="be kind"))


@pytest.mark.parametrize(("text", "at", "expected"), [("ab<|end|>", 4, 2), ("ab<|end|>", 9, 9), ("ab<|end|", 4, 4)])
def test_a_special_token_is_not_cut(text, at, expected):
    assert SpecialTokens(["<|end|>", "<|user|>"]).cut(text, at) == expected
