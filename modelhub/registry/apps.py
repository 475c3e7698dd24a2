from django.apps import AppConfig


class RegistryConfig(AppConfig):
    name = "modelhub.registry"
    label = "registry"
    verbose_name = "Registry"
