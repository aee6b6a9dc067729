from django.apps import AppConfig


class DeploymentsConfig(AppConfig):
    name = "deployments"
    verbose_name = "Deployments"

    def ready(self) -> None:
        # Listens to the audit from here on.
        from deployments.services import notices  # noqa: F401
