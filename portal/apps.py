from django.apps import AppConfig, apps


class PortalConfig(AppConfig):
    name = "portal"
    verbose_name = "Slipway"

    def ready(self) -> None:
        from portal.celery import app

        app.set_current()

        from django.db.models.signals import post_migrate

        # They listen to sign-ins from here on; a check is known.
        from portal import roles, sessions, sign_ins  # noqa: F401

        # Django tells apps with models alone.
        post_migrate.connect(roles.after_migrations, sender=apps.get_app_config("deployments"))
