"""How a real installation begins: platform, admin, teams, by commands that may run again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from deployments.engine.plugins import Plugin
from deployments.models import CatalogEntry, Cluster, EngineProfile, Event, Flavor, Membership, Node, Team, User
from deployments.services import facts

pytestmark = pytest.mark.django_db
IMAGE = f"registry.example.com/vllm:v0.32.0@sha256:{'a' * 64}"
PASSWORD = "long enough to be good"


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def password(tmp_path: Path) -> str:
    """A file with a password."""
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    return str(file)


def run(*words: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command(*words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def make_node(product: str, **fields: Any) -> Node:
    cluster = Cluster.objects.get_or_create(name="main")[0]
    return Node.objects.create(cluster=cluster, name=f"node-{Node.objects.count()}", product=product, **fields)


def test_the_platform_is_made_of_what_the_nodes_have() -> None:
    make_node("NVIDIA-L40S", memory_mib=46000, capacity=4)
    make_node("NVIDIA-L40S", memory_mib=46068, capacity=8)
    make_node("ACME-9000", memory_mib=1, capacity=1)

    _, complaints = run("setup_platform", "--image", IMAGE)

    (flavor,) = Flavor.objects.all()
    assert (flavor.slug, flavor.name) == ("l40s-48gb", "L40S 48 GB")
    assert (flavor.memory_mib, flavor.gpus_per_node) == (46068, 8)
    assert "ACME-9000" in complaints
    profile = EngineProfile.objects.get()
    assert (profile.image, profile.active) == (IMAGE, True)
    assert CatalogEntry.objects.exists()


def test_a_second_run_changes_nothing_that_an_operator_changed() -> None:
    run("setup_platform", "--gpu", "NVIDIA-L4", "--gpu", "NVIDIA-A10", "--image", IMAGE)
    Flavor.objects.filter(product="NVIDIA-L4").update(price_per_hour=2)

    out, _ = run("setup_platform", "--gpu", "NVIDIA-L4", "--image", IMAGE)

    assert out == ""
    assert Flavor.objects.get(product="NVIDIA-L4").price_per_hour == 2
    assert set(Flavor.objects.values_list("slug", flat=True)) == {"l4-24gb", "a10"}


def test_an_engine_whose_image_is_a_stand_in_is_not_offered() -> None:
    _, complaints = run("setup_platform")

    assert not EngineProfile.objects.filter(active=True).exists()
    assert "--image" in complaints
    assert "start the watcher" in complaints
    assert Cluster.objects.get().name == "main"


def test_an_engine_of_another_version_stands_beside_the_newest() -> None:
    older = f"registry.example.com/vllm:v0.20.0@sha256:{'b' * 64}"
    out, _ = run("setup_platform", "--image", IMAGE, "--engine", f"0.20.0={older}")

    assert f"made engine vllm-0.20.0: {older}" in out
    profile = EngineProfile.objects.get(slug="vllm-0.20.0")
    assert (profile.version, profile.image, profile.active) == ("0.20.0", older, True)
    assert "engine vllm" not in run("setup_platform", "--image", IMAGE, "--engine", f"0.20.0={older}")[0]
    moved = older.replace("b", "c")
    assert run("setup_platform", "--engine", f"0.20.0={moved}")[0] == f"changed engine vllm-0.20.0: {moved}\n"


def test_what_an_image_has_besides_vllm_is_said_and_taken_back() -> None:
    run("setup_platform", "--image", IMAGE)
    out, _ = run("setup_platform", "--plugins", "vllm-0.32.0=gguf,bitsandbytes")

    assert "plugins of vllm-0.32.0: bitsandbytes, gguf" in out
    row = EngineProfile.objects.get(slug="vllm-0.32.0")
    assert (row.plugins, row.title) == (["bitsandbytes", "gguf"], "vLLM 0.32.0 with bitsandbytes and GGUF")
    assert facts.profiles()["vllm-0.32.0"].plugins == (Plugin.BITSANDBYTES, Plugin.GGUF)
    assert "plugins of" not in run("setup_platform", "--plugins", "vllm-0.32.0=gguf,bitsandbytes")[0]
    assert "plugins of vllm-0.32.0: none" in run("setup_platform", "--plugins", "vllm-0.32.0=")[0]
    assert EngineProfile.objects.get(slug="vllm-0.32.0").title == "vLLM 0.32.0"


@pytest.mark.parametrize("way", [["--image", "{}"], ["--engine", "0.32.0={}"]])
def test_what_was_said_of_an_image_is_not_said_of_another_one(way: list[str]) -> None:
    run("setup_platform", "--image", IMAGE, "--plugins", "vllm-0.32.0=gguf,bitsandbytes")
    known = set(Event.objects.values_list("pk", flat=True))
    other = f"elsewhere.example.com/vllm:v0.32.0@sha256:{'d' * 64}"

    out, _ = run("setup_platform", *(word.format(other) for word in way))

    moved, taken_back = out.splitlines()
    assert (moved.startswith("changed "), moved.endswith(f"vllm-0.32.0: {other}")) == (True, True)
    assert taken_back.startswith("changed plugins of vllm-0.32.0: none; bitsandbytes, gguf were said of another image.")
    assert taken_back.endswith("--plugins vllm-0.32.0=bitsandbytes,gguf")
    row = EngineProfile.objects.get(slug="vllm-0.32.0")
    assert (row.image, row.plugins) == (other, [])
    changes = Event.objects.filter(kind="engine_changed").exclude(pk__in=known)
    line = changes.get()
    assert line.data == {
        "engine": "vllm-0.32.0",
        "before": {"image": IMAGE, "active": True, "plugins": ["bitsandbytes", "gguf"]},
        "after": {"image": other, "active": True, "plugins": []},
    }
    assert line.actor is None
    assert line.message.endswith("bitsandbytes and GGUF were said of another one: say again what this has.")
    assert run("setup_platform", *(word.format(other) for word in way))[0] == ""
    assert changes.count() == 1


def test_the_same_image_from_another_registry_keeps_what_was_said_of_it() -> None:
    run("setup_platform", "--image", IMAGE, "--plugins", "vllm-0.32.0=gguf")
    mirrored = f"mirror.example.com/vllm@{IMAGE.rpartition('@')[2]}"

    assert run("setup_platform", "--image", mirrored)[0] == f"changed image of vllm-0.32.0: {mirrored}\n"
    assert EngineProfile.objects.get(slug="vllm-0.32.0").plugins == ["gguf"]


def test_plugins_said_with_a_new_image_are_those_of_it() -> None:
    run("setup_platform", "--image", IMAGE, "--plugins", "vllm-0.32.0=gguf,bitsandbytes")
    other = f"elsewhere.example.com/vllm@sha256:{'d' * 64}"

    run("setup_platform", "--image", other, "--plugins", "vllm-0.32.0=gguf")

    row = EngineProfile.objects.get(slug="vllm-0.32.0")
    assert (row.image, row.plugins) == (other, ["gguf"])


@pytest.mark.parametrize("word", ["vllm-0.32.0=llama.cpp", "vllm-9.9.9=gguf", "gguf"])
def test_plugins_and_engines_that_are_not_known_are_not_taken(word: str) -> None:
    run("setup_platform", "--image", IMAGE)
    with pytest.raises(CommandError, match="Known"):
        run("setup_platform", "--plugins", word)


@pytest.mark.parametrize("word", ["0.20.0=vllm:latest", "0.20.0", f"9.9.9={IMAGE}"])
def test_an_engine_without_digest_or_of_unknown_flags_is_not_taken(word: str) -> None:
    with pytest.raises(CommandError):
        run("setup_platform", "--engine", word)
    assert not EngineProfile.objects.exists()


@pytest.mark.parametrize("words", [["--image", "vllm:latest"], ["--gpu", "ACME-9000"]])
def test_what_cannot_be_is_refused_and_nothing_is_made(words: list[str]) -> None:
    with pytest.raises(CommandError):
        run("setup_platform", *words)
    assert not EngineProfile.objects.exists()


def test_the_first_admin_can_sign_in(password: str) -> None:
    run("make_admin", "root", "--password-file", password)

    user = User.objects.get(username="root")
    assert user.is_platform_admin
    assert user.is_staff
    assert Client().login(username="root", password=PASSWORD)
    told = Event.objects.get(kind="account_made").data
    assert (told["user"], told["after"]["admin"]) == (user.pk, True)
    assert PASSWORD not in str(told)


def test_somebody_who_is_there_is_promoted_and_keeps_their_password(password: str) -> None:
    run("make_user", "ann", "--password-file", password)
    assert not User.objects.get(username="ann").is_platform_admin

    run("make_admin", "ann")

    assert User.objects.get(username="ann").is_platform_admin
    assert Client().login(username="ann", password=PASSWORD)


def test_a_bad_password_makes_no_account(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")

    with pytest.raises(CommandError, match="too short"):
        run("make_admin", "root", "--password-file", str(tmp_path / "short"))
    assert not User.objects.exists()


def test_a_team_is_made_with_its_lead_and_brought_up_to_date(password: str, no_broker: Any) -> None:
    with pytest.raises(CommandError, match="make_admin"):
        run("make_team", "search")
    run("make_admin", "root", "--password-file", password)
    run("make_user", "ann", "--password-file", password)
    with pytest.raises(CommandError, match="nobody"):
        run("make_team", "search", "--lead", "nobody")
    assert not Team.objects.exists()

    run("make_team", "search", "--name", "Search", "--lead", "ann")
    before = Team.objects.get()
    run("make_team", "search", "--policy", "auto", "--lead", "ann")

    after = Team.objects.get()
    assert (after.namespace, after.name, after.policy) == (before.namespace, "Search", Team.Policy.AUTO)
    assert Membership.objects.get(team=after).role == Membership.Role.LEAD
