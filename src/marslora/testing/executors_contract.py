"""What every executor promises.

Subclass the class in a test file of your own and return your plugin from the fixture `executor`; pytest runs the rest.
"""

import pytest

from marslora.core.errors import ConfigError, DataError, StudyError
from marslora.core.runs import Failure, Observation, ProgressEvent
from marslora.core.spec import PluginSpec

HERE = __name__


def double(spec, emit):
    emit(Observation(member=spec.name, examples=2 * spec.options["n"], metric="m", value=0.0))


def refuse(spec, emit):
    raise DataError(f"row of {spec.name} is bad")


def double_slowly(spec, emit):
    emit(ProgressEvent(task=spec.name, done=1, total=2))
    double(spec, emit)


def fail(spec, emit):
    emit(Failure.of(spec, DataError("no rows")))


def do_nothing(spec, emit):
    pass


def specs(count):
    return [PluginSpec(name=str(n), options={"n": n}) for n in range(count)]


class ExecutorContract:
    """What every executor promises."""

    @pytest.fixture
    def executor(self):
        """Return an instance of the executor to check."""
        raise NotImplementedError("Define the fixture `executor` in a subclass.")

    def test_each_spec_runs_once(self, executor):
        seen = []
        executor.run(f"{HERE}:double", specs(5), seen.append)
        assert sorted((e.member, e.examples) for e in seen) == [(str(n), 2 * n) for n in range(5)]

    def test_a_users_error_comes_back_as_it_is(self, executor):
        with pytest.raises(DataError, match="row of 0 is bad"):
            executor.run(f"{HERE}:refuse", specs(1), lambda _: None)

    def test_an_unknown_function_is_named(self, executor):
        with pytest.raises(ConfigError, match="must name a function"):
            executor.run(f"{HERE}:nothing", specs(1), lambda _: None)

    def test_one_answer_is_returned_with_the_progress_before_it(self, executor):
        steps = []
        answer = executor.ask(f"{HERE}:double_slowly", specs(2)[1], Observation, steps.append)
        assert (answer.examples, [step.task for step in steps]) == (2, ["1"])

    def test_a_failure_is_raised_by_whoever_asks(self, executor):
        with pytest.raises(DataError, match="no rows"):
            executor.ask(f"{HERE}:fail", specs(1)[0], Observation)

    def test_work_without_an_answer_is_an_error(self, executor):
        with pytest.raises(StudyError, match="ended without an event `Observation`"):
            executor.ask(f"{HERE}:do_nothing", specs(1)[0], Observation)

    def test_an_unknown_option_is_refused(self, executor):
        with pytest.raises(ConfigError, match=r"has no option \['colour'\]"):
            type(executor)(colour="red")
