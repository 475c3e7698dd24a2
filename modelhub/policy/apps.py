from django.apps import AppConfig


class PolicyConfig(AppConfig):
    name = "modelhub.policy"
    label = "policy"
    verbose_name = "Policy"
