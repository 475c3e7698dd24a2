from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class AccountsConfig(AppConfig):
    name = "modelhub.accounts"
    label = "accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from modelhub.accounts import signals
        from modelhub.accounts.groups import create_groups

        signals.connect()
        # Permissions are made app by app; jobs is the last one whose permissions the groups hold.
        post_migrate.connect(create_groups, sender=apps.get_app_config("jobs"), dispatch_uid="accounts.groups")
