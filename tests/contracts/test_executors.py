"""What every executor promises."""

import os
import sys
from dataclasses import dataclass

import pytest

from marslora import executors
from marslora.core import plugins
from marslora.core.errors import ConfigError, MissingDependencyError
from marslora.core.packs import WORKER
from marslora.core.runs import Failure, Observation, spec_id
from marslora.executors import AbstractExecutor
from marslora.executors.inline import Inline
from marslora.executors.processes import Processes
from marslora.run_options import ExecutorOptions
from marslora.testing import ExecutorContract
from marslora.testing.executors_contract import double, specs

HERE = "tests.contracts.test_executors"
PACKAGES = {"ray": "ray", "slurm": "submitit"}
"""The packages of extras that executors need."""


def tell_place(spec, emit):
    emit(Observation(member=spec.name, examples=int(os.environ[WORKER]), metric="m", value=0.0))


def die(spec, emit):
    if spec.name == "2":
        os._exit(9)
    double(spec, emit)


class Counting(Inline):
    """An executor of a user's own, with an option."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Inline.Config):
        limit: int = 1


class TestExecutor(ExecutorContract):
    """Every plugin of the folder."""

    @pytest.fixture(
        params=[
            pytest.param(name, marks=pytest.mark.slow if name in PACKAGES else ()) for name in plugins.names(executors)
        ]
    )
    def executor(self, request):
        if package := PACKAGES.get(request.param):
            pytest.importorskip(package, reason=f"needs the extra {request.param}")
        return plugins.load(executors, request.param, AbstractExecutor)()


def test_an_executor_from_elsewhere_is_named():
    options = ExecutorOptions.parse({"executor": f"{HERE}:Counting:limit=3", "workers": 0})
    executor = options.make_executor()
    assert isinstance(executor, Counting) and executor.config.limit == 3
    with pytest.raises(ConfigError, match="`num_workers` of Processes must be a whole number of at least 1, found 0"):
        ExecutorOptions.parse({"executor": "processes:num_workers=0"}).make_executor()


@pytest.mark.parametrize("name", PACKAGES)
def test_an_extra_that_is_missing_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'marslora\[{name}\]'"):
        ExecutorOptions.parse({"executor": name}).make_executor()


@pytest.mark.parametrize(("workers", "name"), [(0, "Inline"), (3, "Processes")])
def test_the_default_executor_follows_from_the_number_of_workers(workers, name):
    executor = ExecutorOptions(workers=workers).make_executor()
    assert (type(executor).__name__, executor.num_workers) == (name, workers or 1)


def test_a_process_that_dies_costs_one_spec():
    seen = []
    Processes(num_workers=2).run(f"{HERE}:die", specs(4), seen.append)
    (failure,) = [e for e in seen if isinstance(e, Failure)]
    assert "code 9" in failure.message and failure.id == spec_id(specs(4)[2])
    assert sorted(e.member for e in seen if isinstance(e, Observation)) == ["0", "1", "3"]


def test_workers_are_numbered():
    seen = []
    Processes(num_workers=2).run(f"{HERE}:tell_place", specs(3), seen.append)
    assert len(seen) == 3 and {event.examples for event in seen} == {0, 1}


@pytest.mark.parametrize("executor", ["inline", "processes:num_workers=2", Inline()])
def test_workers_that_an_executor_would_ignore_are_refused(executor):
    with pytest.raises(ConfigError, match="`workers`"):
        ExecutorOptions(workers=2, executor=executor).make_executor()
