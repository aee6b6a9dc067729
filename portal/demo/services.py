"""The three servers of the stack, as programs: PostgreSQL, Redis and Prometheus."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from portal.demo import identity
from portal.demo.program import Program, answers, replies

POSTGRES_FOLDERS = "/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/pgsql"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# "$1" folder, "$2" programs, "$3" "quick" for data that may be lost with the machine
INIT = """
set -e
[ -e "$1/made" ] && exit 0
rm -rf "$1/data"
"$2/initdb" -D "$1/data" -U postgres -A scram-sha-256 --pwfile="$1/admin-password" \
    -E UTF8 --locale=C.UTF-8 --no-sync
"$2/postgres" --single -D "$1/data" postgres < "$1/roles.sql"
touch "$1/made"
"""

PROMETHEUS_CONFIG = """\
global:
  scrape_interval: {interval}s
  scrape_timeout: {timeout}s
  evaluation_interval: {interval}s
rule_files:
  - {folder}/rules/*.yml
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: ["127.0.0.1:{port}"]
  # Its own port: where callers come in, the gateway tells nobody which teams and models there are.
  - job_name: slipway-gateway
    static_configs:
      - targets: ["127.0.0.1:{gateway}"]
    metric_relabel_configs: &drop_created
      - source_labels: [__name__]
        regex: ".+_created"
        action: drop
  # Written by the sandbox's discovery, which plays prometheus-operator; each group brings its own job label.
  - job_name: discovered
    file_sd_configs:
      - files: ["{folder}/targets/*.json"]
        refresh_interval: 5m
    metric_relabel_configs: *drop_created
  # Targets whose own namespace and pod labels win, as kube-state-metrics' do.
  - job_name: discovered-honor-labels
    honor_labels: true
    file_sd_configs:
      - files: ["{folder}/targets/honor/*.json"]
        refresh_interval: 5m
    metric_relabel_configs: *drop_created
"""


@dataclass(frozen=True)
class Found:
    """Where the programs of the system lie; None for what is missing."""

    postgres: Path | None  # the folder with initdb and postgres
    redis: Path | None
    prometheus: Path | None


def find() -> Found:
    """Look for the servers on this machine, newest PostgreSQL first."""
    return Found(_find_postgres(), _which("redis-server", "valkey-server"), _which("prometheus"))


def postgres(found: Path, folder: Path, *, port: int, password: str, admin_password: str, quick: bool) -> list[Program]:
    """PostgreSQL in `folder` with database and role `slipway`; `quick` trades safety in a power cut for speed.

    The role owns its database and is no superuser, save where `quick` marks data of tests: they clear tables
    under `session_replication_role`.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    who = identity.choose(folder)
    rights = "SUPERUSER" if quick else "NOSUPERUSER"

    def before() -> None:
        _private(folder / "admin-password", admin_password + "\n")
        # Single-user mode ends a statement at the line's end and knows no parameters; the password is hexadecimal.
        _private(
            folder / "roles.sql",
            f"CREATE ROLE slipway LOGIN {rights} PASSWORD '{password}'\nCREATE DATABASE slipway OWNER slipway\n",
        )
        who.own(folder)

    environment = {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 80,
        "shared_buffers": "64MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
        "fsync": "off" if quick else "on",
        "full_page_writes": "off" if quick else "on",
    }
    words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
    return [
        Program(
            "initdb",
            (*who.prefix, "sh", "-c", INIT, "initdb", str(folder), str(found)),
            env=environment,
            once=True,
            before=before,
        ),
        Program(
            "postgres",
            (*who.prefix, str(found / "postgres"), "-D", str(folder / "data"), *words),
            env=environment,
            after=("initdb",),
            # It asks for the password only when it takes connections; while it starts it answers an error.
            ready=replies(port, _startup_message(), b"SCRAM-SHA-256"),
            stop_signal=signal.SIGINT,
        ),
    ]


def redis(found: Path, folder: Path, *, port: int, password: str) -> Program:
    """Redis as a broker that keeps nothing: every message is a hint."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = {
        "bind": "127.0.0.1",
        "port": port,
        "requirepass": password,
        "dir": folder,
        "save": '""',
        "appendonly": "no",
        "maxmemory": "64mb",
        "maxmemory-policy": "noeviction",
    }

    def before() -> None:
        _private(folder / "redis.conf", "".join(f"{key} {value}\n" for key, value in settings.items()))

    ping = f"AUTH {password}\r\nPING\r\n".encode()
    return Program(
        "redis",
        (str(found), str(folder / "redis.conf")),
        env={"PATH": SYSTEM_PATH},
        before=before,
        ready=replies(port, ping, b"+OK"),
    )


def prometheus(found: Path, folder: Path, *, port: int, gateway: int, interval: int) -> Program:
    """Prometheus: `gateway`'s port and what discovery writes to `folder`/targets, by rules of `folder`/rules."""
    for name in ("data", "targets/honor", "rules"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"

    def before() -> None:
        timeout = min(interval, 4)
        text = PROMETHEUS_CONFIG.format(folder=folder, port=port, gateway=gateway, interval=interval, timeout=timeout)
        config.write_text(text)

    return Program(
        "prometheus",
        (
            str(found),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=24h",
            "--storage.tsdb.retention.size=512MB",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-lifecycle",
            "--log.level=warn",
        ),
        env={"PATH": SYSTEM_PATH, "GOMAXPROCS": "2"},
        before=before,
        ready=answers(f"http://127.0.0.1:{port}/-/ready"),
    )


def _startup_message() -> bytes:
    body = (3 << 16).to_bytes(4, "big") + b"user\0slipway\0database\0slipway\0\0"
    return (len(body) + 4).to_bytes(4, "big") + body


def _find_postgres() -> Path | None:
    folders = [path for base in POSTGRES_FOLDERS for path in Path(base).glob("*/bin") if (path / "initdb").exists()]
    if folders:
        return max(folders, key=lambda path: [int(word) for word in path.parent.name.split(".") if word.isdigit()])
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


def _which(*names: str) -> Path | None:
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    return next((Path(found) for name in names if (found := shutil.which(name, path=path))), None)


def _private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
