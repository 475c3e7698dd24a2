from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "modelhub.console"
    label = "console"

    def ready(self) -> None:
        from modelhub.console.registering import purging

        purging.register()
