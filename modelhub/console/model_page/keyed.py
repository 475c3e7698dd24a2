"""One producer for all who watch the same thing: a `Shared` for each model, or each lineage, that somebody looks at."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from modelhub.console.live import Shared

Made = TypeVar("Made")
MOST_KEPT = 64  # things that are looked at at the same time; one beyond is read a little more often


class SharedByKey(Generic[Made]):
    """What `make(key)` returns, made at most once a second for each key. What it raises reaches who asked."""

    def __init__(self, make: Callable[[int], Made]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Shared[Made]] = OrderedDict()

    def get(self, key: int) -> Made:
        with self._lock:
            shared = self._kept.get(key)
            if shared is None:
                shared = self._kept[key] = Shared(lambda: self._make(key))
            self._kept.move_to_end(key)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return shared.get()

    def forget(self) -> None:
        """What is asked for next is made anew."""
        with self._lock:
            self._kept.clear()
