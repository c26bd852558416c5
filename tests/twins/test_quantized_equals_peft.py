"""Packs on a base in 4 or 8 bits, against PEFT on the same base.

What they train is compared by gradients: quantised layers have no float64, and Adam divides tiny gradients by their own
size, so that weights after several steps differ by more than rounding.
"""

import pytest
import torch

from marslora.core.linears import is_quantized
from marslora.engine.outliers import separate_members
from tests.helpers.quantized_base import quantized_base
from tests.twins.worlds import alone_gradients, member, packed_gradients, train_packed, varied

pytest.importorskip("bitsandbytes", reason="needs marslora[quantize]")

ARCHITECTURES = ("llava", "qwen2_5_vl", "qwen2_audio")
RANKS = (1, 8, 2)
"""So different that products are computed member by member."""


def assert_gradients_equal_peft(base, *batches):
    specs = [member(base, rank, seed=rank) for rank in RANKS]
    weights, packed = packed_gradients(base, specs, *batches)
    for spec, own, gradients in zip(specs, weights, packed, strict=True):
        alone = alone_gradients(base, spec, own, *batches)
        assert gradients.keys() == alone.keys()
        size = max(float(gradient.norm()) for gradient in alone.values())
        for key, gradient in gradients.items():
            assert float((gradient - alone[key]).norm()) <= 1e-5 * size, key


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("method", "adapter"), [("nf4", "lora"), ("nf4", "lora:use_dora=true"), ("int8", "lora")])
def test_a_pack_on_a_quantised_base_has_the_gradients_of_peft(tmp_path, name, method, adapter):
    base, batch = quantized_base(tmp_path, name, method, adapter=adapter)
    for part in base.info.parts:
        kinds = {is_quantized(base.model.get_submodule(linear.name)) for linear in part.linears}
        assert kinds <= {part.name == "language"}
    assert not is_quantized(base.model.get_output_embeddings())
    assert_gradients_equal_peft(base, *varied(batch, 1, 2)[0])


def test_outliers_of_one_member_do_not_reach_another(tmp_path):
    base, batch = quantized_base(tmp_path, "llava", "int8")
    base.model.get_input_embeddings().weight.data[:, 0] *= 40  # an outlier in the rows of all
    specs = [member(base, rank, seed=rank, learning_rate=2.0**-3) for rank in RANKS]
    steps = varied(batch, 3)
    _, together = train_packed(base, specs, steps)
    for place, spec in enumerate(specs):
        _, alone = train_packed(base, [spec], steps)
        torch.testing.assert_close(together[:, place], alone[:, 0], rtol=1e-5, atol=1e-6)


def test_each_member_has_its_own_outliers():
    """Without separation, an outlier in the rows of the second member changes the rounding of the first."""
    import bitsandbytes

    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear8bitLt(64, 64, has_fp16_weights=False, threshold=6.0).to("cpu")
    layer.weight = bitsandbytes.nn.Int8Params(torch.randn(64, 64), requires_grad=False).to("cpu")
    layer.eval()
    rows = torch.randn(4, 3, 64)
    rows[2:, :, 5] = 30.0
    alone = layer(rows[:2])
    assert not torch.equal(layer(rows)[:2], alone)
    with separate_members(layer, 2):
        assert torch.equal(layer(rows)[:2], alone)
    assert not torch.equal(layer(rows)[:2], alone)
