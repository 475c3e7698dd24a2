from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "modelhub.accounts"
    label = "accounts"
