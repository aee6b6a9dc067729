"""The processes of the real control plane: what each is told, and what has to be up before it.

etcd, kube-apiserver, controller manager, scheduler, both KServe controllers and the LeaderWorkerSet controller, all of
them on 127.0.0.1 and on ports of their own. Between them two steps put objects into the cluster: what the controllers
need before they start, and the webhooks once those are served.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.certificates import Authority, Pair, signing_key
from sandbox.kubeconfigs import kubeconfig, write_kubeconfig
from sandbox.real import tools

PORTS = (
    "etcd",
    "etcd-http",
    "etcd-peer",
    "controller-manager",
    "scheduler",
    "kserve-webhook",
    "kserve-health",
    "llmisvc-webhook",
    "llmisvc-health",
    "lws-webhook",
    "lws-health",
)
# Conversion webhooks stand in the kinds themselves: with the same port as in the seed these need not be put again.
PREFERRED_PORTS = {"kserve": 15443, "llmisvc": 15444, "lws": 15445}
HOST = "127.0.0.1"
SERVING_CERTIFICATES = "k8s-webhook-server/serving-certs"  # where controller-runtime looks below its TMPDIR
SERVICE_RANGE = "10.96.0.0/16"
LEFT_OUT = "endpoints", "endpointslice", "endpointslice-mirroring"
# What these programs are told of Go: they are small, and processors scarcer than memory where a cluster fits a laptop,
# so garbage may pile up to four times the usual before it is collected, as long as it is not much in all.
GO = {"GOGC": "400", "GOMEMLIMIT": "900MiB"}
# A cluster's own users, by file name; each has a token in the API server's token file.
USERS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
}
# The controllers of the projects: their ServiceAccount, for whose token `install` asks.
CONTROLLERS = {
    "kserve": ("kserve", "kserve-controller-manager"),
    "llmisvc": ("kserve", "llmisvc-controller-manager"),
    "lws": ("lws-system", "lws-controller-manager"),
}


@dataclass(frozen=True)
class Part:
    """One process. `ready_url` answers 2xx when it is up (any certificate will do); `once` ends by itself."""

    name: str
    argv: tuple[str, ...]
    after: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ready_url: str = ""
    once: bool = False


@dataclass(frozen=True)
class ControlPlane:
    """A control plane in one data folder. `ports` has one for each of PORTS; `port` is the API server's."""

    folder: Path
    port: int
    ports: Mapping[str, int]
    accounts: tuple[str, ...] = ()
    manifests: tuple[Path, ...] = ()

    @property
    def url(self) -> str:
        """The API server."""
        return f"https://{HOST}:{self.port}"

    @property
    def audit_log(self) -> Path:
        """Where the API server writes one JSON line for every request that came to its end."""
        return self.folder / "audit.jsonl"

    def kubeconfig_of(self, account: str) -> Path:
        """The kubeconfig of `admin`, of a controller, or of an account asked for."""
        return self.folder / f"{account}.kubeconfig"

    def etcd_client(self) -> Pair:
        """The certificate by which the API server is known to etcd."""
        return Authority(self.folder).client("kube-apiserver-etcd")

    def parts(self) -> list[Part]:
        """Every process, those first that others need; writes the certificates, tokens and kubeconfigs of the cluster.

        FileNotFoundError when a program is not built.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = Authority(self.folder)
        self._write_users(authority)
        webhooks = webhook_authority().server("webhooks", (HOST, "localhost"))
        for name in CONTROLLERS:
            _copy_serving_certificate(self.folder / name, webhooks)
        return [
            self._etcd(authority),
            self._apiserver(authority),
            *self._own_controllers(),
            self._install("first", ("kube-apiserver",)),
            *self._project_controllers(),
            self._install("webhooks", (*CONTROLLERS, "kube-controller-manager", "kube-scheduler")),
        ]

    def _write_users(self, authority: Authority) -> None:
        tokens = self.folder / "tokens.csv"
        if not tokens.exists():
            tokens.touch(mode=0o600)
            lines = [f'{secrets.token_hex(24)},{user},{user},"{group}"\n' for user, group in USERS.values()]
            tokens.write_text("".join(lines))
        known = {line.split(",")[1]: line.split(",")[0] for line in tokens.read_text().splitlines()}
        for name, (user, _) in USERS.items():
            write_kubeconfig(self.kubeconfig_of(name), kubeconfig(self.url, authority.pem, user, known[user]))

    def _etcd(self, authority: Authority) -> Part:
        server = authority.server("etcd", (HOST, "localhost"), calls_itself=True)  # as its JSON gateway does
        url, peer = f"https://{HOST}:{self.ports['etcd']}", f"https://{HOST}:{self.ports['etcd-peer']}"
        options = {
            "name": "sandbox",
            "data-dir": self.folder / "etcd",
            "listen-client-urls": url,
            # With its JSON on another port it need not serve gRPC through Go's HTTP server: a fifth less work.
            "listen-client-http-urls": f"https://{HOST}:{self.ports['etcd-http']}",
            "advertise-client-urls": url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"sandbox={peer}",
            "cert-file": server.certificate,
            "key-file": server.key,
            "trusted-ca-file": authority.pair.certificate,
            "client-cert-auth": "true",
            "peer-cert-file": server.certificate,
            "peer-key-file": server.key,
            "peer-trusted-ca-file": authority.pair.certificate,
            "peer-client-cert-auth": "true",
            "unsafe-no-fsync": "true",  # what a power cut could take is a sandbox
            "log-level": "warn",
        }
        return Part("etcd", (str(tools.program("etcd")), *_flags(options)), env=GO)

    def _apiserver(self, authority: Authority) -> Part:
        hosts = (HOST, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1")
        server = authority.server("kube-apiserver", hosts)
        etcd = self.etcd_client()
        kubelet = authority.client("kube-apiserver-kubelet", "system:masters")
        private, public = signing_key(self.folder, "service-accounts")
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(AUDIT_POLICY)
        options = {
            "bind-address": HOST,
            "secure-port": self.port,
            "tls-cert-file": server.certificate,
            "tls-private-key-file": server.key,
            "client-ca-file": authority.pair.certificate,
            "token-auth-file": self.folder / "tokens.csv",
            "etcd-servers": f"https://{HOST}:{self.ports['etcd']}",
            "etcd-cafile": authority.pair.certificate,
            "etcd-certfile": etcd.certificate,
            "etcd-keyfile": etcd.key,
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": public,
            "service-account-signing-key-file": private,
            "service-cluster-ip-range": SERVICE_RANGE,
            # Its own address is a loopback one, which an Endpoints object may not hold.
            "endpoint-reconciler-type": "none",
            "authorization-mode": "RBAC",
            "allow-privileged": "true",
            "kubelet-client-certificate": kubelet.certificate,
            "kubelet-client-key": kubelet.key,
            "kubelet-preferred-address-types": "InternalIP",
            "audit-log-path": self.audit_log,
            "audit-policy-file": policy,
            "audit-log-maxsize": 200,
            "audit-log-maxbackup": 1,
            "profiling": "false",
        }
        return Part(
            "kube-apiserver",
            (str(tools.program("kube-apiserver")), *_flags(options)),
            after=("etcd",),
            env=GO,
            ready_url=f"{self.url}/readyz",
        )

    def _own_controllers(self) -> list[Part]:
        private, _ = signing_key(self.folder, "service-accounts")
        common = {"bind-address": HOST, "leader-elect": "false", "profiling": "false"}
        parts = []
        for name, more in (
            (
                "controller-manager",
                {
                    "service-account-private-key-file": private,
                    "root-ca-file": self.folder / "ca.crt",
                    "use-service-account-credentials": "true",
                    # Pods have loopback addresses here, which no Endpoints object may hold: the gateway asks for pods.
                    "controllers": ",".join(("*", *(f"-{name}-controller" for name in LEFT_OUT))),
                },
            ),
            ("scheduler", {}),
        ):
            options = {
                **common,
                "secure-port": self.ports[name],
                "kubeconfig": self.kubeconfig_of(name),
                "authentication-kubeconfig": self.kubeconfig_of(name),
                "authorization-kubeconfig": self.kubeconfig_of(name),
                **more,
            }
            program = f"kube-{name}"
            parts.append(
                Part(
                    program,
                    (str(tools.program(program)), *_flags(options)),
                    after=("kube-apiserver",),
                    env=GO,
                    ready_url=f"https://{HOST}:{self.ports[name]}/healthz",
                )
            )
        return parts

    def _project_controllers(self) -> list[Part]:
        parts = []
        for name, program in (("kserve", "kserve-manager"), ("llmisvc", "kserve-llmisvc")):
            health = f"{HOST}:{self.ports[f'{name}-health']}"
            options = {
                "kubeconfig": self.kubeconfig_of(name),
                "webhook-port": self.ports[f"{name}-webhook"],
                "health-probe-addr": health,
                "metrics-addr": "0",
            }
            parts.append(self._controller(name, program, options, f"http://{health}/readyz"))
        health = f"{HOST}:{self.ports['lws-health']}"
        config = self.folder / "lws-config.yaml"
        text = LWS_CONFIG.format(
            health=health, port=self.ports["lws-webhook"], certificates=self.folder / "lws" / SERVING_CERTIFICATES
        )
        config.write_text(text)
        options = {"kubeconfig": self.kubeconfig_of("lws"), "config": config}
        parts.append(self._controller("lws", "lws-manager", options, f"http://{health}/readyz"))
        return parts

    def _controller(self, name: str, program: str, options: Mapping[str, object], ready_url: str) -> Part:
        """A controller of another project: it finds its webhooks' certificate below its own TMPDIR."""
        namespace, _ = CONTROLLERS[name]
        return Part(
            name,
            (str(tools.program(program)), *_flags(options, dashes="-")),
            after=("install-first",),
            env={**GO, "POD_NAMESPACE": namespace, "TMPDIR": str(self.folder / name)},
            ready_url=ready_url,
        )

    def _install(self, stage: str, after: tuple[str, ...]) -> Part:
        words = ["--stage", stage, "--data", str(self.folder), "--url", self.url]
        for name in CONTROLLERS:
            words += ["--webhook", f"{name}={self.ports[f'{name}-webhook']}"]
        for account in self.accounts:
            words += ["--account", account]
        for path in self.manifests:
            words += ["--manifests", str(path)]
        argv = (sys.executable, "-m", "sandbox", "install", *words)
        return Part(f"install-{stage}", argv, after=after, once=True)


def webhook_authority() -> Authority:
    """Who signs the webhooks' certificate: one for all clusters of this user, since kinds in the seed name it."""
    return Authority(tools.cache_root() / "control-plane" / "webhooks", name="slipway-sandbox-webhooks")


# What Slipway's own accounts ask for, and nothing else.
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: ["system:serviceaccounts:slipway-system"]
  - level: None
"""

LWS_CONFIG = """\
apiVersion: config.lws.x-k8s.io/v1alpha1
kind: Configuration
leaderElection: {{leaderElect: false}}
internalCertManagement: {{enable: false}}
health: {{healthProbeBindAddress: "{health}"}}
metrics: {{bindAddress: "0"}}
webhook: {{host: 127.0.0.1, port: {port}, certDir: "{certificates}"}}
"""


def _flags(options: Mapping[str, object], dashes: str = "--") -> Sequence[str]:
    return [f"{dashes}{name}={value}" for name, value in options.items()]


def _copy_serving_certificate(folder: Path, pair: Pair) -> None:
    place = folder / SERVING_CERTIFICATES
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    (place / "tls.crt").write_bytes(pair.certificate.read_bytes())
    key = place / "tls.key"
    key.touch(mode=0o600)
    key.write_bytes(pair.key.read_bytes())
