"""What is told of one model when somebody asks: the status command, and the gateway's table."""

from __future__ import annotations

from typing import Any

from loaderd.protocol import ModelSpec
from loaderd.rules import Rules
from loaderd.states import ModelState
from loaderd.supervisor.model.life import Life

_ROUTED = ("inputs", "outputs", "labels")  # what the door tells of a signature


def snapshot(life: Life) -> dict[str, Any]:
    """What `manage.py loaderd`'s status command shows; JSON values."""
    return {
        "state": life.state.value,
        "reason": life.reason,
        "lineage": life.spec.lineage if life.spec else "",
        "version": life.spec.version if life.spec else "",
        "framework": life.spec.framework if life.spec else "",
        "pid": life.runtime.pid,
        "phase": life.runtime.phase,
        "private_bytes": life.runtime.private_bytes,
        "pss_bytes": life.runtime.pss_bytes,
        "gpu_bytes": life.runtime.gpu_bytes,
        "pids": life.crew.pids if life.crew else [],
        "instances": life.crew.wanted if life.crew else 0,
        "forked": life.crew.first.forked if life.crew else None,
        "counters": life.crew.counters if life.crew else None,
        "recovering": life.recovering,
        "load_seconds": life.load_seconds,
    }


def route(life: Life, rules: Rules) -> dict[str, Any]:
    """What the gateway needs to know."""
    sockets = life.crew.sockets if life.serving and life.crew else []
    return {
        "lineage": life.spec.lineage if life.spec else "",
        "version": life.spec.version if life.spec else "",
        "framework": life.spec.framework if life.spec else "",
        "state": (ModelState.LOADED if sockets else life.state).value,
        "reason": life.reason,
        "sockets": sockets,
        "autoload": rules.policy_of(life.model_id).autoload,
        "recovering": (life.recovering or life.awaited) and not sockets,
        # Without the sample: the whole table is pushed at each change.
        "signature": {key: life.signature[key] for key in _ROUTED} if sockets and life.signature else None,
        "max_batch_size": life.spec.max_batch_size if life.spec else 0,
        "instances": len(sockets),
        "max_queue": life.spec.max_queue if life.spec else 0,
        "load": life.load_name if sockets else "",
        "cache_ttl_seconds": rules.cache_seconds_of(life.model_id),
        "cacheable": _is_reproducible(life.spec),
    }


def _is_reproducible(spec: ModelSpec | None) -> bool:
    """Whether it answers the same question in the same way, as its recorded canary found."""
    canary = spec.canary if spec else None
    return canary is None or bool(canary.get("reproducible", True))
