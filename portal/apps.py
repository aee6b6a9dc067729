from django.apps import AppConfig


class PortalConfig(AppConfig):
    name = "portal"
    verbose_name = "Slipway"

    def ready(self) -> None:
        from portal.celery import app

        app.set_current()

        # They listen to sign-ins from here on.
        from portal import sessions, sign_ins  # noqa: F401
