"""How a process ended, in words; and whether the kernel did it for want of memory."""

from __future__ import annotations

import signal

from loaderd.supervisor.children import Exit, KernelKills


class Kernel:
    """Its count of OOM kills, and a clock."""

    def __init__(self) -> None:
        self.kills: int | None = 7
        self.now = 0.0
        self.watch = KernelKills(lambda: self.kills, window_seconds=2.0, clock=lambda: self.now)

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.watch.look()


def test_a_kill_that_was_counted_lately_explains_a_death() -> None:
    kernel = Kernel()
    kernel.pass_seconds(3)
    assert not kernel.watch.explain_one()
    kernel.kills = 8
    assert kernel.watch.explain_one()


def test_each_kill_explains_one_death() -> None:
    kernel = Kernel()
    kernel.pass_seconds(3)
    kernel.kills = 9
    assert [kernel.watch.explain_one() for _ in range(3)] == [True, True, False]


def test_a_look_between_the_kill_and_the_death_does_not_hide_it() -> None:
    kernel = Kernel()
    kernel.pass_seconds(3)
    kernel.kills = 8
    kernel.pass_seconds(1)
    assert kernel.watch.explain_one()


def test_a_kill_of_long_ago_explains_nothing() -> None:
    kernel = Kernel()
    kernel.pass_seconds(1)
    kernel.kills = 8
    kernel.pass_seconds(5)
    assert not kernel.watch.explain_one()


def test_where_the_kernel_does_not_count_nothing_is_claimed() -> None:
    kernel = Kernel()
    kernel.kills = None
    kernel.pass_seconds(2)
    assert not kernel.watch.explain_one()


def test_an_end_is_told_with_what_is_known_of_it() -> None:
    assert Exit(status=3).prose == "exited with status 3"
    assert Exit(status=4).prose.startswith("exited with status 4: its GPU reported an error")
    assert Exit(signal=signal.SIGSEGV).prose == "was ended by SIGSEGV"
    assert Exit(signal=signal.SIGKILL, asked_for=True).prose == "was ended by SIGKILL"
    assert Exit(signal=signal.SIGKILL).prose == "was ended by SIGKILL, which loaderd did not send"
    assert "OOM killer" in Exit(signal=signal.SIGKILL, out_of_memory=True).prose
