"""Allocations, spaces and records."""

import pickle

import hypothesis.strategies as st
import pytest
from hypothesis import given

from marslora import gradients, optim
from marslora.core import errors, plugins
from marslora.core.allocation import Allocation, Space
from marslora.core.errors import ConfigError
from marslora.core.parts import LinearInfo, ModelInfo, PartInfo
from marslora.core.seeds import derive
from marslora.core.spec import DataSpec, StudySpec, TrainingSpec

ranks = st.dictionaries(st.sampled_from(["vision", "audio", "projector", "language"]), st.integers(0, 4096), min_size=1)
ladders = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.sets(st.integers(0, 64), min_size=1, max_size=4).map(sorted), min_size=1
)


@given(ranks)
def test_an_allocation_survives_json_and_pickle(mapping):
    allocation = Allocation.of(mapping)
    assert Allocation.model_validate_json(allocation.to_json()) == allocation
    assert pickle.loads(pickle.dumps(allocation)) == allocation
    assert hash(Allocation.of(mapping)) == hash(allocation)
    assert allocation.as_dict() == mapping


@given(ladders)
def test_a_space_lists_every_allocation_once(mapping):
    space = Space.of({part: tuple(ladder) for part, ladder in mapping.items()})
    found = list(space.allocations())
    assert len(found) == len(set(found)) == len(space)
    assert Space.model_validate_json(space.to_json()) == space


@pytest.mark.parametrize(
    ("ladder", "message"), [([8, 2], "increasing"), ([], "increasing"), ([2, 2], "increasing"), ([-1, 2], "between 0")]
)
def test_a_wrong_ladder_is_named(ladder, message):
    with pytest.raises(ConfigError, match=f"vision.*{message}|{message}.*vision|of `vision` must lie {message}"):
        Space.parse({"vision": ladder})


def test_an_unknown_field_is_named():
    with pytest.raises(ConfigError, match=r"`training\.learning_rat`"):
        StudySpec.parse(
            {
                "model": {"path": "m"},
                "data": {"train": ["a"]},
                "space": {"v": [1, 2]},
                "training": {"learning_rat": 1},
            }
        )


def test_any_change_changes_the_digest():
    base = {"model": {"path": "m"}, "data": {"train": ["a"]}, "space": {"v": [1, 2]}}
    digests = {
        StudySpec.parse({**base, **change}).digest()
        for change in ({}, {"space": {"v": [1, 3]}}, {"training": {"epochs": 4}}, {"search": {"seed": 1}})
    }
    assert len(digests) == 4


def test_trainable_parameters_are_counted_without_dead_layers():
    part = PartInfo(
        name="vision",
        paths=("v",),
        num_parameters=100,
        linears=(LinearInfo(name="v.a", inputs=3, outputs=5), LinearInfo(name="v.b", inputs=7, outputs=7, dead=True)),
    )
    info = ModelInfo(architecture="X", modalities=("image",), num_parameters=100, parts=(part,))
    assert info.num_trainable(Allocation.of(vision=4)) == 4 * 8
    outputs = info.part("vision").alive[0].outputs
    assert info.num_trainable(Allocation.of(vision=4), use_dora=True) == 4 * 8 + outputs
    assert info.num_trainable(Allocation.of(vision=0), use_dora=True) == 0
    assert info.num_trainable(Allocation.of(vision=4), full=("vision",)) == 100
    assert info.module_ranks(Allocation.of(vision=4)) == {"v.a": 4}
    with pytest.raises(ConfigError, match="`audio` is not a part of X"):
        info.num_trainable(Allocation.of(audio=2))


def test_streams_of_a_seed_do_not_depend_on_each_other():
    assert derive(0, "a", 1) == derive(0, "a", 1)
    assert len({derive(s, n) for s in range(10) for n in "abc"}) == 30


def test_errors_cross_processes():
    for name in ("ConfigError", "DataError", "ModelError", "StudyError", "MissingDependencyError"):
        error = getattr(errors, name)("what, where, how")
        assert str(pickle.loads(pickle.dumps(error))) == "what, where, how"


def test_an_unknown_kind_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"plugin in marslora.optim\. Did you mean `adamw` or .* Name one of \["):
        plugins.load(optim, "adamww", object)
    with pytest.raises(ConfigError, match="cannot be imported"):
        plugins.load(optim, "nowhere:Thing", object)


def test_kinds_are_listed_without_being_imported():
    room = plugins.find_package("gradients")
    assert plugins.names(room) == plugins.names(gradients)
    assert all(plugins.summary(room, name).endswith(".") for name in plugins.names(room))


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": float("inf")},
        {"epochs": float("inf")},
        {"part_learning_rates": {"vision": -1e-4}},
        {"part_learning_rates": {"vision": float("nan")}},
    ],
)
def test_rates_and_lengths_are_numbers_above_0(values):
    with pytest.raises(ConfigError, match=f"`{next(iter(values))}"):
        TrainingSpec.parse(values)


def test_one_data_file_needs_no_list():
    assert DataSpec.parse({"train": "a.jsonl", "test": "b.jsonl"}) == DataSpec(train=("a.jsonl",), test=("b.jsonl",))


def test_what_was_found_is_said_once():
    with pytest.raises(ConfigError) as wrong:
        Space.parse({"vision": [8, 2]}, "`ranks`")
    assert (
        str(wrong.value) == "`ranks`: the ladder of `vision` must hold increasing ranks without repeats, found [8, 2]"
    )
    for ladder in ("4,16", 16, [4, "a"]):
        with pytest.raises(
            ConfigError, match=r"^`ranks`: the ladder of `vision` must be a list of whole numbers such as"
        ):
            Space.parse({"vision": ladder}, "`ranks`")
