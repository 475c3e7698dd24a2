"""All of the admin: models, their operations and measurements, the policy, accounts; and Django's own tables."""

from modelhub.console.admin.accounts import ApiTokenAdmin, GroupAdmin, UserAdmin
from modelhub.console.admin.activity import LineageChangeAdmin, LoaderStatusAdmin, OperationAdmin, StateChangeAdmin
from modelhub.console.admin.audit import AuditAdmin
from modelhub.console.admin.discovery_run import DiscoveryRunAdmin
from modelhub.console.admin.jobs import JobAdmin
from modelhub.console.admin.lineage import LineageAdmin
from modelhub.console.admin.model_version import ModelVersionAdmin
from modelhub.console.admin.policy import PolicyAdmin, PolicyChangeAdmin
from modelhub.console.admin.queue import FailureAdmin, QueuedAdmin, ScheduleAdmin, SuccessAdmin
from modelhub.console.admin.telemetry import AlertAdmin, ComparisonAdmin, SampleAdmin, TraceAdmin

__all__ = [
    "AlertAdmin",
    "ApiTokenAdmin",
    "AuditAdmin",
    "ComparisonAdmin",
    "DiscoveryRunAdmin",
    "FailureAdmin",
    "GroupAdmin",
    "JobAdmin",
    "LineageAdmin",
    "LineageChangeAdmin",
    "LoaderStatusAdmin",
    "ModelVersionAdmin",
    "OperationAdmin",
    "PolicyAdmin",
    "PolicyChangeAdmin",
    "QueuedAdmin",
    "SampleAdmin",
    "ScheduleAdmin",
    "StateChangeAdmin",
    "SuccessAdmin",
    "TraceAdmin",
    "UserAdmin",
]
