"""A metric of generated answers chooses the point of a final run; the answers are those of `transformers` alone."""

import json

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from marslora.core.errors import ConfigError
from marslora.core.runs import FinalResult
from marslora.data.prompts import list_prompts
from marslora.data.rows import load_encoded_splits
from marslora.data.splits import load_splits
from marslora.finetune.generated_answers import AnswerMetric
from marslora.methods import PeftChange
from marslora.models.loading import load
from tests.unit.finetune.tiny import run, weights

SEEN = []
HERE = "tests.unit.finetune.test_metric"


def keep_answers(predictions, references):
    """A metric that keeps what it gets."""
    SEEN.append((list(predictions), list(references)))
    return 0.0


def falls(predictions, references):
    """A metric that is lower at every call, so that the first point after the start is the best."""
    SEEN.append(predictions)
    return -float(len(SEEN))


@pytest.fixture(autouse=True)
def forget():
    SEEN.clear()


def generate_alone(world, number):
    """The answer of `transformers` alone to one validation row."""
    row = json.loads((world / "validation.jsonl").read_text().splitlines()[number])
    processor = AutoProcessor.from_pretrained(world / "model")
    model = AutoModelForImageTextToText.from_pretrained(world / "model").eval()
    content = [{"type": "image"}, {"type": "text", "text": row["messages"][0]["content"]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    batch = processor(text=text, images=Image.open(world / row["images"][0]), return_tensors="pt")
    tokens = model.generate(**batch, do_sample=False, max_new_tokens=20)[0, batch["input_ids"].shape[1] :]
    return processor.decode(tokens, skip_special_tokens=True).strip(), row["messages"][1]["content"]


def make_metric(spec, batch_size):
    loaded = load(spec.model)
    rows = load_encoded_splits(spec.data, loaded.processor, spec.cache_folder)
    change = PeftChange.__new__(PeftChange)
    change.base = change.model = loaded.model
    return AnswerMetric(
        "keep", keep_answers, change, rows, load_splits(spec.data), loaded.processor, batch_size, loaded.dtype
    )


def test_answers_in_batches_are_those_of_transformers_one_by_one(world, final_spec):
    metric = make_metric(final_spec(), 5)
    metric.score("validation")
    ((predictions, references),) = SEEN
    alone = [generate_alone(world, number) for number in range(4)]
    cut = [predictions[number][: len(text)] for number, (text, _) in enumerate(alone)]  # both are cut by their limits
    assert [text[: len(found)] for (text, _), found in zip(alone, cut, strict=True)] == cut
    assert references[:4] == [wanted for _, wanted in alone]
    assert metric.cost.answers == 16 and metric.cost.tokens > 0 and metric.cost.flops_per_answer > 0
    make_metric(final_spec(), 1).score("validation")
    assert SEEN[1] == SEEN[0]


def test_prompts_are_the_rows_before_their_answers(final_spec):
    spec = final_spec()
    loaded = load(spec.model)
    rows = load_encoded_splits(spec.data, loaded.processor, spec.cache_folder).validation
    prompts = list_prompts(rows, load_splits(spec.data).validation)
    assert [prompt.row for prompt in prompts] == list(range(16))
    batch, whole = rows.prompts([0, 1], [prompts[0].end, prompts[1].end]), rows.batch([0, 1])
    for row, prompt in enumerate(prompts[:2]):
        ids = whole["input_ids"][row, : prompt.end]
        assert torch.equal(batch["input_ids"][row, -prompt.end :], ids)
        assert int(batch["attention_mask"][row].sum()) == prompt.end
        assert prompt.answer == tuple(whole["labels"][row][whole["labels"][row] != -100].tolist())
    assert "labels" not in batch and torch.equal(batch["pixel_values"], whole["pixel_values"])


def test_the_point_of_the_highest_metric_is_kept(final_spec):
    spec = final_spec("falls", training={"keep": "best"}, metric=f"{HERE}:falls")
    result = run(spec)[-1]
    assert isinstance(result, FinalResult)
    assert result.kept_examples == 8
    assert result.metric.curve == (-1, -2, -3, -4, -5, -6)
    assert result.metric.base_validation == -1 and result.metric.validation == -7
    assert (result.metric.test, result.metric.base_test) == (-8, -9)
    assert result.metric.at_lowest_loss == result.metric.curve[result.validation_curve.index(result.reached_loss)]
    assert result.metric.loss_correlation > 0.5
    assert result.metric.num_answers == 7 * 16 + 2 * 12
    assert result.reached_loss == min(result.validation_curve[1:]) < result.validation_loss
    plain = run(final_spec("plain", training={"keep": "best"}))[-1]
    assert plain.metric is None and plain.validation_curve == result.validation_curve
    assert result.cost.flops > plain.cost.flops


def test_generating_changes_nothing_of_the_training(final_spec):
    run(final_spec("without"))
    run(final_spec("with", metric="exact_match"))
    one, two = weights(final_spec("without")), weights(final_spec("with"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_continued_run_keeps_the_points_that_it_had(final_spec):
    spec = final_spec("killed", metric="f1", training={"keep": "best"})
    run(spec, until=24)
    continued, whole = run(spec)[-1], run(final_spec("whole_f1", metric="f1", training={"keep": "best"}))[-1]
    assert continued.metric.curve == whole.metric.curve
    assert continued.kept_examples == whole.kept_examples
    assert continued.metric.validation == whole.metric.validation


def test_heads_of_tasks_are_refused(world, final_spec):
    lines = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]
    path = world / "tasks.jsonl"
    path.write_text("\n".join(json.dumps({**row, "task": f"t{n % 2}"}) for n, row in enumerate(lines)))
    data = final_spec().data.model_copy(update={"train": (str(path),), "validation": (str(path),), "test": ()})
    spec = final_spec("tasks", metric="f1", data=data, training={"adapter": "asymlora", "dropout": 0.0})
    with pytest.raises(ConfigError, match="a head for each of the tasks"):
        run(spec)
