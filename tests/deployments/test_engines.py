"""Engines: who says what an image has besides vLLM, who hears of it, and what it does to wishes."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse

from deployments.models import Deployment, EngineProfile, Event, Flavor, Team, User
from deployments.services import engines
from deployments.services.errors import InvalidError, MissingError, NotAllowedError, StaleError
from tests.deployments import factories as make
from tests.deployments.test_api import Api
from tests.deployments.viewing import flat, signed_in

pytestmark = pytest.mark.django_db

UNKNOWN = "“llama.cpp” is not a plugin that Slipway knows. Known: gguf, bitsandbytes."
SLUG, PATH = "vllm-0.32.0", "profiles/vllm-0.32.0/"
GGUF = {
    **{"format": "gguf", "quantization": "gguf", "dtype": "float16", "file": "chat.gguf", "weights_bytes": 5 << 30},
    **{"described": True, "tokenizer": "beside"},
}


@pytest.fixture
def engine(db: None) -> EngineProfile:
    return make.make_profile()


def plugins() -> list[str]:
    return list(EngineProfile.objects.get(slug=SLUG).plugins)


def test_admins_alone_say_what_an_image_has(engine: EngineProfile, alice: User, carol: User) -> None:
    for principal in (make.principal(alice), make.principal(carol, "read", "write")):
        with pytest.raises(NotAllowedError):
            engines.change(principal=principal, slug=SLUG, plugins=["gguf"])
    assert plugins() == []

    saved = engines.change(principal=make.principal(carol), slug=SLUG, plugins=["gguf", "bitsandbytes", "gguf"])

    assert (saved.plugins, saved.title) == (["bitsandbytes", "gguf"], "vLLM 0.32.0 with bitsandbytes and GGUF")
    line = Event.objects.get(kind="engine_changed")
    assert (line.actor, line.message) == (carol, "Besides vLLM the image of vLLM 0.32.0 has bitsandbytes and GGUF")
    assert line.data == {
        "engine": SLUG,
        "before": {"plugins": []},
        "after": {"plugins": ["bitsandbytes", "gguf"]},
    }


def test_what_changes_nothing_is_no_line_of_the_audit(engine: EngineProfile, carol: User) -> None:
    for said in (None, []):
        engines.change(principal=make.principal(carol), slug=SLUG, plugins=said)
    assert not Event.objects.filter(kind="engine_changed").exists()


@pytest.mark.parametrize("said", [["llama.cpp"], ["gguf", "x" * 500], "gguf", {"gguf": True}, [None]])
def test_what_is_no_plugin_is_said_at_the_field(engine: EngineProfile, carol: User, said: object) -> None:
    with pytest.raises(InvalidError) as refused:
        engines.change(principal=make.principal(carol), slug=SLUG, plugins=said)
    assert (refused.value.field, refused.value.pointer) == ("plugins", "/plugins")
    assert len(refused.value.message) < 200
    assert plugins() == []


@pytest.mark.parametrize("slug", ["vllm-9.9.9", "", "a\0b"])
def test_an_engine_that_is_not_there_is_not_changed(engine: EngineProfile, carol: User, slug: str) -> None:
    with pytest.raises(MissingError):
        engines.change(principal=make.principal(carol), slug=slug, plugins=[])


def test_what_was_changed_meanwhile_is_not_written_over(engine: EngineProfile, carol: User) -> None:
    who, before = make.principal(carol), engines.tag_of(engine)
    engines.change(principal=who, slug=SLUG, plugins=["gguf"], seen=before)
    with pytest.raises(StaleError, match="besides vLLM it has GGUF now"):
        engines.change(principal=who, slug=SLUG, plugins=["bitsandbytes"], seen=before)
    assert plugins() == ["gguf"]


# The list


def test_the_newest_on_offer_is_the_default_by_its_number(engine: EngineProfile, alice: User, carol: User) -> None:
    image = f"vllm/vllm-openai@{make.DIGEST}"
    EngineProfile.objects.create(slug="vllm-0.9.0", name="vLLM 0.9.0", version="0.9.0", image=image)
    EngineProfile.objects.create(slug="vllm-1.0.0", name="vLLM 1.0.0", version="1.0.0", image=image, active=False)
    seen = [(found.profile.slug, found.is_default) for found in engines.engines(make.principal(carol))]
    assert seen == [("vllm-1.0.0", False), (SLUG, True), ("vllm-0.9.0", False)]
    assert [row["slug"] for row in Api(alice)("get", "profiles/").json()] == [SLUG, "vllm-0.9.0"]
    assert Api(alice)("get", "profiles/vllm-1.0.0/").status_code == 404
    assert Api(carol)("get", "profiles/vllm-1.0.0/").json()["active"] is False
    # The request form begins with the same one.
    form = signed_in(alice).get(reverse("deployment-create")).context["form"]
    assert [row.slug for row in form.profiles] == [SLUG, "vllm-0.9.0"]


def test_everybody_counts_the_deployments_that_they_may_see(
    engine: EngineProfile, team: Team, h100: Flavor, alice: User, bob: User, carol: User
) -> None:
    make.make_deployment(team, alice, name="one")
    make.make_deployment(team, alice, name="two")
    gone = make.make_deployment(team, alice, name="gone")
    Deployment.objects.filter(pk=gone.pk).update(deleted_at=gone.created_at)
    make.make_older_profile()
    counted = {
        user.username: {row["slug"]: row["deployments"] for row in Api(user)("get", "profiles/").json()}
        for user in (alice, bob, carol)
    }
    two = {SLUG: 2, "vllm-0.20.0": 0}
    assert counted == {"alice": two, "bob": {SLUG: 0, "vllm-0.20.0": 0}, "carol": two}


# The API


def test_the_api_shows_changes_and_keeps_apart(engine: EngineProfile, alice: User, ann: User, carol: User) -> None:
    admin = Api(carol)
    seen = admin("get", PATH)
    assert (seen.json()["plugins"], seen.json()["default"]) == ([], True)
    for user in (alice, ann):
        assert Api(user)("get", PATH).json() == seen.json()
        assert Api(user)("patch", PATH, {"plugins": ["gguf"]}).status_code == 403

    changed = admin("patch", PATH, {"plugins": ["gguf"]}, **{"If-Match": seen["ETag"]})

    assert (changed.status_code, changed.json()["plugins"]) == (200, ["gguf"])
    assert admin("patch", PATH, {"plugins": []}, **{"If-Match": seen["ETag"]}).status_code == 412
    assert admin("patch", PATH, {}).json() == changed.json() == Api(ann)("get", PATH).json()
    assert admin("patch", PATH, {"plugins": []}, **{"If-Match": changed["ETag"]}).json()["plugins"] == []
    assert admin("patch", "profiles/vllm-9.9.9/", {"plugins": []}).status_code == 404


def test_the_api_names_the_plugin_that_nobody_knows(engine: EngineProfile, carol: User) -> None:
    answer = Api(carol)("patch", PATH, {"plugins": ["gguf", "llama.cpp"]})
    assert answer.status_code == 422
    [said] = answer.json()["errors"]
    assert said["pointer"] == "/plugins/1"
    assert said["detail"] == UNKNOWN
    assert Api(carol)("patch", PATH, {"image": "x"}).json()["errors"][0]["code"] == "unknown_field"
    assert plugins() == []


# Pages


def test_the_pages_are_for_admins(engine: EngineProfile, alice: User, ann: User, carol: User) -> None:
    for name, args in (("engines", []), ("engine-edit", [SLUG])):
        url = reverse(name, args=args)
        assert signed_in(carol).get(url).status_code == 200
        for user in (alice, ann):
            assert signed_in(user).get(url).status_code == 404
            assert signed_in(user).post(url, {"plugins": "gguf"}).status_code in {404, 405}
    assert signed_in(carol).get(reverse("engine-edit", args=["vllm-9.9.9"])).status_code == 404
    assert plugins() == []
    assert reverse("engines") in signed_in(carol).get(reverse("cluster")).content.decode()


def test_an_admin_says_it_on_the_page(
    engine: EngineProfile, team: Team, h100: Flavor, alice: User, carol: User
) -> None:
    make.make_deployment(team, alice)
    client, url = signed_in(carol), reverse("engine-edit", args=[SLUG])
    page = client.get(url)
    text = flat(page.content.decode())
    assert "1 deployment runs or will run on this engine." in text
    assert "RUN pip install vllm-gguf-plugin vllm-bnb-plugin" in text

    answer = client.post(url, {"plugins": ["gguf"], "seen": page.context["seen"]}, follow=True)

    assert answer.redirect_chain == [(reverse("engines"), 302)]
    assert plugins() == ["gguf"]
    listed = flat(answer.content.decode())
    assert "vLLM 0.32.0 with GGUF is saved" in listed
    assert re.search(r'data-th="Besides vLLM">\s*GGUF\s*<', listed)
    assert [choice.chosen for choice in client.get(url).context["choices"]] == [True, False]
    stale = client.post(url, {"plugins": [], "seen": page.context["seen"]})
    assert stale.status_code == 422
    assert "Somebody changed this engine meanwhile" in stale.content.decode()
    assert plugins() == ["gguf"]


def test_a_plugin_that_nobody_knows_is_said_beside_the_boxes(engine: EngineProfile, carol: User) -> None:
    answer = signed_in(carol).post(reverse("engine-edit", args=[SLUG]), {"plugins": ["gguf", "llama.cpp"]})
    assert answer.status_code == 422
    assert answer.context["errors"] == {"plugins": UNKNOWN}
    text = flat(answer.content.decode())
    assert re.search(r'id="e-plugins"><div class="note t-red">.*llama\.cpp', text)
    assert [choice.chosen for choice in answer.context["choices"]] == [True, False]
    assert plugins() == []


def test_of_an_older_engine_the_page_says_that_it_needs_none(engine: EngineProfile, carol: User) -> None:
    make.make_older_profile()
    page = signed_in(carol).get(reverse("engine-edit", args=["vllm-0.20.0"]))
    assert [choice.builtin for choice in page.context["choices"]] == [True, True]
    assert "vLLM 0.20.0 does it by itself; from 0.24.0 on it takes the plugin." in flat(page.content.decode())
    assert page.context["packages"] == []


def test_without_an_engine_the_page_says_how_to_get_one(carol: User) -> None:
    page = signed_in(carol).get(reverse("engines"))
    assert page.status_code == 200
    assert "No engine is offered yet" in page.content.decode()
    assert "manage.py setup_platform --image REGISTRY/vllm-openai:v0.32.0@" in page.content.decode()


# What it does


def test_a_wish_for_a_gguf_file_is_taken_as_soon_as_the_image_has_the_plugin(
    engine: EngineProfile, team: Team, h100: Flavor, alice: User, carol: User
) -> None:
    checked = make.make_check()
    make.make_check(facts={**checked.facts, **GGUF})
    wish = {"team": team.slug, "name": "chat", "spec": make.a_spec()}

    def found() -> set[str]:
        return {said["code"] for said in Api(alice)("post", "preflight/", wish).json()["findings"]}

    assert "gguf_engine" in found()
    assert Api(carol)("patch", PATH, {"plugins": ["gguf"]}).status_code == 200
    assert "gguf_engine" not in found()
    assert Api(carol)("patch", PATH, {"plugins": []}).status_code == 200
    assert "gguf_engine" in found()
