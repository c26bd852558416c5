"""The adapter that comes out is plain PEFT: it needs nothing of ours and gives the loss that the study recorded."""

import json
import subprocess
import sys

import pytest

from marslora import api
from tests.unit.finetune import tiny

pytestmark = pytest.mark.slow

MEASURE = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor
from PIL import Image

model_folder, adapter, rows_file, merge = sys.argv[1:]
processor = AutoProcessor.from_pretrained(model_folder)
model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(model_folder), adapter).eval()
if merge == "merged":
    model = model.merge_and_unload()
nats = tokens = 0
for line in open(rows_file):
    row = json.loads(line)
    user, assistant = row["messages"]
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": user["content"]}]}
    assistant = {"role": "assistant", "content": [{"type": "text", "text": assistant["content"]}]}
    image = Image.open(row["images"][0])
    prompt = processor.apply_chat_template([user], add_generation_prompt=True)
    whole = processor.apply_chat_template([user, assistant])
    batch = processor(text=whole, images=image, return_tensors="pt")
    asked = processor(text=prompt, images=image, return_tensors="pt")["input_ids"].shape[1]
    with torch.no_grad():
        logits = model(**batch).logits[0, asked - 1 : -1]
    answer = batch["input_ids"][0, asked:]
    nats += torch.nn.functional.cross_entropy(logits, answer, reduction="sum").item()
    tokens += len(answer)
assert "marslora" not in sys.modules
print(nats / tokens)
"""


def write_rows(path, count, seed):
    """Rows with pictures beside them."""
    with path.open("w") as file:
        for number, row in enumerate(tiny.rows(count, seed)):
            picture = path.parent / f"{path.stem}-{number}.png"
            row["images"][0].save(picture)
            file.write(json.dumps({**row, "images": [str(picture)]}) + "\n")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapter")
    tiny.write_model(root / "model")
    write_rows(root / "train.jsonl", 160, 0)
    write_rows(root / "held.jsonl", 24, 1)
    decision = api.search(
        model=root / "model",
        train=root / "train.jsonl",
        validation=root / "held.jsonl",
        ranks=(1, 4),
        training={"examples": 512, "learning_rate": 3e-3},
        study=root / "study",
    )
    return root, decision


@pytest.mark.parametrize("merge", ["adapter", "merged"])
def test_peft_alone_gives_the_recorded_loss(study, merge):
    root, decision = study
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, root / "model", decision.adapter_folder, root / "held.jsonl", merge],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) == pytest.approx(decision.final.validation_loss, abs=1e-4)
    assert decision.final.validation_loss < decision.final.base_validation_loss - 0.1


def test_the_decision_gives_peft_the_same_ranks(study):
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText

    root, decision = study
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(root / "model"), decision.lora_config())
    found = {
        name.removeprefix("base_model.model."): module.r["default"]
        for name, module in model.named_modules()
        if getattr(module, "r", None)
    }
    assert found == decision.info.module_ranks(decision.chosen)


def test_objects_in_memory_are_as_good_as_paths(study, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    root, _ = study
    decision = api.search(
        model=AutoModelForImageTextToText.from_pretrained(root / "model"),
        processor=AutoProcessor.from_pretrained(root / "model"),
        train=tiny.rows(160, 0),
        ranks={"vision": (1, 4), "projector": 2, "language": (1, 4)},
        training={"examples": 512, "learning_rate": 3e-3},
        study=tmp_path / "study",
        final=False,
    )
    assert set(decision.chosen.parts) == {"vision", "projector", "language"}
    assert decision.chosen["projector"] == 2
    assert decision.final is None and decision.adapter_folder is None
    assert decision.report.exists()
