"""What cannot be launched is refused before anything is read."""

import psutil
import pytest

from marslora.core.errors import ConfigError, OutOfMemoryError
from marslora.core.spec import ModelSpec
from marslora.finetune import launch, worker


@pytest.mark.parametrize(("variable", "name"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "Deep")])
def test_a_model_in_pieces_is_refused_before_it_is_read(final_spec, monkeypatch, variable, name):
    monkeypatch.setenv(variable, "true")
    monkeypatch.setattr(worker, "load", lambda _: pytest.fail("the model was read"))
    with pytest.raises(ConfigError, match=f"launched with {name}.*holds the whole frozen model.*--quantize nf4"):
        worker.run_final(final_spec("pieces"), lambda _: None)


def test_a_model_that_cannot_fit_is_refused_before_it_is_read(final_spec, monkeypatch):
    spec = final_spec("large")
    num_bytes = launch._weigh(launch.Path(spec.model.path))
    assert num_bytes > 0
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 1.5 * num_bytes}))
    launch.check_launch(spec.model)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(worker, "load", lambda _: pytest.fail("the model was read"))
    with pytest.raises(OutOfMemoryError, match=r"in each of 2 processes, and cpu has .*or fewer processes"):
        worker.run_final(spec, lambda _: None)
    launch.check_launch(spec.model.model_copy(update={"quantize": "nf4"}))
    launch.check_launch(ModelSpec(path="owner/model"))
