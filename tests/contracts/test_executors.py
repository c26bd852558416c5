"""What every executor promises."""

import os

import pytest

from marslora import executors
from marslora.core import plugins
from marslora.core.errors import ConfigError, DataError
from marslora.core.packs import WORKER
from marslora.core.runs import Failure, Observation
from marslora.core.spec import PluginSpec
from marslora.executors import AbstractExecutor
from marslora.executors.processes import Processes

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


@pytest.fixture(params=plugins.names(executors))
def executor(request):
    return plugins.load(executors, request.param, AbstractExecutor)()


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
    with pytest.raises(ConfigError, match="names no function"):
        executor.run(f"{HERE}:nothing", specs(1), lambda _: None)


def test_a_process_that_dies_costs_one_spec():
    seen = []
    Processes(num_workers=2).run(f"{HERE}:die", specs(4), seen.append)
    (failure,) = [e for e in seen if isinstance(e, Failure)]
    assert "code 9" in failure.message
    assert sorted(e.member for e in seen if isinstance(e, Observation)) == ["0", "1", "3"]


def test_workers_are_numbered():
    seen = []
    Processes(num_workers=2).run(f"{HERE}:tell_place", specs(3), seen.append)
    assert len(seen) == 3 and {event.examples for event in seen} == {0, 1}
