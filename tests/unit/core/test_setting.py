import pytest

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.setting import Setting
from marslora.core.spec import MemberSpec, TrainingSpec

RANKS = Allocation.of(vision=4, language=16)
OWN = Setting(allocation=RANKS, learning_rate=1e-3, part_learning_rates=(("vision", 5e-4),))


def member(**more):
    return MemberSpec(id="m", allocation=RANKS, data_examples=8, until_examples=8, **more)


def test_a_part_has_its_own_rate_or_that_of_all():
    assert (OWN.rate_of("vision"), OWN.rate_of("language")) == (5e-4, 1e-3)
    assert Setting(allocation=RANKS).rate_of("vision") is None


def test_it_is_said_with_its_rates():
    assert str(Setting(allocation=RANKS)) == "vision=4 language=16"
    assert str(OWN) == "vision=4 language=16, learning rate 0.001, vision rate 0.0005"


def test_settings_that_differ_in_a_rate_are_different():
    others = [Setting(allocation=RANKS), Setting(allocation=RANKS, learning_rate=1e-3), OWN]
    assert len({*others, Setting.parse(OWN.model_dump(mode="json"))}) == 3
    for wrong in (0, -1e-3, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="learning_rate"):
            Setting.parse({"allocation": RANKS, "learning_rate": wrong})


def test_rates_of_parts_can_be_given_as_a_mapping():
    assert Setting.parse({"allocation": RANKS, "learning_rate": 1e-3, "part_learning_rates": {"vision": 5e-4}}) == OWN


def test_a_member_trains_its_setting():
    own = member(learning_rate=1e-3, part_learning_rates={"vision": 5e-4})
    assert own.setting == OWN
    assert hash(own) == hash(own.model_copy()) and own != member()


def test_the_rate_of_a_part_overrides_that_of_the_member_and_of_the_training():
    training = TrainingSpec(learning_rate=2e-3, part_learning_rates={"vision": 1e-3})
    assert member().rate_of("vision", training) == 1e-3
    fast = member(learning_rate=4e-3)
    assert (fast.rate_of("vision", training), fast.rate_of("language", training)) == (1e-3, 4e-3)
    own = member(learning_rate=4e-3, part_learning_rates={"vision": 7e-3})
    assert (own.rate_of("vision", training), own.rate_of("language", training)) == (7e-3, 4e-3)


def test_a_decision_finds_the_candidate_of_a_setting():
    plain = Candidate(allocation=RANKS, learning_rate=1e-3, status="dropped", reason="at one rate")
    chosen = Candidate(
        allocation=RANKS,
        learning_rate=1e-3,
        part_learning_rates={"vision": 5e-4},
        status="chosen",
        reason="at two rates",
    )
    decision = DecisionRecord(
        strategy="s",
        chosen=RANKS,
        learning_rate=1e-3,
        part_learning_rates={"vision": 5e-4},
        verdict="clear",
        summary="",
        candidates=(plain, chosen),
        plausible=(OWN,),
    )
    assert decision.setting == OWN and decision.chosen_candidate is chosen
    assert decision.candidate(plain.setting) is plain
    assert DecisionRecord.model_validate_json(decision.to_json()) == decision
