"""What a user leaves open becomes numbers once the model is known."""

import pytest

from marslora import settings
from marslora.core.errors import ConfigError
from marslora.settings import make_spec, read_search
from tests.helpers.fake_training import INFO

WIDE = INFO.model_copy(update={"width": 1024})
LADDER = (1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3)


@pytest.fixture(autouse=True)
def _model(monkeypatch):
    monkeypatch.setattr(settings, "describe_model", lambda _: WIDE)
    monkeypatch.setattr(settings, "check_sources", lambda _: None)


def specify(**options):
    return make_spec(read_search({"model": "m", "train": "a.jsonl", **options}, None, "keyword")[0])


def test_by_default_the_learning_rate_is_searched_around_what_suits_the_model():
    spec = specify()
    assert (spec.learning_rates, spec.training.learning_rate, spec.part_rate_factors) == (LADDER, 6e-4, {})
    assert specify(learning_rate="auto") == spec
    assert specify(alpha_over_rank=8).training.learning_rate == 3e-4
    assert specify(optimizer="mars_adamw").learning_rates == LADDER


def test_other_optimizers_are_centred_on_the_rate_of_their_recipe_or_on_the_usual_one():
    assert specify(optimizer="moonlight").training.learning_rate == 5e-4
    assert specify(optimizer="muon").training.learning_rate == 2e-4
    assert len(specify(optimizer="muon").learning_rates) == 5


def test_a_number_is_fixed_and_a_ladder_is_searched():
    assert specify(learning_rate=1e-3).learning_rates == ()
    assert specify(learning_rate=1e-3).training.learning_rate == 1e-3
    spec = specify(learning_rate="5e-4,1e-3,4e-3,8e-3")
    assert (spec.learning_rates, spec.training.learning_rate) == ((5e-4, 1e-3, 4e-3, 8e-3), 4e-3)


def test_rates_of_parts_are_fixed_or_searched():
    spec = specify(part_learning_rates={"vision": "auto", "projector": 1e-5})
    assert spec.part_rate_factors == {"vision": (1 / 3, 1.0, 3.0)}
    assert spec.training.part_learning_rates == {"projector": 1e-5}
    assert specify(learning_rate=1e-3, part_learning_rates="vision=auto").learning_rates == (1e-3,)
    assert spec.training.rate_of("projector", 2e-3) == 1e-5 and spec.training.rate_of("vision", 2e-3) == 2e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part_learning_rates": "ears=auto"}, "`ears` is not a part of FakeLlava"),
        ({"part_learning_rates": "projector=auto", "full": "projector"}, "found projector trained whole"),
        (
            {"part_learning_rates": "vision=auto", "ranks": {"vision": 0}},
            "found vision without. Give its learning rate",
        ),
    ],
)
def test_only_parts_with_ranks_have_a_learning_rate_to_search(options, message):
    with pytest.raises(ConfigError, match=message):
        specify(**options)


def test_towers_may_be_left_as_they_are_unless_ranks_are_named():
    assert specify().space.model_dump() == {"vision": [0, 4, 16, 64], "projector": [16], "language": [4, 16, 64]}
    assert specify(max_rank=16).space.ladder("vision") == (0, 4, 16)
    assert specify(ranks={"language": 8}).space.ladder("vision") == (0, 4, 16, 64)
    assert specify(ranks={"vision": [8, 32]}).space.model_dump() == {
        "vision": [8, 32],
        "projector": [16],
        "language": [4, 16, 64],
    }
    assert specify(ranks="4,16,64").space.ladder("vision") == (4, 16, 64)
