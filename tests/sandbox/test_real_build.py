"""The real control plane's programs are found where they are, built where they are not, and kept by what made them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from sandbox.real import build, objects, tools
from sandbox.real.programs import CONTROLLERS, PORTS, ControlPlane

GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version go{version} linux/amd64"; exit; fi
if [ "$1" = list ]; then echo; exit; fi  # what it says of a module that nobody fetched
if [ "$1" = mod ]; then echo '{{"Dir": "{folder}"}}'; exit; fi
echo "$@" >> "{log}"
while [ $# -gt 0 ]; do
  if [ "$1" = "-o" ]; then echo built > "$2"; chmod +x "$2"; fi
  shift
done
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no program of the control plane anywhere else."""
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(tools, "go", lambda: shutil.which("go", path=os.environ["PATH"]))
    return tmp_path / "cache"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def fake_go(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Go client that writes down what it is told and makes what it should; returns its log."""
    log = tmp_path / "go.log"
    script(tmp_path / "bin" / "go", GO.format(log=log, folder=tmp_path, version="1.26.1"))
    for name in ("manager", "llmisvc"):
        script(tmp_path / "cmd" / name / "main.go", "webhook.Options{Port: options.webhookPort}")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "go.mod").touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    for group in tools.WITH_MANIFESTS:
        keep_manifests(group, [])
    return log


def keep_manifests(group: str, items: list[dict]) -> None:
    tools.manifests(group).parent.mkdir(parents=True, exist_ok=True)
    tools.manifests(group).write_text(json.dumps(items))


def test_without_go_one_sentence_says_so_and_names_the_other_ground(cache: Path) -> None:
    with pytest.raises(build.BuildError) as told:
        build.ensure(print)
    assert str(told.value).count(". ") == 0
    assert "CLUSTER=lite" in str(told.value)


def test_an_old_go_is_told_in_one_sentence_too(cache: Path, tmp_path: Path, monkeypatch) -> None:
    script(tmp_path / "bin" / "go", GO.format(log=tmp_path / "log", folder=tmp_path, version="1.22.4"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(build.BuildError, match=r"Go 1\.26 or newer, and this is 1\.22: .* CLUSTER=lite"):
        build.ensure(print)


def test_where_nothing_can_be_built_a_run_of_the_tests_goes_on(cache: Path, capsys) -> None:
    assert build.main(["--where-possible"]) == 0
    assert "`go` was not found" in capsys.readouterr().out
    assert build.main([]) == 1


def test_kserves_webhooks_are_built_to_listen_on_this_machine_alone(fake_go: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    pins = build._loopback(tools.TOOLS[4], made).read_text()
    assert f"\nreplace github.com/kserve/kserve => {made}/source\n" in pins
    text = (made / "source" / "cmd" / "manager" / "main.go").read_text()
    assert text == 'webhook.Options{Host: "127.0.0.1", Port: options.webhookPort}'
    (tmp_path / "cmd" / "manager" / "main.go").write_text("webhook.Options{}")
    with pytest.raises(build.BuildError, match="every address"):
        build._loopback(tools.TOOLS[4], tmp_path / "again")


def test_everything_is_built_once_with_progress(fake_go: Path) -> None:
    said: list[str] = []
    build.ensure(said.append)

    assert tools.missing() == []
    calls = fake_go.read_text().splitlines()
    assert [call.split()[-1] for call in calls] == [tool.package for tool in tools.TOOLS]
    assert [line for line in said if line.startswith("building kube-apiserver")] == [
        f"building kube-apiserver (2 of {len(tools.TOOLS)}; about 6 min the first time)"
    ]
    build.ensure(said.append)
    assert fake_go.read_text().splitlines() == calls


def test_kubernetes_programs_know_their_version(fake_go: Path) -> None:
    build.ensure(lambda line: None)
    told = next(line for line in fake_go.read_text().splitlines() if line.endswith("cmd/kube-apiserver"))
    assert "version.gitVersion=v1.36.3" in told
    assert "version.gitMinor=36" in told


def test_a_failing_build_says_why_and_leaves_no_program(cache: Path, tmp_path: Path, monkeypatch) -> None:
    failing = "#!/bin/sh\n[ $1 = version ] && exit\necho 'no space left on device' >&2\nexit 1\n"
    script(tmp_path / "bin" / "go", failing)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(build.BuildError, match="no space left on device"):
        build.ensure(lambda line: None)
    assert "etcd" in tools.missing()


@pytest.mark.parametrize(
    ("printed", "used"), [("Kubernetes v1.36.1", True), ("Kubernetes v1.31.0", False), ("", False)]
)
def test_a_program_that_is_there_already_is_used_when_its_version_fits(
    cache: Path, tmp_path: Path, monkeypatch, printed: str, used: bool
) -> None:
    assets = tmp_path / "assets"
    script(assets / "kube-apiserver", f"#!/bin/sh\necho '{printed}'\n")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert ("kube-apiserver" not in tools.missing()) is used


def test_what_was_built_is_kept_by_what_decides_it(tmp_path: Path, monkeypatch) -> None:
    before = tools.folder("etcd").name
    shutil.copytree(tools.MODULES, tmp_path / "tools")
    monkeypatch.setattr(tools, "MODULES", tmp_path / "tools")
    tools._key.cache_clear()
    try:
        assert tools.folder("etcd").name == before
        with (tmp_path / "tools" / "etcd" / "go.sum").open("a") as file:
            file.write("\n")
        tools._key.cache_clear()
        assert tools.folder("etcd").name != before
    finally:
        tools._key.cache_clear()


def test_every_process_is_told_its_address_and_what_must_be_up_before_it(fake_go: Path, tmp_path: Path) -> None:
    build.ensure(lambda line: None)
    plane = ControlPlane(tmp_path / "plane", 6443, {name: 7000 + number for number, name in enumerate(PORTS)})

    parts = {part.name: part for part in plane.parts()}

    assert parts["kserve"].after == ("install-first",)
    assert set(CONTROLLERS) < set(parts["install-webhooks"].after)
    for part in parts.values():
        for word in part.argv:
            assert "0.0.0.0" not in word
    assert "--bind-address=127.0.0.1" in parts["kube-apiserver"].argv
    assert stat.S_IMODE((tmp_path / "plane" / "tokens.csv").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "plane" / "ca.key").stat().st_mode) == 0o600


def test_webhooks_are_called_at_the_controllers_ports(fake_go: Path) -> None:
    service = {"name": "kserve-webhook-server-service", "namespace": "kserve", "path": "/mutate-pods"}
    hook = {"name": "pods", "clientConfig": {"service": service}, "rules": [{"resources": ["pods"]}]}
    keep_manifests(
        "kserve",
        [
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": "inferenceservice.serving.kserve.io"},
                "webhooks": [hook],
            },
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "kserve-controller-manager"}},
        ],
    )

    [made] = objects.webhooks({"kserve": 9443, "llmisvc": 9444, "lws": 9445}, b"PEM")

    assert made["webhooks"][0]["clientConfig"] == {"url": "https://127.0.0.1:9443/mutate-pods", "caBundle": "UEVN"}
    assert "Deployment" not in {item["kind"] for item in objects.foundation()}


def test_kinds_that_nothing_here_acts_on_are_not_installed(fake_go: Path) -> None:
    groups = {item["spec"]["group"] for item in objects.definitions({}, b"PEM")}
    assert "gateway.networking.k8s.io" in groups
    assert "keda.sh" not in groups
