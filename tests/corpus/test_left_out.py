"""A system turn that the template leaves out is said so, also where its words stand elsewhere in the row."""

import pytest

from marslora.data._left_out import find_left_out

LEFT_OUT = ("system turns: left out by the chat template",)


def make_messages(system, question, answer):
    texts = {"system": system, "user": question, "assistant": answer}
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts.items()]


@pytest.mark.parametrize(
    ("system", "question", "answer"),
    [
        ("name the colors", "what is this?", "red"),
        ("what is this?", "what is this?", "red"),
        ("red", "what is this?", "red"),
        ("what  is", "what\nis this?", "red"),
    ],
)
def test_a_system_turn_that_is_left_out_is_said(system, question, answer):
    messages = make_messages(system, question, answer)
    assert find_left_out(messages, f"<user>{question}<model>{answer}") == LEFT_OUT
    assert find_left_out(messages, f"<system>{system}<user>{question}<model>{answer}") == ()
    assert find_left_out(messages, f"<user>{question} {system}<model>{answer}") == ()


def test_a_thought_that_is_left_out_does_not_hide_the_system_turn():
    messages = make_messages("red", "what?", "<think>red</think>blue")
    said = find_left_out(messages, "<system>red<user>what?<model>blue")
    assert said == ("thoughts of earlier answers: left out by the chat template",)
