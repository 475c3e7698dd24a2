import numpy as np
import pytest

from loaderd.worker.faults import is_device_lost, is_out_of_memory


class AcceleratorError(RuntimeError):
    """Named as torch names its own, which needs a GPU to be raised."""


class OutOfMemoryError(RuntimeError):
    """Likewise."""


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure",
        "CUDA error: misaligned address",
        "CUDA error: uncorrectable ECC error encountered",
        "Error polling for event status: failed to query event: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access",
        "could not synchronize on CUDA context: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
    ],
)
def test_a_corrupt_cuda_context_is_lost_for_good(text: str) -> None:
    assert is_device_lost(RuntimeError(text))


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: invalid argument",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "Expected all tensors to be on the same device",
        "an illegal memory access is what this text is about",
    ],
)
def test_other_errors_leave_the_device_as_it_is(text: str) -> None:
    assert not is_device_lost(RuntimeError(text))


def test_torchs_own_class_of_device_errors_counts_whatever_it_says() -> None:
    assert is_device_lost(AcceleratorError("something else"))
    assert not is_device_lost(OutOfMemoryError("CUDA out of memory"))


def test_every_librarys_want_of_memory_is_recognised() -> None:
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**60, dtype=np.uint8)
    torchs = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")
    for error in (numpys.value, MemoryError(), torchs, OutOfMemoryError("CUDA out of memory")):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
