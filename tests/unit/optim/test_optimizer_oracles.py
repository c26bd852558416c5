"""Other libraries' optimizers, where installed, with what they are known to do differently."""

import pytest
import torch

from marslora.optim.mars_adamw import MarsAdamW
from marslora.optim.mars_lion import MarsLion
from marslora.optim.mars_shampoo import MarsShampoo
from marslora.optim.moonlight import Moonlight
from marslora.optim.muon import Muon

SHAPES, STEPS = [(6, 10), (10, 6), (8, 8), (4, 40)], 20


def displacement_gap(ours, theirs, size=3.0, dtype=torch.float32):
    """Largest distance between two optimizers' ends, relative to the way they went."""
    torch.manual_seed(0)
    starts = [torch.randn(shape, dtype=dtype) for shape in SHAPES]
    grads = [[size * torch.randn(shape, dtype=dtype) for shape in SHAPES] for _ in range(STEPS)]
    ends = []
    for build in (ours, theirs):
        params = [torch.nn.Parameter(start.clone()) for start in starts]
        optimizer = build(params)
        for row in grads:
            for param, grad in zip(params, row, strict=True):
                param.grad = grad.clone()
            optimizer.step()
        ends.append([param.detach() for param in params])
    return max(((a - b).norm() / (a - s).norm()).item() for a, b, s in zip(*ends, starts, strict=True))


@pytest.mark.parametrize(
    ("ours", "adjust", "nesterov"),
    [(Moonlight, "match_rms_adamw", True), (Muon, "original", True), (Muon, None, False)],
)
def test_torch_muon(ours, adjust, nesterov):
    """torch evaluates Newton-Schulz in bfloat16: the ends agree to its rounding, not better."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch.optim.Muon came with torch 2.9")
    gap = displacement_gap(
        lambda p: ours(p, 0.01, nesterov=nesterov, weight_decay=0.1),
        lambda p: torch.optim.Muon(p, 0.01, nesterov=nesterov, weight_decay=0.1, adjust_lr_fn=adjust),
    )
    assert gap < 0.05


def test_torch_muon_in_the_same_precision():
    gap = displacement_gap(
        lambda p: Moonlight(p, 0.01, ns_dtype="bfloat16"),
        lambda p: torch.optim.Muon(p, 0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    )
    assert gap < 0.03


@pytest.mark.parametrize(("ours", "name"), [(MarsAdamW, "adamw"), (MarsLion, "lion")])
def test_timm_mars(ours, name):
    """timm starts with c = g, the paper's first step, and adds eps as torch does."""
    timm = pytest.importorskip("timm.optim")
    gap = displacement_gap(
        lambda p: ours(p, 0.01, momentum=0.95),
        lambda p: timm.Mars(p, 0.01, betas=(0.95, 0.99), mars_type=name, gamma=0.025, weight_decay=0.0),
    )
    assert gap < 1e-5


@pytest.mark.parametrize(
    ("ours", "name", "limit"), [(MarsAdamW, "adamw", 1e-3), (MarsLion, "lion", 1e-5), (MarsShampoo, "shampoo", 0.05)]
)
def test_pytorch_optimizer_mars(ours, name, limit):
    """pytorch-optimizer starts with L = 0, adds eps before the correction and has bfloat16 in Newton-Schulz."""
    library = pytest.importorskip("pytorch_optimizer")
    gap = displacement_gap(
        lambda p: ours(p, 0.01, first_step="reference"),
        lambda p: library.MARS(p, 0.01, betas=(0.95, 0.99), mars_type=name, gamma=0.025, weight_decay=0.0),
    )
    assert gap < limit


def test_timm_muon():
    """With the same coefficients at every step and `use_muon`, timm's Muon is Moonlight in bfloat16."""
    timm = pytest.importorskip("timm.optim")
    options = {"ns_coefficients": (3.4445, -4.7750, 2.0315), "adjust_lr_fn": "match_rms_adamw", "nesterov": True}
    gap = displacement_gap(
        lambda p: Moonlight(p, 0.01, ns_dtype="bfloat16"),
        lambda p: timm.Muon([{"params": p, "use_muon": True}], 0.01, **options),
    )
    assert gap < 0.05


def test_timm_muon_leaves_thin_factors_to_adamw():
    """A factor of rank 8 on 4096 inputs: timm's first step is AdamW's, every number by the learning rate."""
    timm = pytest.importorskip("timm.optim")
    sizes = []
    for build in (timm.Muon, Moonlight):
        torch.manual_seed(0)
        param = torch.nn.Parameter(torch.zeros(8, 4096))
        param.grad = torch.randn(8, 4096)
        build([param], lr=0.01).step()
        sizes.append(param.detach().abs())
    torch.testing.assert_close(sizes[0], torch.full((8, 4096), 0.01), rtol=1e-3, atol=0)
    assert sizes[1].max() > 2 * sizes[1].mean()


def test_pytorch_optimizer_muon():
    """The same steps up to bfloat16; but it leaves its momentum in `.grad`, which ours never touches."""
    library = pytest.importorskip("pytorch_optimizer")
    gap = displacement_gap(
        lambda p: Muon(p, 0.01, ns_dtype="bfloat16"),
        lambda p: library.Muon([{"params": p, "use_muon": True}], 0.01),
    )
    assert gap < 0.05
