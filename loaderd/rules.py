"""What people decided, as loaderd works by it: limits, each model's policy, and where each lineage's names lead.

The registry owns them and pushes them through the reporter, so that a change works within a second and without
a restart. While the registry is away loaderd goes on with those that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LIVE = "live"  # the alias that a lineage's bare name answers with
CANDIDATE = "candidate"  # the alias that a share of the traffic, or a copy of it, goes to


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """How one model is treated.

    pinned: never evicted, whatever the reason. priority: 0 to 100, higher is kept longer and loaded first.
    autoload: loaded when a prediction asks for it. keep_alive_seconds: unloaded when idle for that long; None: not.
    cache_enabled, cache_ttl_seconds: whether its answers are kept, and for how long; None: as Rules say.
    """

    pinned: bool = False
    priority: int = 50
    autoload: bool = False
    keep_alive_seconds: float | None = None
    cache_enabled: bool | None = None
    cache_ttl_seconds: float | None = None


DEFAULT_POLICY = ModelPolicy()


@dataclass(frozen=True, slots=True)
class LineageTraffic:
    """Where the names of a lineage lead: alias -> model_id.

    candidate_percent: share of the requests for the bare name that `candidate` answers in place of `live`,
    0 to 100. shadow: `candidate` gets a copy of what `live` answers, and the answers are compared.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    candidate_percent: float = 0.0
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that may change while loaderd runs. docs/configuration.md tells each one's meaning.

    max_memory_bytes, max_gpu_memory_bytes: None is no limit. models: those whose policy is not the default.
    cache_enabled, cache_ttl_seconds: of models whose policy does not say; cache_max_bytes: of all kept answers
    together.
    low_usage_threshold: share of the last hour's minutes in which a model was asked, 0.0 to 1.0.
    slow_request_seconds: a prediction that takes as long gets a line in the gateway's log; 0.0: none does.
    """

    max_memory_bytes: int | None = None
    max_memory_percent: float = 80.0
    max_gpu_memory_bytes: int | None = None
    max_gpu_memory_percent: float = 90.0
    unused_timeout_seconds: float = 24 * 3600.0
    low_usage_threshold: float = 0.1
    optimization_interval_seconds: float = 600.0
    min_residency_seconds: float = 30.0
    max_concurrent_loads: int = 2
    max_load_attempts: int = 3
    health_check_interval_seconds: float = 300.0
    hang_seconds: float = 30.0
    load_wait_seconds: float = 30.0
    alert_load_seconds: float = 10.0
    alert_memory_percent: float = 85.0
    alert_error_rate_percent: float = 5.0
    slow_seconds: float = 5.0
    sampling_rate: float = 0.1
    slow_request_seconds: float = 1.0
    log_level: str = "INFO"
    cache_enabled: bool = False
    cache_ttl_seconds: float = 3600.0
    cache_max_bytes: int = 64 * 2**20
    models: Mapping[str, ModelPolicy] = field(default_factory=dict)
    lineages: Mapping[str, LineageTraffic] = field(default_factory=dict)

    def policy_of(self, model_id: str) -> ModelPolicy:
        return self.models.get(model_id, DEFAULT_POLICY)

    def cache_seconds_of(self, model_id: str) -> float:
        """For how long the gateway keeps the model's answers; 0.0: it keeps none."""
        policy = self.policy_of(model_id)
        enabled = self.cache_enabled if policy.cache_enabled is None else policy.cache_enabled
        if not enabled:
            return 0.0
        return self.cache_ttl_seconds if policy.cache_ttl_seconds is None else policy.cache_ttl_seconds
