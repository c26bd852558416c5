"""Memory that runs out is recognised by what libraries say, and nothing else is taken for it."""

import pytest

from marslora.core.errors import OutOfMemoryError
from marslora.core.out_of_memory import advise, explain_out_of_memory, is_out_of_memory
from marslora.core.runs import Failure
from marslora.core.training import TrainingSettings


class AcceleratorError(RuntimeError):
    """As torch has one for what CUDA reports."""


SHORTAGES = [
    MemoryError(),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    AcceleratorError("CUDA error: out of memory"),
    RuntimeError("unable to mmap 640 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
    RuntimeError("std::bad_alloc"),
    OSError(12, "Cannot allocate memory"),
]
OTHERS = [
    RuntimeError("could not create a primitive descriptor for a matmul primitive"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("out of memory"),
    KeyError("CUDA out of memory"),
    OSError(28, "No space left on device"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=repr)
def test_a_shortage_is_recognised_and_explained(error):
    assert is_out_of_memory(error)
    wrapped = RuntimeError("while loading")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)
    with (
        pytest.raises(OutOfMemoryError, match=r"^memory ran out while it ran \(.+\)\. What takes less: --acc"),
        explain_out_of_memory("it ran", TrainingSettings()),
    ):
        raise error


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_are_not_shortages(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as raised, explain_out_of_memory("it ran", TrainingSettings()):
        raise error
    assert raised.value is error


def test_only_what_is_not_yet_done_is_advised():
    said = advise(TrainingSettings(batch_size=4, accumulation=4, gradient_checkpointing=True))
    assert "--accumulation" not in said and "--gradient-checkpointing" not in said and "--ranks" in said


def test_a_shortage_may_pass():
    assert Failure(id="a", error="OutOfMemoryError", message="m").may_pass
    assert isinstance(Failure(id="a", error="OutOfMemoryError", message="m").to_error(), OutOfMemoryError)
