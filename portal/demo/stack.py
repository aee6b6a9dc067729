"""Which processes make up Slipway on one machine, in which order, and what each is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from portal.demo import services
from portal.demo.layout import REPOSITORY, Layout, write_private
from portal.demo.ports import PortBook
from portal.demo.program import Program, answers, listens
from sandbox.real import tools

PREFERRED_PORTS = {"web": 8000, "gateway": 8081}
PORTS = ["postgres", "redis", "prometheus", "apiserver", "hub", "model", "metrics", "gateway", "gateway-metrics", "web"]
NODES = "gpu-h100-1", "gpu-l40s-1", "gpu-l4-1", "gpu-l4-2"
ACCOUNTS = "worker", "watcher", "live", "node", "gateway", "metrics"
GROUNDS = "lite", "real"
SCRAPE_SECONDS = 5
# The model whose images the request form offers to try.
EXAMPLE = "/qwen--qwen2.5-0.5b-instruct@"
# What an administrator installs for Slipway on any cluster.
INSTALLED = "rbac.yaml", "storage-container.yaml", "admission.yaml"
# Prints a public and a private key, as settings take them.
PAIR = """
from base64 import b64encode
from nacl.public import PrivateKey
key = PrivateKey.generate()
print(*(b64encode(bytes(each)).decode() for each in (key.public_key, key)))
"""
# What a person's shell may hold for other uses and our children must not see.
PASSED_ON = "PATH", "HOME", "LANG", "LC_ALL", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"


class Stack:
    """The demo in one data folder: its ports, addresses, environment and programs.

    `ground` is what plays the cluster, `lite` or `real`; a folder keeps the one it began with. ValueError otherwise.
    """

    def __init__(self, data: Path, *, quick: bool = False, ground: str = "lite") -> None:
        self.layout = Layout(data.resolve())
        self.quick = quick
        self.ground = self.layout.ground(ground)
        self.secrets = self.layout.secrets()
        write_private(self.layout / "gateway-token", self.secrets["gateway"])
        preferred, names = PREFERRED_PORTS, PORTS
        if ground == "real":
            # Here and below only where it is wanted: everything else runs on Python's own library.
            from sandbox.real.programs import PORTS as MORE
            from sandbox.real.programs import PREFERRED_PORTS as WEBHOOKS

            preferred = preferred | {f"{name}-webhook": port for name, port in WEBHOOKS.items()}
            names = [*names, *MORE]
        book = PortBook(self.layout / "ports.json", preferred=preferred)
        self.ports = book.choose(names)
        self.prefix = book.choose_prefix()
        book.save()
        self.kubeconfig = self.layout / "kubeconfig"
        self.seeded = self.layout / "seed.json"

    def url(self, name: str) -> str:
        """Return the origin at which one of the servers answers on this machine."""
        scheme = "https" if name == "apiserver" else "http"
        return f"{scheme}://127.0.0.1:{self.ports[name]}"

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment of every process of the portal."""
        ports, words = self.ports, self.secrets
        return {
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "SLIPWAY_SECRET_KEY": words["secret_key"],
            "SLIPWAY_DEBUG": "0",
            "SLIPWAY_ALLOWED_HOSTS": "127.0.0.1,localhost",
            "SLIPWAY_URL": self.url("web"),
            "SLIPWAY_SANDBOX": "1",
            "EMAIL_FILE_PATH": str(self.layout / "mail"),
            "DATABASE_URL": f"postgres://slipway:{words['postgres']}@127.0.0.1:{ports['postgres']}/slipway",
            "REDIS_URL": f"redis://:{words['redis']}@127.0.0.1:{ports['redis']}/0",
            "PROMETHEUS_URL": self.url("prometheus"),
            "PROMETHEUS_SCRAPE_INTERVAL": str(SCRAPE_SECONDS),
            "GATEWAY_URL": self.url("gateway"),
            "GATEWAY_PUBLIC_URL": self.url("gateway"),
            "SLIPWAY_GATEWAY_TOKEN": words["gateway"],
            "HUB_URL": self.url("hub"),
            "SLIPWAY_OCI_REGISTRIES": "ghcr.io/slipway-models",
            "SLIPWAY_OCI_EXAMPLES": self._examples,
            "SLIPWAY_SEAL_PUBLIC_KEY": self._sealing_keys[0],
            **{f"KUBECONFIG_{name.upper()}": self._account(name) for name in ("worker", "watcher", "live")},
        }

    @property
    def _as_owner(self) -> dict[str, str]:
        """What makes a process the database's owner, who gives the site's role its rights."""
        address = f"127.0.0.1:{self.ports['postgres']}/slipway"
        url = f"postgres://postgres:{self.secrets['postgres_admin']}@{address}"
        return {"DATABASE_URL": url, "SLIPWAY_APP_ROLE": "slipway"}

    @cached_property
    def _examples(self) -> str:
        """The images of one model that the nodes can pull, as the setting takes them."""
        if find_spec("uvicorn") is None:
            return ""  # as for sealing keys
        listed = [sys.executable, "-m", "sandbox", "images"]
        done = subprocess.run(listed, capture_output=True, text=True, check=True, cwd=REPOSITORY)
        images = (line.split() for line in done.stdout.splitlines() if EXAMPLE in line)
        return ",".join(f"{uri} {folder}" for folder, uri in images)

    @cached_property
    def _sealing_keys(self) -> tuple[str, str]:
        """The pair to which values of credentials are sealed: public for web, private for the worker alone."""
        path = self.layout / "sealing-keys"
        if not path.exists() and find_spec("nacl") is None:
            return "", ""  # any Python starts the servers; the portal's own brings what makes keys
        if not path.exists():
            # In a process of its own: what makes them is not loaded into one that stays.
            done = subprocess.run([sys.executable, "-c", PAIR], capture_output=True, text=True, check=True)
            write_private(path, done.stdout)
        public, private = path.read_text().split()
        return public, private

    @cached_property
    def programs(self) -> list[Program]:
        """Every program, those first that others need."""
        return [*self._servers(), *self._cluster(), *self._portal()]

    def describe(self) -> dict[str, Any]:
        """Return what demo.json says."""
        return {
            "url": self.url("web"),
            "prometheus_url": self.url("prometheus"),
            "gateway_url": self.url("gateway"),
            "kubeconfig": str(self.kubeconfig),
            "accounts": self._seed().get("accounts", []),
        }

    def _servers(self) -> list[Program]:
        found = services.find()
        missing = [name for name, path in vars(found).items() if path is None]
        if found.postgres is None or found.redis is None or found.prometheus is None:
            raise FileNotFoundError(f"not installed: {', '.join(missing)}")
        return [
            *services.postgres(
                found.postgres,
                self.layout / "pg",
                port=self.ports["postgres"],
                password=self.secrets["postgres"],
                admin_password=self.secrets["postgres_admin"],
                quick=self.quick,
            ),
            services.redis(
                found.redis, self.layout / "redis", port=self.ports["redis"], password=self.secrets["redis"]
            ),
            services.prometheus(
                found.prometheus,
                self.layout / "prometheus",
                port=self.ports["prometheus"],
                gateway=self.ports["gateway-metrics"],
                interval=SCRAPE_SECONDS,
            ),
        ]

    @property
    def _cluster_up(self) -> str:
        """The program after which the cluster can be used."""
        return "apiserver" if self.ground == "lite" else "install-webhooks"

    def _lite(self) -> list[Program]:
        accounts = [word for name in ACCOUNTS for word in ("--account", name)]
        manifests = [word for path in self._manifests() for word in ("--manifests", str(path))]
        return [
            self._sandbox(
                "apiserver",
                ("--data", str(self.layout / "cluster"), "--port", str(self.ports["apiserver"]), *accounts),
                ("--prometheus-url", self.url("prometheus"), *manifests),
                ready=answers(f"{self.url('apiserver')}/readyz", anything=True),
                finish=self._copy_kubeconfig,
            )
        ]

    def _real(self) -> list[Program]:
        from sandbox.real import programs, seed

        plane = programs.ControlPlane(
            self.layout / "cluster", self.ports["apiserver"], self.ports, ACCOUNTS, tuple(self._manifests())
        )
        seed.sow(plane.folder)
        return [
            Program(
                part.name,
                part.argv,
                env={**_base_environment(), **part.env},
                after=part.after,
                once=part.once,
                ready=answers(part.ready_url) if part.ready_url else None,
                ready_seconds=120.0,
                finish=self._copy_kubeconfig if part.name == "install-first" else None,
            )
            for part in plane.parts()
        ]

    def _manifests(self) -> list[Path]:
        return [REPOSITORY / "k8s" / "portal" / name for name in INSTALLED]

    def _cluster(self) -> list[Program]:
        prometheus = self.layout / "prometheus"
        hub, model = self.url("hub"), self.url("model")
        nodes = [
            self._sandbox(
                "node",
                ("--name", name, "--pod-prefix", f"127.{self.prefix}", "--hub-url", hub, "--model-url", model),
                ("--claims", str(self.layout / "claims")),
                name=f"node-{name}",
                account="node",
                after=(self._cluster_up, "hub"),
            )
            for name in NODES
        ]
        return [
            *(self._lite() if self.ground == "lite" else self._real()),
            self._sandbox("hub", ("--port", str(self.ports["hub"])), ready=listens(self.ports["hub"])),
            self._sandbox("model", ("--port", str(self.ports["model"])), ready=listens(self.ports["model"])),
            *nodes,
            self._sandbox(
                "gateway",
                ("--port", str(self.ports["gateway"]), "--auth-url", f"{self.url('web')}/live/authorize/"),
                ("--usage-url", f"{self.url('web')}/live/usage/"),
                ("--usage-token-file", str(self.layout / "gateway-token")),
                ("--metrics-port", str(self.ports["gateway-metrics"])),
                account="gateway",
                after=(self._cluster_up,),
                ready=answers(f"{self.url('gateway')}/healthz"),
            ),
            self._sandbox(
                "metrics",
                ("--port", str(self.ports["metrics"]), "--targets-dir", str(prometheus / "targets")),
                ("--rules-dir", str(prometheus / "rules"), "--prometheus-url", self.url("prometheus")),
                account="metrics",
                after=(self._cluster_up, "prometheus"),
                ready=answers(f"{self.url('metrics')}/healthz"),
            ),
        ]

    def _portal(self) -> list[Program]:
        host_and_port = ("--host", "127.0.0.1", "--port", str(self.ports["web"]))
        celery = ("-m", "celery", "-A", "portal.celery")
        return [
            self._python(
                "migrate",
                ("manage.py", "migrate", "--no-input"),
                extra=self._as_owner,
                after=("postgres",),
                once=True,
            ),
            self._python(
                "seed",
                ("manage.py", "seed_demo"),
                after=("migrate", "hub"),
                once=True,
                stdout=self.seeded.with_suffix(".new"),
                finish=self._publish,
            ),
            self._python(
                "web",
                ("-m", "uvicorn", "portal.asgi:application", *host_and_port),
                ("--timeout-graceful-shutdown", "3", "--no-access-log"),
                account="live",
                extra={"SLIPWAY_DB_POOL": "1"},
                after=("migrate", "redis"),
                ready=answers(f"{self.url('web')}/readyz"),
            ),
            # Two processes, not threads: a task that hangs can be ended by its time limit, and forking after the
            # imports shares most of their memory (measured: docs/measured.md).
            self._python(
                "worker",
                (*celery, "worker", "--concurrency", "2", "--pool", "prefork", "--hostname", "slipway@demo"),
                ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO"),
                account="worker",
                extra={"SLIPWAY_SEAL_PRIVATE_KEYS": self._sealing_keys[1]},
                after=("seed", "redis", self._cluster_up),
            ),
            self._python(
                "beat",
                (*celery, "beat", "--schedule", str(self.layout / "beat-schedule"), "--pidfile="),
                ("--loglevel", "WARNING"),
                after=("seed", "redis"),
            ),
            self._python("watcher", ("manage.py", "watcher"), account="watcher", after=("seed", self._cluster_up)),
            self._sandbox(
                "traffic",
                ("--gateway-url", self.url("gateway"), "--plan", str(self.layout / "traffic.json")),
                ("--token-file", str(self.layout / "traffic-token")),
                ("--keys-file", str(self.layout / "traffic-keys.json")),
                account="metrics",
                after=("gateway", "seed"),
            ),
        ]

    def _python(
        self, name: str, *words: tuple[str, ...], account: str = "", extra: dict[str, str] | None = None, **more: Any
    ) -> Program:
        """Return a process of the portal; of the cluster's credentials it is given those of `account` alone."""
        argv = (sys.executable, *(word for group in words for word in group))
        others = {key for key in self.environment if key.startswith("KUBECONFIG_")} - {f"KUBECONFIG_{account.upper()}"}
        environment = {key: value for key, value in self.environment.items() if key not in others}
        return Program(name, argv, env={**_base_environment(), **environment, **(extra or {})}, **more)

    def _sandbox(self, part: str, *words: tuple[str, ...], name: str = "", account: str = "", **more: Any) -> Program:
        arguments = [word for group in words for word in group]
        if account:
            arguments += ["--kubeconfig", self._account(account)]
        return Program(
            name or part, (sys.executable, "-m", "sandbox", part, *arguments), env=_base_environment(), **more
        )

    def _account(self, name: str) -> str:
        return str(self.layout / "cluster" / f"{name}.kubeconfig")

    def _copy_kubeconfig(self) -> None:
        write_private(self.kubeconfig, (self.layout / "cluster" / "admin.kubeconfig").read_text())

    def _publish(self) -> None:
        """Pass on what seeding told: who can log in, and which services get background traffic with which key."""
        fresh = self.seeded.with_suffix(".new")
        fresh.chmod(0o600)
        fresh.replace(self.seeded)
        seeded = self._seed()
        write_private(self.layout / "traffic-token", str(seeded.get("traffic_token", "")))
        write_private(self.layout / "traffic-keys.json", json.dumps(seeded.get("traffic_keys", {})))
        write_private(self.layout / "traffic.json", json.dumps(seeded.get("traffic", {})))
        self.layout.write_description(self.describe())

    def _seed(self) -> dict[str, Any]:
        if not self.seeded.exists() or not self.seeded.stat().st_size:
            return {}
        told = json.loads(self.seeded.read_text())
        return told if isinstance(told, dict) else {"accounts": told}


def reset(data: Path) -> bool:
    """Remove a data folder; False when there was none."""
    if not data.exists():
        return False
    shutil.rmtree(data)
    return True


def _base_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Handed over as found here: whatever leads to the cache in this process, no child looks for another.
    return {**kept, "SLIPWAY_CACHE": str(tools.cache_root().absolute()), "PYTHONUNBUFFERED": "1"}
