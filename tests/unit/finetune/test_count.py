"""What is counted from a configuration is what a run trains."""

import pytest

from marslora.core.allocation import Allocation
from marslora.core.comparison import MethodSpec, build_training
from marslora.core.runs import CountResult, Failure
from marslora.core.spec import CountSpec, DataSpec, FinalSpec, ModelSpec
from marslora.demo import task_files
from marslora.demo.model import embedded_folder
from marslora.finetune import comparison_tasks
from marslora.models.loading import describe
from marslora.recipes import find_recipe

MODEL = ModelSpec(path=str(embedded_folder()))
SOME, OTHERS = (
    ("asymlora", "adalora"),
    ("uniform", "dora", "hydralora", "llava_mole", "moka", "geolora", "eva", "pissa"),
)


def spec_of(recipe, folder, allocation, options=None):
    paths = task_files.write_task("small", folder, num_train=16, num_validation=4, num_test=4)
    info = describe(MODEL)
    return FinalSpec(
        model=MODEL,
        data=DataSpec(train=(str(paths["train"]),), validation=(str(paths["validation"]),)),
        training=build_training(
            find_recipe(recipe, options), MethodSpec(), {"batch_size": 4}, ("vision", "projector", "language")
        ),
        allocation=allocation,
        module_ranks=info.module_ranks(allocation),
        full_examples=16,
        output_folder=str(folder / "run"),
        cache_folder=str(folder / "cache"),
    )


@pytest.mark.parametrize("recipe", [*SOME, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_the_count_is_what_a_run_trains(recipe, tmp_path):
    allocation = Allocation.of(vision=4, projector=2, language=4)
    run, seen = spec_of(recipe, tmp_path, allocation), []
    asked = CountSpec(run=run, info=describe(MODEL), allocations=(allocation, Allocation.of(language=3)))
    comparison_tasks.count_parameters(asked, seen.append)
    comparison_tasks.count_row_flops(run, seen.append)
    counted, weighed = seen
    assert isinstance(weighed, CountResult), weighed
    moved = 0.1 if recipe == "eva" else 0.0  # ranks go to other linears, wide ones or narrow ones
    assert counted.num_trainable[0] == pytest.approx(weighed.num_trainable[0], rel=moved)
    assert counted.num_trainable[1] < counted.num_trainable[0]
    assert weighed.flops_per_row > 0


def test_what_cannot_be_done_is_a_failure_with_the_runs_id(tmp_path):
    allocation, seen = Allocation.of(language=4), []
    run = spec_of("asymlora", tmp_path, allocation, {"form": "task"})
    comparison_tasks.count_parameters(CountSpec(run=run, info=describe(MODEL), allocations=(allocation,)), seen.append)
    comparison_tasks.train(run, seen.append)
    assert [type(event) for event in seen] == [Failure, Failure]
    assert {event.id for event in seen} == {run.id}
    assert {event.error for event in seen} == {"DataError"}
