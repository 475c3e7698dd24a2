"""Where model processes come from: forked from their framework's zygote, or spawned cold."""

from __future__ import annotations

from collections.abc import Callable

from loaderd.protocol import ModelSpec
from loaderd.supervisor import model_process
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.model_process import ModelProcess, OnPhase
from loaderd.supervisor.zygotes import ForkRefused, Zygotes


class Forking:
    """zygotes: those that it forks from."""

    def __init__(self, config: DaemonConfig) -> None:
        self.zygotes = Zygotes()
        self._config = config
        self._refused: set[str] = set()  # frameworks whose zygote refused the last fork

    def is_expected(self, framework: str) -> bool:
        """Whether a model of the framework would be forked from a zygote, as far as is known."""
        return self._config.use_zygotes and framework not in self._refused

    async def await_import(self, framework: str, tell: Callable[[str], None]) -> None:
        """Returns when a process can be forked at once: a load that waits for an import takes no turn and no memory
        from those that can begin. Raises ForkRefused."""
        if self.zygotes.is_ready(framework):
            return
        tell(f"waits for its turn: {framework} is being imported")
        try:
            await self.zygotes.ready(framework)
        except ForkRefused:
            self._refused.add(framework)
            raise

    async def start_process(self, spec: ModelSpec, on_phase: OnPhase, *, forked: bool) -> ModelProcess:
        """Raises ForkRefused when its framework's zygote cannot make it; not with forked=False."""
        if not forked:
            return await model_process.start(spec, self._config, None, on_phase)
        try:
            process = await model_process.start(spec, self._config, self.zygotes, on_phase)
        except ForkRefused:
            self._refused.add(spec.framework)
            raise
        self._refused.discard(spec.framework)
        return process
