"""Tools and their calls reach the model where its chat template has them; elsewhere the row is refused."""

from __future__ import annotations

import pytest

from marslora.core.errors import DataError
from marslora.data._answers import Template
from marslora.data._example import to_example
from marslora.data._media_cache import MediaCache
from marslora.data.check import check_data
from marslora.data.encode import encode
from marslora.data.splits import register_rows
from tests.helpers import tiny_processors as tiny
from tests.unit.data.test_encode import examples_of

HERMES = (
    "{% if tools %}<|im_start|>system\nTools:{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>{{ '\n' }}"
    "{% endif %}{% for message in messages %}<|im_start|>{{ 'user' if message.role == 'tool' else message.role }}\n"
    "{% if message.role == 'tool' %}<tool_response>{% endif %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% for call in message.tool_calls or [] %}{{ '\n' }}<tool_call>{{ call.function | tojson }}"
    "</tool_call>{% endfor %}{% if message.role == 'tool' %}</tool_response>{% endif %}<|im_end|>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
)
"""As Hermes and Qwen write tools: descriptions in front, calls in tags, results as a user's turn."""
CALL = {"id": "1", "type": "function", "function": {"name": "crop", "arguments": '{"x": 1, "name": "left \\"eye\\""}'}}
ROW = {
    "messages": [
        {"role": "user", "content": "zoom in"},
        {"role": "assistant", "content": "I crop it.", "tool_calls": [CALL]},
        {"role": "tool", "content": "done", "tool_call_id": "1"},
        {"role": "tool", "content": "twice", "tool_call_id": "1"},
        {"role": "assistant", "content": "It is red."},
    ],
    "tools": [{"name": "crop", "parameters": {"x": "number"}}],
}
WRITTEN = '<tool_call>{"name": "crop", "arguments": {"x": 1, "name": "left \\"eye\\""}}</tool_call>'


def learned(row, folder, template=HERMES):
    rendered = Template(tiny.llava_processor(template)).render(to_example(row, MediaCache(folder), "rows", 1).messages)
    return rendered.text, [rendered.text[start:end] for start, end in rendered.answers]


def test_calls_are_learned_and_what_tools_return_is_not(tmp_path):
    text, answers = learned(ROW, tmp_path)
    assert answers == [f"I crop it.\n{WRITTEN}<|im_end|>", "It is red.<|im_end|>"]
    assert '"name": "crop", "parameters": {"x": "number"}' in text and "<tool_response>twice</tool_response>" in text


def test_a_call_without_words_is_an_answer(tmp_path):
    turns = [ROW["messages"][0], {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    assert learned({"messages": turns}, tmp_path)[1] == [f"\n{WRITTEN}<|im_end|>"]


def test_a_template_without_tools_refuses_the_row_and_the_check_says_what_it_needs():
    note = "calls of tools: read where the model's chat template has them"
    source = register_rows("tools", [ROW, {"prompt": "?", "completion": "x"}])
    assert check_data([source]).notes == {note: 1}
    (bad,) = check_data([source], processor=tiny.llava_processor).bad
    assert "chat template has no place" in bad.reason
    encoded = encode(examples_of([ROW, {"prompt": "?", "completion": "x"}]), tiny.llava_processor(), max_bad_share=0.5)
    assert [skipped.reason for skipped in encoded.skipped] == [bad.reason]


def test_other_tools_are_another_row(tmp_path):
    rows = [{**ROW, "tools": [{"name": name}]} for name in ("crop", "turn")]
    assert len({to_example(row, MediaCache(tmp_path), "rows", 1).digest for row in rows}) == 2


@pytest.mark.parametrize("lost", ["call.function | tojson", "tool | tojson"])
def test_a_template_that_leaves_out_a_tool_or_a_call_is_found(lost, tmp_path):
    row = {**ROW, "tools": [{"name": "turn"}]}
    assert len(learned(row, tmp_path)[1]) == 2
    with pytest.raises(DataError, match=r"leaves out `.+` of the row's tools or calls"):
        learned(row, tmp_path, HERMES.replace(lost, "'' | tojson"))
