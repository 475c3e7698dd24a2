from django.apps import AppConfig


class LifecycleConfig(AppConfig):
    name = "modelhub.lifecycle"
    label = "lifecycle"
