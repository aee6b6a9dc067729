"""Ports, logs, descriptions and what the terminal shows."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from portal.demo.cli import main
from portal.demo.layout import REPOSITORY, Layout
from portal.demo.logs import LogFolder
from portal.demo.ports import HIGHEST, LOWEST, PREFIXES, PortBook, is_free
from portal.demo.program import Program, answers, listens
from portal.demo.report import Terminal, table
from portal.demo.running import idle_folder
from portal.demo.supervisor import with_needs


def taken(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    holder = socket.socket()
    holder.bind((host, port))
    holder.listen()
    return holder


def test_ports_are_kept_for_the_next_start(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports.json", preferred={})
    first = book.choose(["postgres", "redis"])
    book.save()
    again = PortBook(tmp_path / "ports.json", preferred={}).choose(["postgres", "redis", "new"])
    assert again["postgres"] == first["postgres"]
    assert again["redis"] == first["redis"]
    assert len(set(again.values())) == 3
    assert all(LOWEST <= port < HIGHEST for port in again.values())


def test_a_taken_port_is_exchanged_and_only_that_one(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports.json", preferred={})
    first = book.choose(["postgres", "redis"])
    with taken(port=first["redis"]):
        second = book.choose(["postgres", "redis"])
    assert second["postgres"] == first["postgres"]
    assert second["redis"] != first["redis"]


def test_the_preferred_port_is_used_when_it_is_free(tmp_path: Path) -> None:
    with taken() as holder:
        busy = holder.getsockname()[1]
        assert PortBook(tmp_path / "a.json", preferred={"web": busy}).choose(["web"])["web"] != busy
    assert PortBook(tmp_path / "b.json", preferred={"web": busy}).choose(["web"])["web"] == busy


def test_a_port_that_another_stack_has_chosen_is_left_to_it(tmp_path: Path) -> None:
    """Nobody listens on it yet: two stacks that start at once would both find it free."""
    with taken() as holder:
        port = holder.getsockname()[1]
    claiming = "import sys; from portal.demo.ports import claimed; print(claimed(int(sys.argv[1])), flush=1); input()"
    words = [sys.executable, "-c", claiming, str(port)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert PortBook(tmp_path / "a.json", preferred={"web": port}).choose(["web"])["web"] != port
        other.communicate("\n")
    assert PortBook(tmp_path / "b.json", preferred={"web": port}).choose(["web"])["web"] == port


def test_nodes_get_addresses_that_nobody_listens_on(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports.json", preferred={})
    prefix = book.choose_prefix()
    assert prefix in PREFIXES
    assert book.choose_prefix() == prefix
    with taken(f"127.{prefix}.255.1", 9400):
        assert book.choose_prefix() != prefix


def test_a_free_port_is_told_from_a_taken_one() -> None:
    with taken() as holder:
        port = holder.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_secrets_are_made_once_and_read_by_their_owner_alone(tmp_path: Path) -> None:
    secrets = Layout(tmp_path).secrets()
    assert Layout(tmp_path).secrets() == secrets
    assert len({*secrets.values()}) == len(secrets)
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_the_environment_file_can_be_read_by_a_shell(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.write_environment({"A": "it's $HOME", "B": "plain"})
    with os.popen(f'. {tmp_path / "env"}; printf \'%s|%s\' "$A" "$B"') as shell:
        assert shell.read() == "it's $HOME|plain"
    assert stat.S_IMODE((tmp_path / "env").stat().st_mode) == 0o600


def test_a_log_that_grew_too_large_is_cut_while_its_writer_goes_on(tmp_path: Path) -> None:
    logs = LogFolder(tmp_path, limit=1000)
    with logs.open("web") as writer:
        writer.write(b"x" * 1500 + b"end\n")
        writer.flush()
        logs.trim()
        writer.write(b"after\n")
        writer.flush()
    assert logs.path("web").read_bytes() == b"after\n"
    assert (tmp_path / "web.log.1").read_bytes().endswith(b"xend\n")
    assert len((tmp_path / "web.log.1").read_bytes()) == 1000


def test_the_end_of_a_log_is_shown_and_an_empty_one_is_named(tmp_path: Path) -> None:
    logs = LogFolder(tmp_path)
    assert "nothing was logged" in logs.tail("web")
    logs.path("web").write_text("\n".join(str(n) for n in range(100)))
    assert logs.tail("web", lines=2) == "    98\n    99"


def test_a_reader_that_went_away_does_not_end_the_demo() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    terminal = Terminal(Closed())
    terminal.say("one")
    terminal.notice("two")


def test_the_closing_words_name_address_and_people() -> None:
    out = io.StringIO()
    accounts = [{"username": "alice", "password": "pw", "role": "member", "team": "search", "token": "t"}]
    description = {"url": "http://127.0.0.1:8000", "accounts": accounts}
    Terminal(out).closing(description, ".demo/kubeconfig", "http://127.0.0.1:9", ".demo/mail")
    text = out.getvalue()
    shown = "http://127.0.0.1:8000", "alice", "pw", "member", "search", ".demo/kubeconfig", ".demo/mail", "Ctrl-C"
    for word in shown:
        assert word in text


def test_tables_line_up() -> None:
    assert table(("a", "bb"), [("xxx", "y")]) == ["a    bb", "---  --", "xxx  y"]


def test_asking_for_a_program_brings_what_it_needs() -> None:
    programs = [Program("a", ("x",)), Program("b", ("x",), after=("a",)), Program("c", ("x",), after=("b",))]
    assert [program.name for program in with_needs(programs, ["b"])] == ["a", "b"]
    with pytest.raises(KeyError):
        with_needs(programs, ["nonsense"])


def test_readiness_is_asked_of_the_server_itself() -> None:
    async def check() -> None:
        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readline()
            status = {b"/ok": b"200 OK", b"/login": b"302 Found"}.get(request.split()[1], b"503 Busy")
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert await listens(port)()
        assert await answers(f"http://127.0.0.1:{port}/ok")()
        assert not await answers(f"http://127.0.0.1:{port}/login")()
        assert await answers(f"http://127.0.0.1:{port}/login", anything=True)()
        assert not await answers(f"http://127.0.0.1:{port}/other", anything=True)()
        server.close()
        await server.wait_closed()
        assert not await listens(port)()

    asyncio.run(check())


def test_demo_json_has_the_promised_keys(tmp_path: Path) -> None:
    from portal.demo.stack import Stack

    stack = Stack(tmp_path)
    accounts = [{"username": "a", "password": "b", "role": "lead", "team": "t", "token": "x"}]
    (tmp_path / "seed.new").write_text(
        json.dumps({"accounts": accounts, "traffic": {"t-*/chat": 1}, "traffic_token": "k"})
    )
    stack._publish()
    description = json.loads((tmp_path / "demo.json").read_text())
    assert set(description) == {"url", "prometheus_url", "gateway_url", "kubeconfig", "accounts"}
    assert description["accounts"] == accounts
    assert stat.S_IMODE((tmp_path / "demo.json").stat().st_mode) == 0o600
    assert (tmp_path / "traffic-token").read_text() == "k"
    assert json.loads((tmp_path / "traffic.json").read_text()) == {"t-*/chat": 1}


def test_each_process_is_given_only_the_cluster_credentials_that_it_needs(tmp_path: Path) -> None:
    from portal.demo.stack import Stack

    given = {
        program.name: {key for key in program.env if key.startswith("KUBECONFIG")}
        for program in Stack(tmp_path).programs
        if "DATABASE_URL" in program.env
    }
    assert given == {
        "migrate": set(),
        "seed": set(),
        "web": {"KUBECONFIG_LIVE"},
        "worker": {"KUBECONFIG_WORKER"},
        "beat": set(),
        "watcher": {"KUBECONFIG_WATCHER"},
    }


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"XDG_CACHE_HOME": "/somewhere/cache"}, "/somewhere/cache/slipway"),
        ({"SLIPWAY_CACHE": "/built", "XDG_CACHE_HOME": "/somewhere/cache"}, "/built"),
        ({"HOME": "/home/ann"}, "/home/ann/.cache/slipway"),
    ],
    ids=("XDG_CACHE_HOME", "SLIPWAY_CACHE", "HOME"),
)
def test_every_program_looks_for_what_was_built_in_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], place: str
) -> None:
    from portal.demo.stack import Stack
    from sandbox.real import tools

    for name in ("SLIPWAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    programs = [program for program in Stack(tmp_path).programs if program.argv[0] == sys.executable]
    assert {"node-gpu-l4-1", "web", "gateway", "traffic"} <= {program.name for program in programs}
    for program in programs:
        assert program.env["SLIPWAY_CACHE"] == place, program.name
        with monkeypatch.context() as theirs:  # as the program itself finds it
            for name in ("SLIPWAY_CACHE", "XDG_CACHE_HOME", "HOME"):
                theirs.delenv(name, raising=False)
            for name, value in program.env.items():
                theirs.setenv(name, value)
            assert str(tools.cache_root()) == place, program.name


@pytest.mark.parametrize(("begun", "wanted"), [("lite", "real"), ("real", "lite")])
def test_a_folder_of_another_ground_is_refused_before_anything_is_done_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], begun: str, wanted: str
) -> None:
    from portal.demo import install
    from sandbox.real import build

    def never(*_: object) -> bool:
        raise AssertionError("built or installed something for a folder that it then refuses")

    monkeypatch.setattr(install, "ensure", never)
    monkeypatch.setattr(build, "ensure", never)
    assert Layout(tmp_path).ground(begun) == begun

    assert main(["up", "--data", str(tmp_path), "--cluster", wanted]) == 1
    assert f"CLUSTER={begun}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["ground"]


def test_values_of_credentials_are_opened_by_the_worker_alone(tmp_path: Path) -> None:
    from portal.demo.stack import Stack

    stack = Stack(tmp_path)
    programs = {program.name: program.env for program in stack.programs}
    assert [name for name, env in programs.items() if "SLIPWAY_SEAL_PRIVATE_KEYS" in env] == ["worker"]
    assert programs["web"]["SLIPWAY_SEAL_PUBLIC_KEY"] == programs["worker"]["SLIPWAY_SEAL_PUBLIC_KEY"]
    assert "SLIPWAY_SEAL_PRIVATE_KEYS" not in stack.environment
    assert stat.S_IMODE((tmp_path / "sealing-keys").stat().st_mode) == 0o600
    assert Stack(tmp_path).environment["SLIPWAY_SEAL_PUBLIC_KEY"] == programs["web"]["SLIPWAY_SEAL_PUBLIC_KEY"]


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    first = idle_folder(tmp_path / "servers")
    assert first == tmp_path / "servers"
    with Layout(first).alone() as alone:
        assert alone
        assert idle_folder(tmp_path / "servers") == tmp_path / "servers-2"
    assert idle_folder(tmp_path / "servers") == first


def test_two_that_look_at_the_same_moment_get_different_folders(tmp_path: Path) -> None:
    look = "import sys; from pathlib import Path; from portal.demo.running import idle_folder; "
    look += "print(idle_folder(Path(sys.argv[1])).name, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", look, str(tmp_path / "servers")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    names = {process.stdout.readline().strip() for process in both}  # both are there still
    for process in both:
        process.communicate()

    assert names == {"servers", "servers-2"}
    assert idle_folder(tmp_path / "servers") == tmp_path / "servers"


def test_mails_are_for_this_account_alone(tmp_path: Path) -> None:
    Layout(tmp_path).keep_mail()

    assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700
