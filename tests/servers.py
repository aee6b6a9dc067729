"""Servers that models come from, as programs of their own: S3 (moto) and MLflow, in an environment with both.

The environment is made once and kept for the next run; each server runs for one test session.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpx

from portal.demo.layout import REPOSITORY

LOCK = REPOSITORY / "requirements" / "servers.txt"
TOOLS = Path(sys.executable).parent
PATIENCE = 90.0
# So many requests are let in unsigned, for what a test prepares; after them keys and rights count.
UNSIGNED = 100_000


def environment() -> Path:
    """The folder of the environment; made where it is not there."""
    key = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    place = REPOSITORY / ".demo-test" / f"model-servers-{key}"
    place.parent.mkdir(exist_ok=True)
    # Several test processes may need it first.
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "made").exists():
            _run(TOOLS / "uv", "venv", "--quiet", "--clear", "--python", sys.executable, place)
            python = place / "bin/python"
            _run(TOOLS / "uv", "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", LOCK)
            (place / "made").touch()
    return place


@dataclass
class S3:
    """A running S3 server that checks keys and rights."""

    url: str

    def put(self, bucket: str, files: dict[str, bytes]) -> None:
        """Make a bucket, where it is not there, with these files."""
        self._let_in(True)
        self._send("PUT", f"/{bucket}")
        for name, content in files.items():
            self._send("PUT", f"/{bucket}/{name}", content=content)
        self._let_in(False)

    def user(self, name: str, *statements: dict[str, object]) -> dict[str, str]:
        """Make a user with these rights; returns their keys as a credential has them."""
        self._let_in(True)
        self._iam(Action="CreateUser", UserName=name)
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        self._iam(Action="PutUserPolicy", UserName=name, PolicyName="own", PolicyDocument=document)
        answer = self._iam(Action="CreateAccessKey", UserName=name)
        self._let_in(False)
        key_id = answer.partition("<AccessKeyId>")[2].partition("<")[0]
        secret = answer.partition("<SecretAccessKey>")[2].partition("<")[0]
        return {"access_key_id": key_id, "secret_access_key": secret}

    def _let_in(self, everybody: bool) -> None:
        count = str(UNSIGNED if everybody else 0)
        httpx.post(f"{self.url}/moto-api/reset-auth", content=count, trust_env=False).raise_for_status()

    def _iam(self, **form: str) -> str:
        return self._send("POST", "/", content=urlencode(form).encode(), service="iam")

    def _send(self, method: str, path: str, *, content: bytes = b"", service: str = "s3") -> str:
        # By the scope of a signature it tells its services apart; nobody checks this one.
        headers = {
            "Authorization": f"AWS4-HMAC-SHA256 Credential=prepare/20260101/us-east-1/{service}/aws4_request, "
            "SignedHeaders=host, Signature=none",
            **({"Content-Type": "application/x-www-form-urlencoded"} if service == "iam" else {}),
        }
        answer = httpx.request(method, f"{self.url}{path}", headers=headers, content=content, trust_env=False)
        assert answer.status_code < 300, answer.text
        return answer.text


@contextmanager
def s3() -> Iterator[S3]:
    """An S3 server."""
    words = ("-m", "moto.server", "-H", "127.0.0.1", "-p")
    with _running(words, "/moto-api/", {"INITIAL_NO_AUTH_ACTION_COUNT": "0"}) as url:
        yield S3(url)


@contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """An MLflow server with a registry in `folder`; yields its address."""
    words = (
        *("-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--default-artifact-root", "s3://weights/mlflow", "--no-serve-artifacts", "--workers", "1"),
        *("--host", "127.0.0.1", "--port"),
    )
    # Without its queue of jobs, which the registry does not need, it starts in half the time.
    with _running(words, "/health", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}) as url:
        yield url


@contextmanager
def _running(words: tuple[str, ...], ready: str, more: dict[str, str]) -> Iterator[str]:
    """Run a program of the environment whose last word is its port; yields its address once it answers."""
    port = _free_port()
    place = environment()
    log = place / f"server-{port}.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(place / "bin/python"), *words, str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "HOME": str(place), **more},
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _until_it_answers(server, f"{url}{ready}", log)
            yield url
        finally:
            os.killpg(server.pid, 15)
            server.wait(timeout=20)
            log.unlink(missing_ok=True)


def _until_it_answers(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert server.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            if httpx.get(url, trust_env=False, timeout=2).status_code < 500:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
