"""`manage.py watcher`: keeps statuses, nodes and the cluster's row true. One of several started is at work."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from deployments.kube.account import NoAccountError
from deployments.kube.cluster import Cluster
from deployments.watcher.run import watch_forever


class Command(BaseCommand):
    """Run the watcher until SIGTERM or SIGINT."""

    help = "Watch the cluster and write what it shows into the database."

    def handle(self, *args: Any, **options: Any) -> None:
        """Watch as the account of KUBECONFIG_WATCHER or, without it, of the pod."""
        try:
            cluster = Cluster.from_kubeconfig(settings.KUBECONFIG_WATCHER)
        except NoAccountError as error:
            raise CommandError(f"Set KUBECONFIG_WATCHER, the watcher has no cluster to watch. {error}") from None
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        watch_forever(cluster, stop)
