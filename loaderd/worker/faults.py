"""What a library's exception means for the process: out of memory, or a device that is lost until it ends."""

from __future__ import annotations

import re

_STICKY_CUDA = re.compile(
    r"device-side assert|illegal (memory access|address|instruction)|misaligned address|unspecified launch failure"
    r"|launch (timed out|failure)|hardware stack|invalid (address space|pc)|uncorrectable ECC|context is destroyed"
    r"|CUDA_ERROR_(ASSERT|ILLEGAL_\w+|MISALIGNED_ADDRESS|LAUNCH_(FAILED|TIMEOUT)|HARDWARE_STACK_ERROR"
    r"|INVALID_(ADDRESS_SPACE|PC)|ECC_UNCORRECTABLE|CONTEXT_IS_DESTROYED)",
    re.IGNORECASE,
)
_NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|OOM when allocating", re.IGNORECASE
)


def is_out_of_memory(error: BaseException) -> bool:
    """An allocation failed: Python's, numpy's, torch's on either device, TensorFlow's."""
    if isinstance(error, MemoryError) or _has_class(error, "OutOfMemoryError", "ResourceExhaustedError"):
        return True
    return isinstance(error, RuntimeError | OSError) and _NO_MEMORY.search(str(error)[:4000]) is not None


def is_device_lost(error: BaseException) -> bool:
    """After this error every further call of the process on its GPU fails: CUDA's context is corrupt for good
    ("sticky" errors, CUDA runtime API). Only a new process helps.

    torch.AcceleratorError is taken as one of them, whatever it says: it is raised for what the device reported
    after the fact, and a restart costs less than a model that never answers again.
    """
    if is_out_of_memory(error):
        return False
    if _has_class(error, "AcceleratorError"):
        return True
    text = str(error)[:4000]
    return "CUDA" in text.upper() and _STICKY_CUDA.search(text) is not None


def _has_class(error: BaseException, *names: str) -> bool:
    """By name, so that no library is imported for it."""
    return any(base.__name__ in names for base in type(error).__mro__)
