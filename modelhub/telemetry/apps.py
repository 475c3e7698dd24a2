from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    name = "modelhub.telemetry"
    label = "telemetry"
    verbose_name = "Telemetry"
