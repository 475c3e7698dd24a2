from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "modelhub.console"
    label = "console"
