from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "modelhub.jobs"
    label = "jobs"
    verbose_name = "Jobs"

    def ready(self) -> None:
        from modelhub.jobs import purging

        purging.register()
