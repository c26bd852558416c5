"""Qwen-VL, InternVL and SmolVLM, whose processors need torchvision: from rows of pictures and videos to an adapter."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from marslora import api
from marslora.core.spec import DataSpec
from marslora.data.check import check_data
from marslora.data.encode import encode
from marslora.data.splits import load_splits
from tests.helpers import tiny_watchers
from tests.unit.data.conftest import film, picture, write_lines

pytest.importorskip("torchvision", reason="pip install 'marslora[video]', with a torch that fits its torchvision")
pytest.importorskip("av", reason="pip install 'marslora[video]'")
pytestmark = pytest.mark.slow
WRITERS = {"qwen2_vl": tiny_watchers.write_qwen2_vl, "internvl": tiny_watchers.write_internvl}
WRITERS["smolvlm"] = tiny_watchers.write_smolvlm
EITHER = ("smolvlm",)
"""Processors that take pictures or videos in a row, but not both."""

LOAD = """
import sys
from peft import PeftModel
from transformers import AutoModelForImageTextToText
model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(sys.argv[1]), sys.argv[2])
trained = [value.abs().max() for name, value in model.named_parameters() if "lora_B" in name]
assert "marslora" not in sys.modules and trained and max(trained) > 0
"""


def write_rows(folder, name, count, kinds=("image", "video", "both", "text")):
    """Rows of a picture, of a video, of both, and of text alone, whose answers name what is in them."""
    for number in range(4):
        picture(number, 40, 40).save(folder / f"{number}.png")
        film(folder / f"{number}.mp4", 12 + 8 * number, 4)
    rows = []
    for number in range(count):
        seen = kinds[number % 4]
        user = [{"type": "text", "text": f"what is {number % 3} ?"}]
        if seen in ("video", "both"):
            user.insert(0, {"type": "video", "video": f"{number // 4 % 4}.mp4"})
        if seen in ("image", "both"):
            user.insert(0, {"type": "image", "image": f"{number // 4 % 4}.png"})
        rows.append(
            {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": f"it is {seen}"}]}
        )
    return write_lines(folder / name, rows)


@pytest.fixture(scope="module", params=WRITERS)
def world(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    WRITERS[request.param](folder / "model")
    kinds = ("image", "video", "video" if request.param in EITHER else "both", "text")
    return folder, write_rows(folder, "train.jsonl", 48, kinds), write_rows(folder, "held.jsonl", 16, kinds)


def load_processor(folder):
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder / "model")


def choose(processor, metadata, **_):
    """The frames that the processor chooses of a file."""
    settings = processor.video_processor
    return settings.sample_frames(metadata=metadata, num_frames=settings.num_frames, fps=settings.fps)


def test_rows_are_what_the_processor_makes_of_files_and_frames(world):
    from transformers.video_utils import load_video

    folder, source, _ = world
    processor = load_processor(folder)
    examples = load_splits(DataSpec(train=(source,), validation=(source,))).train
    encoded = encode(examples, processor)
    assert encoded.skipped == () and encoded.notes == {}
    for index in range(8):
        example = examples[index]
        text = processor.apply_chat_template(
            list(example.messages), chat_template=processor.chat_template, tokenize=False
        )  # without it, SmolVLM takes another one for videos
        inputs = {}
        if example.images:
            inputs["images"] = [[image.open() for image in example.images]]
        if example.videos:
            frames, about = load_video(
                str(example.videos[0].source), backend="pyav", sample_indices_fn=partial(choose, processor)
            )
            inputs |= {"videos": [frames], "videos_kwargs": {"do_sample_frames": False, "video_metadata": [about]}}
        expected = processor(text=[text], return_tensors="pt", **inputs)
        batch = encoded.batch([index])
        for name in expected:
            assert torch.equal(batch[name], expected[name]), (index, name)
        answer = batch["labels"][0][batch["labels"][0] != -100]
        assert processor.tokenizer.decode(answer).startswith("it is ")
    together = encoded.batch(np.arange(8))
    assert len(together["input_ids"]) == 8


def test_a_picture_that_a_video_would_replace_is_refused(tmp_path):
    tiny_watchers.write_smolvlm(tmp_path / "model")
    source, processor = write_rows(tmp_path, "train.jsonl", 4), load_processor(tmp_path)
    (bad,) = check_data([source], processor=lambda: processor).bad
    assert (
        bad.row == 3 and "SmolVLMProcessor would put both into ['pixel_attention_mask', 'pixel_values']" in bad.reason
    )


def test_fewer_frames_are_fewer_tokens(world):
    folder, source, _ = world
    processor = load_processor(folder)

    def count(most):
        spec = DataSpec(train=(source,), validation=(source,), max_frames=most)
        return encode(load_splits(spec).train, processor)

    many, few = count(64), count(2)
    assert few.num_tokens.sum() < many.num_tokens.sum()
    assert list(few.notes) == ["videos of more than 2 chosen frames (`max_frames`): thinned out"] and many.notes == {}
    report = check_data([source], max_frames=2, processor=lambda: processor)
    assert report.notes == few.notes and report.num_bad == 0
    assert report.lengths["tokens"].mean == pytest.approx(few.num_tokens.mean(), abs=0.01)


def test_from_rows_to_an_adapter(world):
    folder, source, held = world
    decision = api.search(
        model=folder / "model",
        train=source,
        validation=held,
        ranks=(1, 4),
        training={"examples": 192, "learning_rate": 3e-3, "batch_size": 8},
        study=folder / "study",
    )
    assert decision.final.validation_loss < decision.final.base_validation_loss - 0.1
    assert {"vision", "language"} <= set(decision.chosen.parts)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, folder / "model", decision.adapter_folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
