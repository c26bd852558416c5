"""The whole engine, with every speedup, against PEFT alone on the same rows."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from marslora.core.parts import ModelInfo
from marslora.core.schedule import num_steps
from marslora.data.rows import load_encoded_splits
from marslora.engine.pack import Base
from marslora.engine.prepare import probe_parts
from marslora.models import loading
from marslora.testing.solo import on_peft
from tests.helpers.exactness import EXACT, assert_as_near, assert_exact, assert_twins, keep_float64
from tests.helpers.packs import go, member, tensors
from tests.twins.worlds import with_losses


def engine(spec):
    """The weights and the last validation loss of every member when the engine trains them together."""
    seen = go(spec)
    return [with_losses(tensors(spec, one.id), _number(seen.curve(one.id)[one.until_examples])) for one in spec.members]


def peft_alone(spec, name):
    """The member's weights and last validation loss when PEFT trains it on the same rows."""
    loaded = loading.load(spec.model)
    rows = load_encoded_splits(spec.data, loaded.processor, spec.cache_folder)
    info: ModelInfo = probe_parts(spec.model, loaded, rows, spec.cache_folder)
    base = Base(loaded.model, info, spec.training, loaded.device, loaded.dtype)
    wanted = next(found for found in spec.members if found.id == name)
    steps = rows.micro_batches(spec.training, wanted.order_seed, 0, wanted.until_examples, wanted.data_examples)
    with on_peft(base, wanted) as solo, base.mixed_precision():
        solo.train(steps, num_steps(spec.full_examples, spec.training.batch_size))
        batch = rows.validation.batch(range(len(rows.validation)))
        with torch.no_grad():
            loss = float(solo.loss(batch)) / int((batch["labels"][:, 1:] != -100).sum())
        weights = {f"base_model.model.{key}": value for key, value in solo.weights().items()}
        return with_losses(weights, _number(loss))


def _number(value):
    return torch.tensor([value], dtype=torch.float64)


MIXES = {
    "everything": [{"vision": 2, "projector": 4, "language": 4}, {"vision": 8, "language": 1}, {"projector": 16}],
    "tower frozen": [{"language": 4}, {"projector": 2, "language": 16}],
    "all but the language model frozen": [{"language": 4}, {"language": 16}],
    "only the tower": [{"vision": 4}, {"vision": 16}],
    "only the projector": [{"projector": 4}, {"projector": 1}],
}


@pytest.mark.parametrize("mix", MIXES)
def test_run_pack_trains_what_peft_trains(pack, mix):
    members = [
        member(
            f"m{index}", until=48, data=24, seed=index, dropout=0.1 * index, learning_rate=2.0 ** (index - 10), **ranks
        )
        for index, ranks in enumerate(MIXES[mix])
    ]

    def train(dtype):
        settings = {"accumulation": 2, "clip_norm": 0.3, "gradient_checkpointing": mix == "everything"}
        spec = pack(*members, folder=str(dtype), dtype=dtype, **settings)
        return engine(spec), [peft_alone(spec, one.id) for one in members]

    if mix == "everything":
        assert_twins(train)
    else:
        with keep_float64():
            for found, expected in zip(*train(torch.float64), strict=True):
                assert_exact(found, expected)


def test_the_checkpoint_is_an_adapter_that_peft_reads_alone(pack, world):
    """A process that never imports this package measures the loss that the run recorded; merged, too."""
    mixed = member("a", until=48, vision=2, projector=4, language=8, dropout=0.1)
    spec = pack(mixed, alpha_over_rank=1.5, dtype=torch.float64)
    trained_whole = member("b", until=48, vision=2, language=8)
    whole = pack(trained_whole, folder="whole", full=("projector",), dtype=torch.float64)
    with keep_float64():
        recorded = [go(asked).curve(asked.members[0].id)[48] for asked in (spec, whole)]
    rows = load_encoded_splits(spec.data, loading.load_processor(spec.model), spec.cache_folder)
    torch.save(rows.validation.batch(range(len(rows.validation))), batch := Path(spec.checkpoint_folder) / "batch.pt")
    adapters = [f"{asked.checkpoint_folder}/{asked.members[0].id}" for asked in (spec, whole)]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(world / "model"), str(batch), *adapters],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found = [float(value) for value in done.stdout.split()]
    assert found == pytest.approx([value for value in recorded for _ in range(2)], rel=EXACT)


ALONE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText
from tests.helpers.exactness import keep_float64
batch = torch.load(sys.argv[2])
for adapter in sys.argv[3:]:
    base = AutoModelForImageTextToText.from_pretrained(sys.argv[1]).double()
    model = PeftModel.from_pretrained(base, adapter).eval()
    with torch.no_grad(), keep_float64():
        print(model(**batch).loss.item())
        print(model.merge_and_unload()(**batch).loss.item())
assert not any(name.startswith("marslora") for name in sys.modules)
"""


def test_ranks_survive_peft_saving_what_it_loaded(pack, tmp_path):
    """Loaded, saved again by PEFT (which sorts the patterns) and loaded again: the same tensors."""
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText

    spec = pack(member("a", until=16, vision=2, projector=4, language=8))
    go(spec)

    def loaded(folder):
        return PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(spec.model.path), folder)

    loaded(f"{spec.checkpoint_folder}/a").save_pretrained(tmp_path / "again")
    loaded(tmp_path / "again").save_pretrained(tmp_path / "thrice")
    first, last = tensors(spec, "a"), load_file(tmp_path / "thrice" / "adapter_model.safetensors")
    assert first.keys() == last.keys() and all(torch.equal(first[key], last[key]) for key in first)


def test_bf16_members_are_as_near_to_what_is_exact_as_pefts(pack):
    members = [member(f"m{rank}", until=48, language=rank, vision=2, dropout=0.1) for rank in (1, 8)]
    with keep_float64():
        exact = engine(pack(*members, folder="float64", dtype=torch.float64))
    half = pack(*members, folder="half")
    half = half.model_copy(update={"model": half.model.model_copy(update={"dtype": "bfloat16"})})
    for one, found, truth in zip(members, engine(half), exact, strict=True):
        assert_as_near(found, peft_alone(half, one.id), truth)
        assert {tensor.dtype for tensor in tensors(half, one.id).values()} == {torch.float32}


@pytest.mark.slow
def test_kill_9_in_the_middle_and_again(pack):
    """A process that is killed for good, twice; what is left goes on to the same numbers."""
    members = (member("a", until=160, language=4, dropout=0.1), member("b", until=160, vision=8, seed=7))
    go(kept := pack(*members, folder="kept"))
    killed = pack(*members, folder="killed")
    code = (
        "import sys; from marslora.core.spec import PackSpec; from marslora.engine import loop, worker\n"
        "loop.CHECKPOINT_SECONDS = 0.0\n"
        "worker.run_pack(PackSpec.model_validate_json(sys.argv[1]), lambda event: print('seen', flush=True))"
    )
    for num_events in (12, 20):
        child = subprocess.Popen(
            [sys.executable, "-c", code, killed.model_dump_json()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(num_events):
            child.stdout.readline()
        child.kill()
        child.wait()
    go(killed)
    for one in members:
        first, second = tensors(killed, one.id), tensors(kept, one.id)
        assert all(torch.equal(first[key], second[key]) for key in second)
