"""Parts that no gradient reaches are no choice: rows of text alone search no ranks of the vision tower."""

import json

import pytest

import marslora
from marslora.comparison.matching import make_allocation
from marslora.core.allocation import Allocation, Space
from marslora.core.errors import ConfigError
from marslora.core.spec import DataSpec, ModelSpec
from marslora.data.rows import load_encoded_splits
from marslora.data.splits import register_rows
from marslora.demo.model import embedded_folder
from marslora.models.loading import load_processor
from tests.helpers.fake_training import INFO
from tests.unit.data.conftest import picture

BLIND = INFO.model_copy(
    update={
        "parts": tuple(
            part.model_copy(
                update={"reached": part.name == "language"}
                | (
                    {}
                    if part.name == "language"
                    else {"linears": tuple(each.model_copy(update={"dead": True}) for each in part.linears)}
                )
            )
            for part in INFO.parts
        )
    }
)
"""A model of which only the language model can learn."""


def text_row(number):
    question = {"role": "user", "content": f"what comes after {number} ?"}
    return {"messages": [question, {"role": "assistant", "content": f"{number + 1}"}]}


def picture_row(number):
    content = [{"type": "image"}, {"type": "text", "text": "what ?"}]
    answer = {"role": "assistant", "content": f"red {number}"}
    return {"messages": [{"role": "user", "content": content}, answer], "images": [picture(number)]}


@pytest.fixture(scope="module")
def decision(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "rows.jsonl").write_text("".join(json.dumps(text_row(number)) + "\n" for number in range(64)))
    return marslora.search(
        model=embedded_folder(),
        train=folder / "rows.jsonl",
        ranks={"vision": (2, 8), "language": (2, 8)},
        full=("projector",),
        learning_rate=1e-3,
        epochs=1,
        study=folder / "study",
    )


def test_rows_of_text_search_no_ranks_of_the_tower(decision):
    assert {each.allocation for each in decision.record.candidates} == {
        Allocation.of(vision=0, language=2),
        Allocation.of(vision=0, language=8),
    }
    runs = json.loads((decision.folder / "plan" / "round-01.json").read_text())
    members = [member["allocation"] for pack in runs for member in pack["members"]]
    assert len(members) <= 2 and all(member["vision"] == 0 for member in members)


def test_cost_exports_and_adapter_have_the_language_model_alone(decision):
    language = decision.info.part("language").num_trainable(decision.chosen["language"])
    assert decision.final.num_trainable == decision.record.chosen_candidate.num_trainable == language
    settings = decision.lora_settings()
    assert "vision" not in settings["target_modules"] and settings["modules_to_save"] is None
    exported = [
        path.read_text() for path in (decision.folder / "exports").rglob("*") if path.suffix in (".yaml", ".py")
    ]
    assert exported and not any("multi_modal_projector" in text or "vision_tower\\" in text for text in exported)


def test_the_verdict_and_the_page_say_so(decision):
    said = "No gradient reaches vision and projector on these rows, so they are neither searched nor trained."
    assert said in str(decision)
    page = decision.report.read_text()
    assert said in page and "no gradient reaches it" in page


def test_a_picture_far_behind_is_seen_by_the_probe(tmp_path):
    rows = [*(text_row(number) for number in range(9)), picture_row(9), picture_row(10)]
    name = register_rows("late picture", rows)
    processor = load_processor(ModelSpec(path=str(embedded_folder())))
    encoded = load_encoded_splits(DataSpec(train=(name,), validation=(name,)), processor, str(tmp_path)).train
    assert encoded.pick_varied(4) == [0, 1, 2, 9]
    assert encoded.pick_varied(1) == [9]
    assert encoded.pick_varied(99) == list(range(11))
    info = marslora.inspect(model=embedded_folder(), train=rows)
    assert info.part("vision").reached and info.unreached == ()
    assert marslora.inspect(model=embedded_folder(), train=rows[:9]).unreached == ("vision", "projector")


def test_spaces_and_counts_leave_unreached_parts_out():
    space = Space.of({"vision": (0, 4), "projector": (4,), "language": (4, 8)})
    assert BLIND.leave_unreached(space) == Space.of({"vision": (0,), "projector": (0,), "language": (4, 8)})
    assert INFO.leave_unreached(space) == space
    with pytest.raises(ConfigError, match=r"No gradient reaches vision, projector, so nothing is left to train"):
        BLIND.leave_unreached(Space.of({"vision": (4, 8), "language": (0,)}))
    assert BLIND.num_trainable(Allocation.of(language=4), ("projector",)) == BLIND.part("language").num_trainable(4)
    assert make_allocation(4, BLIND) == Allocation.of(vision=0, projector=0, language=4)
    assert BLIND.describe_unreached(["language"]) == INFO.describe_unreached(["vision"]) == ""
