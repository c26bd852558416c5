"""What every executor promises."""

import os
from dataclasses import dataclass

import pytest

from marslora import executors
from marslora.core import plugins
from marslora.core.errors import ConfigError, DataError, StudyError
from marslora.core.packs import WORKER
from marslora.core.runs import Failure, Observation, ProgressEvent, spec_id
from marslora.core.spec import PluginSpec
from marslora.executors import AbstractExecutor
from marslora.executors.inline import Inline
from marslora.executors.processes import Processes
from marslora.run_options import ExecutorOptions

HERE = "tests.contracts.test_executors"


def double(spec, emit):
    emit(Observation(member=spec.name, examples=2 * spec.options["n"], metric="m", value=0.0))


def refuse(spec, emit):
    raise DataError(f"row of {spec.name} is bad")


def tell_place(spec, emit):
    emit(Observation(member=spec.name, examples=int(os.environ[WORKER]), metric="m", value=0.0))


def die(spec, emit):
    if spec.name == "2":
        os._exit(9)
    double(spec, emit)


def double_slowly(spec, emit):
    emit(ProgressEvent(task=spec.name, done=1, total=2))
    double(spec, emit)


def fail(spec, emit):
    emit(Failure.of(spec, DataError("no rows")))


def do_nothing(spec, emit):
    pass


class Counting(Inline):
    """An executor of a user's own, with an option."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Inline.Config):
        limit: int = 1


@pytest.fixture(params=plugins.names(executors))
def executor(request):
    return plugins.load(executors, request.param, AbstractExecutor).of({})


def specs(count):
    return [PluginSpec(name=str(n), options={"n": n}) for n in range(count)]


def test_each_spec_runs_once(executor):
    seen = []
    executor.run(f"{HERE}:double", specs(5), seen.append)
    assert sorted((e.member, e.examples) for e in seen) == [(str(n), 2 * n) for n in range(5)]


def test_a_users_error_comes_back_as_it_is(executor):
    with pytest.raises(DataError, match="row of 0 is bad"):
        executor.run(f"{HERE}:refuse", specs(1), lambda _: None)


def test_an_unknown_function_is_named(executor):
    with pytest.raises(ConfigError, match="does not name a function"):
        executor.run(f"{HERE}:nothing", specs(1), lambda _: None)


def test_one_answer_is_returned_with_the_progress_before_it(executor):
    steps = []
    answer = executor.ask(f"{HERE}:double_slowly", specs(2)[1], Observation, steps.append)
    assert (answer.examples, [step.task for step in steps]) == (2, ["1"])


def test_a_failure_is_raised_by_whoever_asks(executor):
    with pytest.raises(DataError, match="no rows"):
        executor.ask(f"{HERE}:fail", specs(1)[0], Observation)


def test_work_without_an_answer_is_an_error(executor):
    with pytest.raises(StudyError, match="ended without a Observation"):
        executor.ask(f"{HERE}:do_nothing", specs(1)[0], Observation)


def test_an_unknown_option_is_refused(executor):
    with pytest.raises(ConfigError, match=r"has no option \['colour'\]"):
        type(executor).of({"colour": "red"})


def test_an_executor_from_elsewhere_is_named():
    options = ExecutorOptions.parse({"executor": f"{HERE}:Counting:limit=3", "workers": 0})
    executor = options.make_executor()
    assert isinstance(executor, Counting) and executor.config.limit == 3
    with pytest.raises(ConfigError, match="`num_workers` must be at least 1, found 0"):
        ExecutorOptions.parse({"executor": "processes:num_workers=0"}).make_executor()


@pytest.mark.parametrize(("workers", "name"), [(0, "Inline"), (3, "Processes")])
def test_the_default_executor_follows_from_the_number_of_workers(workers, name):
    executor = ExecutorOptions(workers=workers).make_executor()
    assert (type(executor).__name__, executor.num_workers) == (name, workers or 1)


def test_a_process_that_dies_costs_one_spec():
    seen = []
    Processes.of({"num_workers": 2}).run(f"{HERE}:die", specs(4), seen.append)
    (failure,) = [e for e in seen if isinstance(e, Failure)]
    assert "code 9" in failure.message and failure.id == spec_id(specs(4)[2])
    assert sorted(e.member for e in seen if isinstance(e, Observation)) == ["0", "1", "3"]


def test_workers_are_numbered():
    seen = []
    Processes.of({"num_workers": 2}).run(f"{HERE}:tell_place", specs(3), seen.append)
    assert len(seen) == 3 and {event.examples for event in seen} == {0, 1}
