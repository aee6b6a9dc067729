"""The Celery application. `portal.apps` makes it current, so that importing `portal` stays free of side effects."""

import os

from celery import Celery, Task, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")


class PortalTask(Task):  # type: ignore[type-arg]
    """Every task: named by its path, so that only workers load what stands there."""

    Request = "portal.broker:Request"


app = Celery("slipway", task_cls=PortalTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["deployments"])


@signals.celeryd_init.connect
def watch_acknowledgements(instance: object = None, **_: object) -> None:
    """In a worker alone: others have no consumer."""
    from portal.broker import Watch

    app.steps["consumer"].add(Watch)


@signals.task_prerun.connect
def drop_broken_connections(**_: object) -> None:
    """A worker keeps its database connection from task to task; one that PostgreSQL has closed is given up here.

    Celery itself does so only every CELERY_DB_REUSE_MAX tasks, and all tasks until then would fail.
    """
    from django.db import close_old_connections

    close_old_connections()
