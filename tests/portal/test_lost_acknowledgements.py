"""A worker whose broker hung while a task ended takes the next one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portal.demo.layout import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

APP = """
import time
from pathlib import Path
from celery import Celery
from portal.broker import Watch
from portal.celery import PortalTask

app = Celery("acks", broker={broker!r}, task_cls=PortalTask)
app.conf.update(
    task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=1, worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={{"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry_on_timeout": False}},
)
app.steps["consumer"].add(Watch)

@app.task(name="note")
def note(word, seconds):
    Path({folder!r}, word).touch()
    time.sleep(seconds)
    Path({folder!r}, word + ".done").touch()
"""


def until(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.05)
    return what()


@pytest.fixture
def redis() -> Iterator[tuple[int, str]]:
    """A Redis of its own: its process id and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = shutil.which("redis-server") or pytest.fail("redis-server is not installed")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([server, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], **quiet)

    def up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    assert until(up, 20)
    yield process.pid, f"redis://127.0.0.1:{port}/0"
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


def test_a_broker_that_hung_while_a_task_ended_does_not_stop_a_worker(redis: tuple[int, str], tmp_path: Path) -> None:
    pid, broker = redis
    (tmp_path / "acks.py").write_text(APP.format(broker=broker, folder=str(tmp_path)))
    path = f"{tmp_path}:{REPOSITORY}"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOME": str(tmp_path)}
    celery = [sys.executable, "-m", "celery", "-A", "acks"]
    log = tmp_path / "log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            [*celery, "worker", "-c", "1", "--without-gossip", "--without-mingle", "--loglevel", "INFO"],
            cwd=tmp_path, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

        def call(word: str, seconds: float) -> None:
            arguments = [*celery, "call", "note", "--args", f'["{word}", {seconds}]']
            subprocess.run(arguments, cwd=tmp_path, env=environment, check=True, capture_output=True)

        try:
            call("first", 1.0)
            assert until((tmp_path / "first").exists, 30), log.read_text()
            os.kill(pid, signal.SIGSTOP)
            assert until(lambda: "did not take an acknowledgement" in log.read_text(), 20), log.read_text()
            os.kill(pid, signal.SIGCONT)
            call("second", 0.0)
            assert until((tmp_path / "second.done").exists, 30), log.read_text()
        finally:
            worker.terminate()
            worker.wait(20)
