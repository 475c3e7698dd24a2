from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class TelemetryConfig(AppConfig):
    name = "modelhub.telemetry"
    label = "telemetry"
    verbose_name = "Telemetry"

    def ready(self) -> None:
        from modelhub.telemetry.maintenance import make_schedule

        # After every migrate, when django-q2's tables are there: its app comes before this one.
        post_migrate.connect(make_schedule, sender=apps.get_app_config("telemetry"), dispatch_uid="telemetry.schedule")
