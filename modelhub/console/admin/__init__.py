"""The registry in the admin: models, lineages, discoveries; and Django's own tables: the audit, the task queue."""

from modelhub.console.admin.audit import AuditAdmin
from modelhub.console.admin.discovery_run import DiscoveryRunAdmin
from modelhub.console.admin.lineage import LineageAdmin
from modelhub.console.admin.model_version import ModelVersionAdmin
from modelhub.console.admin.queue import FailureAdmin, QueuedAdmin, ScheduleAdmin, SuccessAdmin

__all__ = [
    "AuditAdmin",
    "DiscoveryRunAdmin",
    "FailureAdmin",
    "LineageAdmin",
    "ModelVersionAdmin",
    "QueuedAdmin",
    "ScheduleAdmin",
    "SuccessAdmin",
]
