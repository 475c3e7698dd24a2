from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "modelhub.api"
    label = "api"
