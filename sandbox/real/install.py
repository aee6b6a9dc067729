"""`python -m sandbox install`: puts into a new control plane what its controllers need, and then their webhooks.

Repeatable: what was put there unchanged before is left alone (a file beside the data of etcd says so).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx
import orjson

from sandbox.client import ApiError, Client, Obj, resource_path
from sandbox.kubeconfigs import kubeconfig, write_kubeconfig
from sandbox.lite import bootstrap
from sandbox.real import objects
from sandbox.real.programs import CONTROLLERS, webhook_authority

log = logging.getLogger(__name__)

MANAGER = "sandbox-install"
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
# Seconds. A new CRD is served a moment after it was made, a webhook when its controller listens; KServe's largest
# kinds take an API server with little processor longer than one request waits (30 s), time after time.
PATIENCE = 240.0
AT_ONCE = 6
YEAR = 365 * 24 * 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--stage", choices=("first", "webhooks"), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the certificates and kubeconfigs")
    parser.add_argument("--url", required=True, help="the API server")
    parser.add_argument("--webhook", action="append", default=[], metavar="NAME=PORT", help="where webhooks listen")
    parser.add_argument("--account", action="append", default=[], metavar="NAME", help="write NAME.kubeconfig too")
    parser.add_argument("--manifests", type=Path, action="append", default=[], metavar="PATH", help="YAML to apply")


def run(args: argparse.Namespace) -> int:
    """Apply one stage; returns 0 when everything is there."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_run(args))
    return 0


async def _run(args: argparse.Namespace) -> None:
    client = Client.from_kubeconfig(args.data / "admin.kubeconfig")
    authority = (args.data / "ca.crt").read_bytes()
    ports = {name: int(port) for name, _, port in (word.partition("=") for word in args.webhook)}
    installer = Installer(client, args.data / f"installed-{args.stage}.json")
    try:
        signer = webhook_authority().pem
        if args.stage == "webhooks":
            await installer.apply(objects.webhooks(ports, signer))
            await installer.apply(objects.served())
            return
        own = [*objects.accounts(args.account), *bootstrap.read_manifests(args.manifests)]
        await put_first(
            installer, [*objects.namespaces(), *objects.definitions(ports, signer), *objects.foundation(), *own]
        )
        for name, (namespace, account) in CONTROLLERS.items():
            await _write_kubeconfig(client, args, authority, name, namespace, account)
        for name in args.account:
            await _write_kubeconfig(client, args, authority, name, objects.SYSTEM, name)
    finally:
        await client.close()


async def put_first(installer: Installer, wanted: Iterable[Obj]) -> None:
    """Put what the controllers need: namespaces, then kinds, and when all of these are served the rest."""
    known = list(wanted)
    kinds = [item for item in known if item["kind"] == "CustomResourceDefinition"]
    await installer.apply(item for item in known if item["kind"] == "Namespace")
    await installer.apply(kinds)
    await installer.wait_served(kinds)
    await installer.apply(item for item in known if item["kind"] not in ("Namespace", "CustomResourceDefinition"))


async def _write_kubeconfig(
    client: Client, args: argparse.Namespace, authority: bytes, name: str, namespace: str, account: str
) -> None:
    """Ask for a token of a ServiceAccount and write the kubeconfig that carries it."""
    path = resource_path("v1", "serviceaccounts", namespace, account)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": YEAR}}
    answer = await client.create(f"{path}/token", body)
    write_kubeconfig(args.data / f"{name}.kubeconfig", kubeconfig(args.url, authority, name, answer["status"]["token"]))


class Installer:
    """Puts objects into a cluster; `record` remembers which, by a hash of each."""

    def __init__(self, client: Client, record: Path) -> None:
        self._client = client
        self._record = record
        self._known: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
        self._plurals: dict[str, Mapping[str, tuple[str, bool]]] = {}

    async def apply(self, wanted: Iterable[Obj]) -> None:
        """Put what is new or has changed, some at a time."""
        todo = [item for item in wanted if self._known.get(_key(item)) != _hash(item)]
        gate = asyncio.Semaphore(AT_ONCE)

        async def guarded(item: Obj) -> None:
            async with gate:
                await self._one(item)

        await asyncio.gather(*(guarded(item) for item in todo))
        log.info("%d objects put", len(todo))

    async def wait_served(self, definitions: Iterable[Obj]) -> None:
        """Wait until every version of these CRDs can be used: a controller that comes earlier ends at once."""
        wanted = {
            (f"{item['spec']['group']}/{version['name']}", item["spec"]["names"]["plural"])
            for item in definitions
            for version in item["spec"]["versions"]
            if version["served"]
        }
        deadline = time.monotonic() + PATIENCE
        while missing := wanted - await self._served():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not served after {PATIENCE:.0f} s: {sorted(missing)}")
            await asyncio.sleep(0.2)

    async def _served(self) -> set[tuple[str, str]]:
        """Every (group/version, plural) of the groups, in one request."""
        answer = await self._client.http.get("/apis", headers={"Accept": DISCOVERY})
        answer.raise_for_status()
        return {
            (f"{group['metadata']['name']}/{version['version']}", resource["resource"])
            for group in answer.json()["items"]
            for version in group["versions"]
            for resource in version.get("resources", ())
        }

    async def _one(self, item: Obj) -> None:
        """Apply one object, again while its kind is not served yet or a webhook does not answer yet."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                await self._put(await self._collection(item), item)
                break
            except (ApiError, LookupError, httpx.TransportError) as error:
                passing = not isinstance(error, ApiError) or error.status in (404, 409, 429, 500, 503)
                if not passing or time.monotonic() > deadline:
                    raise RuntimeError(f"{_key(item)}: {error}") from error
                await asyncio.sleep(0.25)
        self._known[_key(item)] = _hash(item)
        self._record.write_text(json.dumps(self._known))

    async def _put(self, collection: str, item: Obj) -> None:
        """Create or replace: a server-side apply of KServe's largest kinds takes the server several times as long."""
        try:
            await self._client.create(collection, item, fieldManager=MANAGER)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            path = f"{collection}/{item['metadata']['name']}"
            version = (await self._client.get(path))["metadata"]["resourceVersion"]
            fresh = item | {"metadata": item["metadata"] | {"resourceVersion": version}}
            await self._client.update(path, fresh, fieldManager=MANAGER)

    async def _collection(self, item: Obj) -> str:
        version = item["apiVersion"]
        if item["kind"] not in self._plurals.get(version, {}):
            root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
            listing = await self._client.get(root)
            self._plurals[version] = {
                entry["kind"]: (entry["name"], entry["namespaced"])
                for entry in listing["resources"]
                if "/" not in entry["name"]
            }
        found = self._plurals[version].get(item["kind"])
        if found is None:
            raise LookupError(f"{item['kind']} of {version} is not served")
        plural, namespaced = found
        meta = item["metadata"]
        return resource_path(version, plural, meta.get("namespace", "default") if namespaced else None)


def _key(item: Obj) -> str:
    meta = item["metadata"]
    return f"{item['apiVersion']} {item['kind']} {meta.get('namespace', '')}/{meta['name']}"


def _hash(item: Obj) -> str:
    return hashlib.sha256(orjson.dumps(item, option=orjson.OPT_SORT_KEYS)).hexdigest()
