"""A zygote that hangs in its import: it is ended, and nobody waits for it longer than its deadline."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from loaderd.supervisor import zygotes
from loaderd.supervisor.zygotes import ForkRefused, Zygotes

TOY = Path(__file__).parent / "toy"


def hung_zygote(of: Zygotes, framework: str) -> zygotes.Zygote:
    """One that is stopped before it can have imported anything."""
    zygote = of.ensure(framework)
    os.kill(zygote.child.pid, signal.SIGSTOP)
    return zygote


def test_a_load_that_waits_for_it_is_refused_and_it_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygotes, "READY_SECONDS", 0.1)

    async def wait_for_it() -> None:
        house = Zygotes()
        zygote = hung_zygote(house, "sklearn")
        channel, other = socket.socketpair()
        refusal = pytest.raises(ForkRefused, match=r"the sklearn zygote was not ready within 0\.1 s")
        with channel, other, refusal:
            await house.fork("sklearn", channel, channel.fileno(), "/nowhere")
        assert house.births == 0
        ended = await zygote.child.exited
        assert ended.signal == signal.SIGKILL
        assert house.facts() == {}
        with pytest.raises(ForkRefused, match="keeps dying; it is tried again in"):  # at once: the load is spawned cold
            house.ensure("sklearn")
        await house.stop()

    asyncio.run(asyncio.wait_for(wait_for_it(), 20))


def test_the_other_frameworks_get_theirs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep() -> None:
        house = Zygotes()
        monkeypatch.setattr(zygotes, "READY_SECONDS", 0.1)
        hung_zygote(house, "sklearn")
        monkeypatch.undo()  # the toy's may take as long as a process takes to start
        monkeypatch.setenv("PYTHONPATH", str(TOY))
        keeping = asyncio.create_task(house.keep(("sklearn", "toy")))
        while not house.facts().get("toy", {}).get("ready"):  # noqa: ASYNC110 (a process, not a task, makes it true)
            await asyncio.sleep(0.01)
        assert "sklearn" not in house.facts()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await house.stop()

    asyncio.run(asyncio.wait_for(keep(), 20))
