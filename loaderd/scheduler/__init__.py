"""Who may be loaded, and who has to go for it: pure functions from a snapshot to a plan.

Nothing here looks at a clock, a process or a GPU; the supervisor takes the snapshot and carries out the plan.
"""

from loaderd.scheduler.admission import decide
from loaderd.scheduler.optimising import superfluous, why_nothing
from loaderd.scheduler.plan import Decision, Kept, Plan, Victim
from loaderd.scheduler.snapshot import Claim, Snapshot, Wish

__all__ = ["Claim", "Decision", "Kept", "Plan", "Snapshot", "Victim", "Wish", "decide", "superfluous", "why_nothing"]
