"""A cluster's first objects, kept as the data of an etcd: a new cluster begins with them in place.

kube-apiserver publishes some 35 kinds one after the other in half a minute, but those it finds at its start in a
second. So they are put once, into a server without controllers, and its etcd is kept beside the built programs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import orjson

from sandbox.client import Client
from sandbox.real import cache, install, objects, tools
from sandbox.real.programs import PORTS, PREFERRED_PORTS, ControlPlane, Part, webhook_authority

READY_SECONDS = 90.0
# The name by which a cluster is known is the uid of this namespace: each cluster makes its own at its first start.
NAMELESS = b"/registry/namespaces/kube-system"
RECORD = "installed-first.json"
UNFINISHED = "slipway-seed-"


def folder() -> Path:
    """Where the seed is kept: named after everything that is in it."""
    digest = hashlib.sha256()
    for group in ("kubernetes", "etcd", *tools.WITH_MANIFESTS):
        digest.update(tools.folder(group).name.encode())
    for item in _objects():
        digest.update(orjson.dumps(item, option=orjson.OPT_SORT_KEYS))
    return tools.cache_root() / "control-plane" / f"seed-{digest.hexdigest()[:16]}"


def ensure(say: Callable[[str], None]) -> None:
    """Make the seed if it is not there; RuntimeError when the server does not start."""
    place = folder()
    cache.use(place)
    if place.exists():
        return
    with tools.alone(say):
        if not place.exists():
            for abandoned in place.parent.glob(f"{UNFINISHED}*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            say("putting the first objects into an etcd that new clusters begin with (about 30 s)")
            _keep(place)
            cache.clear_away(place, say)


def _keep(place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=place.parent) as made:
        asyncio.run(_make(Path(made)))
        fresh = Path(made) / "seed"
        fresh.mkdir()
        (Path(made) / "etcd").rename(fresh / "etcd")
        (Path(made) / RECORD).rename(fresh / RECORD)
        fresh.rename(place)


def sow(data: Path) -> bool:
    """Give a cluster that has no data yet the seed's; False when it has, or when there is no seed."""
    place = folder()
    if (data / "etcd").exists() or not place.exists():
        return False
    cache.use(place)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copytree(place / "etcd", data / "etcd")
    shutil.copy(place / RECORD, data / RECORD)
    return True


def _objects() -> list[objects.Obj]:
    return [
        *objects.namespaces(),
        *objects.definitions(PREFERRED_PORTS, webhook_authority().pem),
        *objects.foundation(),
    ]


async def _make(data: Path) -> None:
    plane = ControlPlane(data, _free_port(), {name: _free_port() for name in PORTS})
    parts = {part.name: part for part in plane.parts()}
    with ExitStack() as stack:
        stack.enter_context(_running(parts["etcd"], data))
        with _running(parts["kube-apiserver"], data):
            await _answers(parts["kube-apiserver"].ready_url)
            client = Client.from_kubeconfig(plane.kubeconfig_of("admin"))
            try:
                await install.put_first(install.Installer(client, data / RECORD), _objects())
            finally:
                await client.close()
        await _forget_name(plane)


async def _forget_name(plane: ControlPlane) -> None:
    """Delete the namespace whose uid is the cluster's name, through etcd's JSON gateway."""
    pair = plane.etcd_client()
    context = ssl.create_default_context(cafile=str(plane.folder / "ca.crt"))
    context.load_cert_chain(pair.certificate, pair.key)
    async with httpx.AsyncClient(verify=context, trust_env=False) as http:
        url = f"https://127.0.0.1:{plane.ports['etcd-http']}/v3/kv/deleterange"
        answer = await http.post(url, json={"key": base64.b64encode(NAMELESS).decode()})
        answer.raise_for_status()


async def _answers(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    async with httpx.AsyncClient(verify=False, trust_env=False) as http:  # noqa: S501 - only whether it is up
        while True:
            try:
                if (await http.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            if time.monotonic() > deadline:
                raise RuntimeError(f"{url} does not answer after {READY_SECONDS:.0f} s")
            await asyncio.sleep(0.1)


@contextmanager
def _running(part: Part, data: Path) -> Iterator[None]:
    with (data / f"{part.name}.log").open("wb") as log:
        process = subprocess.Popen(part.argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
