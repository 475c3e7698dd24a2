from django.apps import AppConfig


class LifecycleConfig(AppConfig):
    name = "modelhub.lifecycle"
    label = "lifecycle"

    def ready(self) -> None:
        from modelhub.lifecycle import purging, signals

        signals.connect()
        purging.register()
