"""What the engine wrote, the final run goes on from."""

import pytest
from safetensors.torch import load_file

from marslora.core.runs import Failure, Observation
from marslora.core.spec import MemberSpec, PackSpec
from marslora.engine.worker import run_pack
from marslora.models.loading import describe
from tests.helpers.exactness import EXACT, assert_exact
from tests.helpers.outside_adapter import NAME, TWIN
from tests.unit.finetune.tiny import run, weights

RATE = 2**-6
"""A learning rate that float32 holds exactly: the engine keeps its rates in float32."""


def calibrate(spec, until, folder):
    """Train the spec's allocation in the engine; its checkpoint folder and validation losses by examples."""
    member = MemberSpec(
        id="member",
        allocation=spec.allocation,
        data_examples=48,
        until_examples=until,
        order_seed=spec.order_seed,
        seed=spec.seed,
    )
    pack = PackSpec(
        id="pack",
        model=spec.model,
        data=spec.data,
        training=spec.training,
        full_examples=spec.full_examples,
        members=(member,),
        checkpoint_folder=str(folder),
        cache_folder=spec.cache_folder,
    )
    events = []
    run_pack(pack, events.append)
    assert not (failed := [event for event in events if isinstance(event, Failure)]), failed
    losses = {e.examples: e.value for e in events if isinstance(e, Observation) and e.metric == "validation_loss"}
    return folder / "member", losses


WAYS = [
    {},
    {"full": ("projector",)},
    {"adapter": {"name": "lora", "options": {"use_rslora": True, "use_dora": True}}},
    {"optimizer": {"name": "mars_m", "options": {"exact": True}}},
]


@pytest.mark.parametrize("way", WAYS)
def test_engine_then_final_run_is_the_engine_all_the_way(exact_spec, tmp_path, way):
    training = {"learning_rate": RATE, "decay": 0.0, "warmup": 0.2, "dropout": 0.0, "weight_decay": 0.1, **way}
    spec = exact_spec(training=training, order_seed=7)
    whole, losses = calibrate(spec, 40, tmp_path / "whole")
    half, _ = calibrate(spec, 24, tmp_path / "half")
    continued = spec.model_copy(update={"start_folder": str(half)})
    result = run(continued)[-1]
    assert result.started_at_examples == 24
    assert_exact(weights(continued), load_file(whole / "adapter_model.safetensors"))
    assert result.base_validation_loss == pytest.approx(losses[0], rel=EXACT)
    assert result.validation_loss == pytest.approx(losses[40], rel=EXACT)
    curve = dict(zip(result.examples, result.validation_curve, strict=True))
    if not spec.training.full:
        counted = describe(spec.model).num_trainable(spec.allocation, use_dora=spec.training.use_dora)
        assert result.num_trainable == counted
    shared = curve.keys() & losses.keys()
    assert 40 in shared
    assert all(curve[examples] == pytest.approx(losses[examples], rel=EXACT) for examples in shared)


def test_a_fresh_final_run_is_the_engines_run_of_the_same_seed(exact_spec, tmp_path):
    spec = exact_spec(training={"learning_rate": RATE, "decay": 0.0, "dropout": 0.0}, seed=3, order_seed=7)
    folder, losses = calibrate(spec, 40, tmp_path)
    result = run(spec)[-1]
    assert_exact(weights(spec), load_file(folder / "adapter_model.safetensors"))
    assert result.validation_loss == pytest.approx(losses[40], rel=EXACT)


@pytest.mark.parametrize(
    "way", [{}, {"accumulation": 2}, {"optimizer": {"name": "mars_m", "options": {"exact": True}}}]
)
def test_a_packed_adapter_goes_on_under_the_masks_of_the_engine(exact_spec, tmp_path, way):
    """The final run of a packed adapter draws the same dropout masks as its calibration run would have."""
    training = {"learning_rate": RATE, "decay": 0.0, "dropout": 0.3, "adapter": {"name": TWIN}, **way}
    spec = exact_spec(training=training, order_seed=7)
    whole, losses = calibrate(spec, 40, tmp_path / "whole")
    half, _ = calibrate(spec, 24, tmp_path / "half")
    continued = spec.model_copy(update={"start_folder": str(half)})
    result = run(continued)[-1]
    assert result.started_at_examples == 24
    assert result.validation_loss == pytest.approx(losses[40], rel=EXACT)
    assert_exact(weights(continued), load_file(whole / "adapter_model.safetensors"))


def test_an_adapter_that_peft_has_no_form_for_goes_on_too(exact_spec, tmp_path):
    training = {"learning_rate": RATE, "decay": 0.0, "dropout": 0.0, "adapter": {"name": NAME}}
    spec = exact_spec(training=training, order_seed=7)
    _, losses = calibrate(spec, 40, tmp_path / "whole")
    half, _ = calibrate(spec, 24, tmp_path / "half")
    assert not (half / "adapter_config.json").exists()
    result = run(spec.model_copy(update={"start_folder": str(half)}))[-1]
    assert result.started_at_examples == 24
    assert result.validation_loss == pytest.approx(losses[40], rel=EXACT)
