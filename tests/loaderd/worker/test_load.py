"""What a load that failed says: the library's own words, and what they mean for who reads them."""

from __future__ import annotations

import pytest

from loaderd.worker.load import Load
from tests.loaderd.worker.framework import InTestFramework
from tests.loaderd.worker.process import spec


@pytest.mark.parametrize(
    ("limit_bytes", "advice"),
    [
        (64 << 20, "it needs more memory than its limit; raise its memory_limit_mb (64)."),
        (None, "see the end of its log for the traceback."),
    ],
    ids=["with a limit of its own", "without one"],
)
def test_no_thread_under_a_memory_limit_is_want_of_memory(limit_bytes: int | None, advice: str) -> None:
    load = Load(spec(memory_limit_bytes=limit_bytes), InTestFramework(), lambda phase, progress: None)
    failure = load.failure(RuntimeError("can't start new thread"))
    assert failure.message.endswith(f"RuntimeError: can't start new thread; {advice}")
