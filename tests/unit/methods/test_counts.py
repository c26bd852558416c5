"""Trained parameters on the shapes of LLaVA-1.5-7B, on the meta device; routers count."""

import pytest
import torch
from torch import nn

from marslora.methods import AdapterPlan
from marslora.methods.asymlora import AsymLora
from marslora.methods.geolora import GeoLora
from marslora.methods.hydralora import HydraLora
from marslora.methods.llava_mole import LlavaMole
from marslora.methods.moka import Moka
from marslora.methods.pissa import Pissa

WIDTH, INNER, LAYERS = 4096, 11008, 32
ATTENTION = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (WIDTH, WIDTH))
MLP = {"gate_proj": (WIDTH, INNER), "up_proj": (WIDTH, INNER), "down_proj": (INNER, WIDTH)}
SHAPES = {f"self_attn.{name}": shape for name, shape in ATTENTION.items()} | {f"mlp.{n}": s for n, s in MLP.items()}


def plan_and_sizes(rank, layers=LAYERS, **more):
    sizes = {f"layers.{i}.{name}": shape for i in range(layers) for name, shape in SHAPES.items()}
    return AdapterPlan(ranks=dict.fromkeys(sizes, rank), parts=dict.fromkeys(sizes, "language"), **more), sizes


@pytest.mark.parametrize(
    ("method", "millions"),
    [(Pissa(), 80.0), (AsymLora(form="mixture"), 133.8), (LlavaMole(), 173.1)],
    ids=["lora", "asymlora", "llava_mole"],
)
def test_the_published_sizes_at_rank_32(method, millions):
    plan, sizes = plan_and_sizes(32)
    assert round(method.count(sizes, plan) / 1e6, 1) == millions


def test_moka_of_the_visual_text_release_and_with_sound():
    for modalities, millions in ((("text", "image"), 14.6), (("text", "image", "audio"), 19.1)):
        plan, sizes = plan_and_sizes(4, modalities=modalities)
        assert Moka().count(sizes, plan) / 1e6 == pytest.approx(millions, abs=0.06)


def test_hydralora_counts_its_routers():
    plan, sizes = plan_and_sizes(8, tasks=())
    routers = 4 * sum(inputs for inputs, _ in sizes.values())
    lora = sum(8 * (inputs + 4 * outputs) for inputs, outputs in sizes.values())
    assert HydraLora().count(sizes, plan) == lora + routers


def layered(layers):
    """One decoder layer's linears, `layers` times, on the meta device."""
    model = nn.Module()
    with torch.device("meta"):
        model.layers = nn.ModuleList(nn.Module() for _ in range(layers))
        for layer in model.layers:
            layer.self_attn = nn.ModuleDict({n: nn.Linear(*s, bias=False) for n, s in ATTENTION.items()})
            layer.mlp = nn.ModuleDict({n: nn.Linear(*s, bias=False) for n, s in MLP.items()})
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    "method",
    [AsymLora(form="mixture"), AsymLora(), LlavaMole(), HydraLora(), GeoLora()],
    ids=lambda m: type(m).__name__,
)
def test_what_is_built_on_the_meta_device_is_what_is_counted(method):
    plan, sizes = plan_and_sizes(4, layers=1, tasks=("a", "b"))
    change = method.apply(layered(1), plan)
    assert change.num_trainable() == method.count(sizes, plan)
    assert all(one.parameter.device.type == "meta" for one in change.trainables())
