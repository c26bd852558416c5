"""What every method of the final run promises, run over the whole folder, and over packed adapters in the final run."""

import math

import pytest
import torch

from marslora import adapters, methods
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.core.spec import MemberSpec, PluginSpec, TrainingSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.methods import make_method
from marslora.models.discovery import discover
from marslora.testing import MethodContract
from marslora.testing.methods_contract import train
from tests.helpers.tiny_models import TINY
from tests.unit.methods.worlds import world

METHODS = plugins.names(methods)
VARIANTS = [
    *METHODS,
    *plugins.names(adapters),
    "lora:use_dora=true",
    "tests.helpers.outside_adapter:GainedLora",
    "asymlora:form=mixture",
    r"asymlora:heads_in=\.mlp\.",
    "mola:balance=switch",
    "geolora:keep_budget=false,cycles=2",
    "pissa:niter=0",
]
CALIBRATED = {"eva": {"use_label_mask": False}}
"""Options for tiny batches, whose answers have too few tokens to see directions in."""


def build_method(words):
    spec = PluginSpec.parse(words)
    return make_method(PluginSpec(name=spec.name, options={**CALIBRATED.get(spec.name, {}), **spec.options}))


class TestMethod(MethodContract):
    """Every plugin of both folders, some with other options, and a packed adapter from elsewhere."""

    @pytest.fixture(params=VARIANTS)
    def method(self, request):
        return build_method(request.param)


@pytest.mark.parametrize("name", METHODS)
def test_it_is_described_in_a_short_line(name):
    assert len(plugins.summary(methods, name)) < 120


@pytest.mark.parametrize("name", ["moka", "modality_lora", "asymlora:form=mixture", "hydralora"])
def test_what_does_not_merge_says_so(name):
    model, _, plan, _ = world(language=2)
    change = build_method(name).apply(model, plan)
    with pytest.raises(ConfigError, match=r"merged|must be run with its adapter"):
        change.low_ranks()


NEEDS_KINDS = ("modality_lora", "moka")
REFUSED = {(arch, name) for arch in ("mllama", "florence2") for name in NEEDS_KINDS}
"""Models in whose language part some linears read pictures, or the tokens of another stream."""


@pytest.mark.slow
@pytest.mark.parametrize("arch", TINY)
def test_it_trains_on_any_architecture(arch):
    model, batch, plan, _ = world(arch, probed=True)
    for name in METHODS:
        method = build_method(f"{name}:rho=1.0" if name == "eva" else name)
        rows = {**batch, "task_of_row": torch.tensor([1, 1])} if method.column else batch
        change = method.apply(model, plan, [batch])
        try:
            if (arch, name) in REFUSED:
                with pytest.raises(ConfigError, match="modality of tokens is unknown"):
                    change.model(**rows)
            else:
                assert math.isfinite(train(change, rows, 1)[0])
        finally:
            change.remove()


@pytest.mark.parametrize("name", METHODS)
def test_packs_refuse_it(name):
    model, _, _, _ = world(language=2)
    info = discover(model)
    base = Base(model, info, TrainingSpec(adapter=PluginSpec(name=name)), torch.device("cpu"), torch.float32)
    member = MemberSpec(id="m", allocation={"language": 2}, data_examples=2, until_examples=2)
    with pytest.raises(ConfigError, match=f"`{name}` is not a plugin in marslora.adapters"):
        Pack(base, [Member(member)])
