"""Answers of the adapter and of its base model are what `transformers` alone generates."""

import io

import pytest
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from marslora.core.errors import ConfigError, DataError, StudyError
from marslora.data.prompts import find_end_tokens
from marslora.demo.model import embedded_folder
from marslora.deployment.ask import open_answerer
from tests.end_to_end.test_cli import run

QUESTION = "what color is the background?"


@pytest.fixture(scope="module")
def answerer(decision):
    return open_answerer(decision.folder)


def generate(model, picture, question=QUESTION):
    """What `transformers` generates, with the processor's own template, in the way of its documentation."""
    processor = AutoProcessor.from_pretrained(embedded_folder())
    turn = {"role": "user", "content": [{"type": "image", "path": str(picture)}, {"type": "text", "text": question}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    from PIL import Image

    batch = processor(text=text, images=Image.open(picture), return_tensors="pt")
    tokens = model.eval().generate(**batch, do_sample=False, max_new_tokens=256)[0, batch["input_ids"].shape[1] :]
    return processor.decode(tokens, skip_special_tokens=True).strip()


def test_answers_are_those_of_transformers_and_peft(answerer, decision, picture):
    answers = answerer.ask(QUESTION, [picture])
    base = AutoModelForImageTextToText.from_pretrained(embedded_folder())
    assert answers.base == generate(base, picture)
    assert answers.adapted == generate(PeftModel.from_pretrained(base, decision.adapter_folder), picture)
    assert answers.adapted
    assert answerer.ask(QUESTION, [picture], base=False).base is None


def test_the_adapter_changes_an_answer(answerer, picture):
    asked = [answerer.ask(question, [picture]) for question in ("list the objects.", QUESTION, "what is at the top?")]
    assert any(answers.adapted != answers.base for answers in asked)


def test_a_question_may_say_where_the_picture_stands(answerer, picture):
    first = answerer.ask(f"<image>{QUESTION}", [picture])
    assert first == answerer.ask(QUESTION, [picture])


def test_an_answer_is_cut_after_the_tokens_that_are_allowed(answerer, picture):
    whole = answerer.ask("list the objects.", [picture], base=False).adapted
    cut = answerer.ask("list the objects.", [picture], base=False, max_tokens=1).adapted
    assert whole.startswith(cut) and cut != whole


def test_what_cannot_be_read_is_named(answerer, tmp_path):
    with pytest.raises(DataError, match=r"no.png"):
        answerer.ask(QUESTION, [tmp_path / "no.png"])


def test_a_task_is_refused_where_there_is_none(study):
    with pytest.raises(ConfigError, match=r"no tasks; found 'caption'"):
        open_answerer(study, task="caption")


def test_a_study_without_an_adapter_says_so(tmp_path, decision):
    (tmp_path / "spec.json").write_text((decision.folder / "spec.json").read_text())
    with pytest.raises(StudyError, match=r"no trained adapter yet"):
        open_answerer(tmp_path)


def test_answers_end_where_the_template_ends_them():
    processor = AutoProcessor.from_pretrained(embedded_folder())
    assert find_end_tokens(processor) == (processor.tokenizer.convert_tokens_to_ids("<|end|>"),)


def test_the_command_asks_once_or_until_the_input_ends(monkeypatch, capsys, study, picture):
    code, once, _ = run(monkeypatch, capsys, "try", study, "--image", picture, "--question", QUESTION)
    assert code == 0 and once.count("\n") == 2
    typed = f"/image no.png\n{QUESTION}\n/image '{picture}'\n{QUESTION}\n/who\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    code, told, _ = run(monkeypatch, capsys, "try", study)
    assert code == 0
    assert once in told
    assert "error: image" in told and "There is no command /who" in told
