"""The registry in the admin: models, lineages, discoveries."""

from modelhub.console.admin.discovery_run import DiscoveryRunAdmin
from modelhub.console.admin.lineage import LineageAdmin
from modelhub.console.admin.model_version import ModelVersionAdmin
from modelhub.console.admin.schedule import ScheduleAdmin

__all__ = ["DiscoveryRunAdmin", "LineageAdmin", "ModelVersionAdmin", "ScheduleAdmin"]
