"""One running API server: sockets, certificates, first objects, background chores, controllers."""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import uvicorn

from sandbox.client import Client
from sandbox.lite import bootstrap, certificates, quotas
from sandbox.lite.cluster import Cluster
from sandbox.lite.faults import Faults
from sandbox.lite.inprocess import BASE_URL, InProcessTransport
from sandbox.lite.server import ApiServer
from sandbox.lite.storage import Change

log = logging.getLogger(__name__)

CHORES_SECONDS = 60.0
EVENT_LIFETIME = timedelta(hours=1)


@dataclass
class Settings:
    """How to run one server."""

    data: Path
    accounts: tuple[str, ...] = ()
    manifests: tuple[Path, ...] = ()
    controllers: bool = True
    prometheus_url: str = ""
    scaling_speed: float = 1.0
    tls: bool = True
    faults: Faults = field(default_factory=Faults)
    signals: bool = True
    bare: bool = False  # the API alone: no other project's webhooks, nothing made beside what is asked for
    on_ready: Callable[[str, Cluster, Callable[[], None]], None] | None = None


class _Server(uvicorn.Server):
    """A uvicorn server that ends watches first, so that stopping does not wait for them."""

    def __init__(self, config: uvicorn.Config, cluster: Cluster) -> None:
        super().__init__(config)
        self._cluster = cluster

    def stop(self) -> None:
        """Ask for a graceful end."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End every watch, then stop."""
        self._cluster.hub.close()
        await super().shutdown(sockets)


async def serve(settings: Settings, sockets: Sequence[socket.socket]) -> None:
    """Serve until uvicorn is told to stop."""
    made = certificates.ensure(settings.data) if settings.tls else None
    authority = made.authority_pem if made else None
    port = sockets[0].getsockname()[1]
    url = f"{'https' if made else 'http'}://127.0.0.1:{port}"
    cluster = Cluster(settings.data / "cluster.db")
    cluster.webhooks = not settings.bare
    if not settings.bare:
        cluster.storage.listen(_namespace_follower(cluster, authority))
        cluster.storage.listen(quotas.keeper(cluster))
    bootstrap.bring_up(cluster, settings.accounts, settings.manifests)
    bootstrap.write_kubeconfigs(cluster, settings.data, url, authority, settings.accounts)
    app = ApiServer(cluster, settings.faults)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
        ssl_certfile=str(made.certificate) if made else None,
        ssl_keyfile=str(made.key) if made else None,
        log_config=None,
        backlog=512,
    )
    server = _Server(config, cluster)
    chores = [asyncio.create_task(_chores(cluster))]
    client = _inside(app, cluster)
    starter = asyncio.create_task(_start_controllers(server, settings, url, cluster, client, chores, authority or b""))
    log.info("serving %s", url)
    try:
        if settings.signals:
            await server.serve(list(sockets))
        else:
            await server._serve(list(sockets))  # the same without signal handlers, which need the main thread
    finally:
        for task in (starter, *chores):
            task.cancel()
        await asyncio.gather(starter, *chores, return_exceptions=True)
        await client.close()
        await app.close()
        cluster.close()


def _inside(app: ApiServer, cluster: Cluster) -> Client:
    """Return an administrator's client that does not leave the process."""
    headers = {"Authorization": f"Bearer {cluster.tokens.admin()}", "User-Agent": "controller-manager"}
    return Client(httpx.AsyncClient(transport=InProcessTransport(app), base_url=BASE_URL, headers=headers))


async def _start_controllers(
    server: _Server,
    settings: Settings,
    url: str,
    cluster: Cluster,
    client: Client,
    tasks: list[asyncio.Task[None]],
    authority: bytes,
) -> None:
    """Wait until requests are answered, then start the controllers as ordinary clients."""
    while not server.started:
        await asyncio.sleep(0.01)
    if settings.controllers:
        controllers = importlib.import_module("sandbox.lite.controllers")
        scaling = controllers.Scaling(settings.prometheus_url, settings.scaling_speed)
        tasks += await controllers.start(client, authority=authority.decode(), scaling=scaling)
    if settings.on_ready is not None:
        settings.on_ready(url, cluster, server.stop)


async def _chores(cluster: Cluster) -> None:
    """Forget old events, as kube-apiserver does after an hour."""
    while True:
        oldest = (datetime.now(UTC) - EVENT_LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ")
        for kind in ("/events", "events.k8s.io/events"):
            for event in cluster.read_all(kind):
                stamp = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
                if stamp < oldest:
                    cluster.storage.remove(kind, event)
        await asyncio.sleep(CHORES_SECONDS)


def _namespace_follower(cluster: Cluster, authority: bytes | None) -> Callable[[Change], None]:
    """Give each new namespace its default account at once: pods made right after need it."""

    def follow(change: Change) -> None:
        if change.kind == "/namespaces" and change.type == "ADDED":
            bootstrap.ensure_default_account(cluster, change.obj["metadata"]["name"], authority)

    return follow
