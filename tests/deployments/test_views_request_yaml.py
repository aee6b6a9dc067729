"""The request form as YAML: shown, taken back, and what is wrong in it said at its field while nothing is stored."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from deployments.models import Deployment, ModelCheck, Team, User
from deployments.services import requests
from deployments.spec import DeploymentSpec
from deployments.wish_text import MOST_CHARACTERS
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import flat, signed_in

WISH = """\
team: search
name: helper
spec:
  source: {uri: "hf://Qwen/Qwen2.5-7B-Instruct"}
  flavor: h100-80gb
  replicas: {min: 2, max: 3}
  engine: {args: {max-model-len: 8192, seed: 7}}
"""


def create(person: User, **changes: Any) -> Any:
    return signed_in(person).post(reverse("deployment-create"), {**typed(), **changes})


def take(person: User, text: str, **changes: Any) -> Any:
    return create(person, take="yaml", wish=text, **changes)


def said(answer: Any) -> list[str]:
    return [item["message"] for item in answer.context["wish"].messages]


@pytest.fixture
def chat(hub: list[str], team: Team, ann: User) -> Deployment:
    """A deployment whose first revision runs."""
    spec = DeploymentSpec.from_json(make.a_spec())
    row = requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)
    Deployment.objects.filter(pk=row.pk).update(applied=row.latest)
    row.refresh_from_db()
    return row


def test_a_text_fills_in_the_form_and_nothing_else_stays(hub: list[str], alice: User) -> None:
    answer = take(alice, WISH, kv_cache_dtype="fp8")

    values = answer.context["values"]
    assert answer.status_code == 200
    assert (values["name"], values["replicas_min"], values["replicas_max"]) == ("helper", "2", "3")
    assert (values["max_model_len"], values["args"]) == ("8192", "--seed=7")
    # What stood in the form, and is not in the text.
    assert (values["gpu_memory_utilization"], values["kv_cache_dtype"], values["tensor_parallel_size"]) == ("", "", "")
    assert values["note"] == "for the demo"
    assert "The form now says" in said(answer)[0]
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("written", "by", "field", "label", "option"),
    [
        ("team: search", "team: devtools", "team", "Team", "devtools (no team of yours)"),
        ("flavor: h100-80gb", "flavor: nope", "flavor", "GPU", "nope (not offered)"),
        ("engine: {", "engine: {profile: vllm-9, ", "profile", "Engine", "vllm-9 (not offered)"),
    ],
)
def test_a_choice_that_is_not_offered_stays_in_its_field_and_is_called_wrong(
    hub: list[str], alice: User, written: str, by: str, field: str, label: str, option: str
) -> None:
    answer = take(alice, WISH.replace(written, by))

    chosen = answer.content.decode().partition(f'id="id_{field}"')[2].partition("</select>")[0]
    selected = [" ".join(each.partition(">")[2].split()) for each in chosen.split("<option ") if " selected" in each]
    assert [each.partition("</option>")[0].strip() for each in selected] == [option], chosen
    assert said(answer) == [
        f"The form is filled in, but could not take all of it. Look at what is marked red: {label}."
    ]
    # Sent as it stands it means the same, and is refused: the first of the list is nobody's wish.
    sent = signed_in(alice).post(reverse("deployment-create"), answer.context["values"])
    assert (sent.status_code, sent.context["fields"][field]["messages"][0]["severity"]) == (422, "error")
    assert not Deployment.objects.exists()


def test_a_credential_that_no_team_has_is_not_offered_as_if_it_were_there(hub: list[str], alice: User) -> None:
    answer = take(alice, WISH.replace('Instruct"}', 'Instruct", credential: theirs}'))

    assert "theirs (no team of yours has it)" in flat(answer.content.decode())


def test_a_choice_that_is_none_is_shown_at_the_length_of_a_name(hub: list[str], alice: User) -> None:
    answer = create(alice, flavor="<x>" * 200_000)

    assert answer.content.decode().count("&lt;x&gt;") <= 2 * 21
    assert "<x>" not in answer.content.decode()


def test_what_was_filled_in_is_sent_as_the_text_says(hub: list[str], alice: User) -> None:
    values = take(alice, WISH).context["values"]

    sent = signed_in(alice).post(reverse("deployment-create"), values)

    row = Deployment.objects.get()
    assert (sent.status_code, row.name) == (302, "helper")
    assert row.latest is not None
    assert row.latest.spec["replicas"] == {"min": 2, "max": 3}
    assert row.latest.spec["engine"]["args"] == {"max-model-len": 8192, "seed": 7}


def test_a_file_is_taken_before_the_text(hub: list[str], alice: User) -> None:
    file = SimpleUploadedFile("chat.yaml", WISH.encode())

    answer = take(alice, "nothing: here", wish_file=file)

    assert (answer.status_code, answer.context["values"]["name"]) == (200, "helper")


def test_what_preflight_says_of_a_text_stands_at_the_fields(hub: list[str], alice: User) -> None:
    answer = take(alice, WISH.replace("seed: 7", "tensor-parallel-size: 3"))

    assert answer.status_code == 200
    assert answer.context["fields"]["tensor_parallel_size"]["messages"][0]["severity"] == "error"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Write or paste YAML here"),
        ("[", "This is not YAML"),
        ("just words", "Write the fields of a spec"),
        ("spec: &me {source: *me}", "Line 1: An alias"),
        ("a: &a [x, x]\n" + "\n".join(f"b{n}: &b{n} [{'*a, ' * 99}*a]" for n in range(30)), "values"),
        ("x" * (MOST_CHARACTERS + 1), "At most 64 KiB"),
        (WISH.replace("flavor:", "flavour:"), "Line 5, spec › flavour: Slipway does not know this field."),
        (WISH.replace("max: 3", "max: many"), "Line 6, spec › replicas › max: Must be a whole number."),
        (WISH + "extra: 1\n", "Line 8, extra: Slipway does not know this field."),
        ("<script>alert(1)</script>: 1", "does not know this field"),
    ],
)
def test_a_wrong_text_is_answered_at_its_field_and_nothing_is_lost(
    hub: list[str], alice: User, text: str, words: str
) -> None:
    answer = take(alice, text)

    assert answer.status_code == 422
    assert any(words in message for message in said(answer)), said(answer)
    assert answer.context["wish"].text == text
    assert answer.context["values"]["source_uri"] == typed()["source_uri"], "the form stays as it was"
    assert 'aria-invalid="true"' in answer.content.decode().partition('id="id_wish"')[2].partition(">")[0]
    assert "<script>alert" not in answer.content.decode()
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x" * 200_000, "larger than 64 KiB"),
        (b"\xff\xfe\x00binary\x00", "not text in UTF-8"),
        (b"PK\x03\x04 a zip", "not YAML"),
        (b"", "nothing in it"),
    ],
)
def test_a_wrong_file_is_answered_at_its_field(hub: list[str], alice: User, content: bytes, words: str) -> None:
    answer = take(alice, "", wish_file=SimpleUploadedFile("wish.yaml", content))

    assert (answer.status_code, words in " ".join(said(answer))) == (422, True), said(answer)
    assert not Deployment.objects.exists()


def test_the_form_is_shown_as_yaml_with_what_would_be_applied(hub: list[str], alice: User, team: Team) -> None:
    answer = signed_in(alice).post(reverse("deployment-preview"), typed(), headers={"HX-Request": "true"})

    wish = answer.context["wish"]
    document = yaml.safe_load(wish.text)
    assert answer.status_code == 200
    assert (document["team"], document["name"]) == ("search", "chat")
    assert document["spec"]["engine"]["args"]["max-model-len"] == 16384
    assert [item["kind"] for item in wish.objects][:2] == ["ServiceAccount", "NetworkPolicy"]
    assert {item["metadata"]["namespace"] for item in wish.files.all} == {team.namespace}
    assert "<html" not in answer.content.decode()
    assert not Deployment.objects.exists()


def test_without_scripts_the_whole_page_comes_with_it(hub: list[str], alice: User) -> None:
    answer = create(alice, show="files")

    text = answer.content.decode()
    assert answer.status_code == 200
    assert "What would be applied" in text
    assert "max-model-len: 16384" in text
    assert not Deployment.objects.exists()


def test_what_is_shown_means_the_same_when_it_is_taken_back(hub: list[str], alice: User) -> None:
    asked = {"kv_cache_dtype": "fp8", "enable_prefix_caching": "false", "args": "--seed=3\n--no-enable-chunked-prefill"}
    text = create(alice, show="files", **asked).context["wish"].text

    back = take(alice, text).context["form"]

    there = DeploymentSpec.from_json(yaml.safe_load(text)["spec"])
    assert back.spec == there


def test_a_form_with_mistakes_is_shown_as_far_as_it_can_be(hub: list[str], alice: User) -> None:
    wish = create(alice, show="files", replicas_max="0").context["wish"]

    assert "max: 0" in wish.text
    assert wish.objects == []
    assert "Correct what is marked red first" in wish.why_not


def test_a_commit_that_nobody_knows_is_said_to_be_missing(hub: list[str], alice: User) -> None:
    ModelCheck.objects.update(result="unreachable", commit="", facts={})

    answer = create(alice, show="files")

    assert "zeros stand for it" in flat(answer.content.decode())
    assert "0" * 40 in answer.context["wish"].files.yaml


def test_a_change_is_compared_with_what_runs(chat: Deployment, alice: User) -> None:
    url = reverse("deployment-edit-preview", args=[chat.pk])

    answer = signed_in(alice).post(url, typed(max_model_len="4096", replicas_max="1", gpu_memory_utilization=""))

    text = flat(answer.content.decode())
    assert "What changes against revision 1, which runs" in text
    assert "--max-model-len=16384</del>" in text
    assert "--max-model-len=4096</ins>" in text


def test_a_text_for_another_deployment_is_not_taken(chat: Deployment, alice: User) -> None:
    url = reverse("deployment-edit", args=[chat.pk])

    answer = signed_in(alice).post(url, {**typed(), "take": "yaml", "wish": WISH, "base_revision": "1"})
    own = signed_in(alice).post(
        url, {**typed(), "take": "yaml", "wish": WISH.replace("helper", "chat"), "base_revision": "1"}
    )

    assert answer.status_code == 422
    assert "This is for “helper”, and not for “chat”" in said(answer)[0]
    assert (own.status_code, own.context["values"]["max_model_len"]) == (200, "8192")
    chat.refresh_from_db()
    assert chat.latest is not None
    assert chat.latest.number == 1


def test_strangers_see_no_preview_of_a_change(chat: Deployment, bob: User) -> None:
    assert signed_in(bob).post(reverse("deployment-edit-preview", args=[chat.pk]), typed()).status_code == 404


def test_nobody_sees_a_preview_for_a_team_that_is_not_the_own(hub: list[str], bob: User, team: Team) -> None:
    answer = signed_in(bob).post(reverse("deployment-preview"), typed(team="search"))

    assert answer.status_code == 200
    assert answer.context["wish"].objects == []
    assert team.namespace not in answer.content.decode()


@pytest.mark.parametrize(
    ("field", "written", "words"),
    [
        ("team", "team: labs\nname: chat\n", "You do not belong to a team of this name."),
        ("flavor", "team: search\nname: chat\n", "There is no flavor of this name."),
        ("profile", "team: search\nname: chat\n", "There is no engine of this name."),
    ],
)
def test_a_choice_that_is_none_is_said_once_in_slipways_words(
    hub: list[str], alice: User, field: str, written: str, words: str
) -> None:
    flavor = "no-such-gpu" if field == "flavor" else "h100-80gb"
    profile = "vllm-9.9.9" if field == "profile" else "vllm-0.32.0"
    spec = f"spec:\n  source: {{uri: {make.QWEN}}}\n  flavor: {flavor}\n  engine: {{profile: {profile}}}\n"

    answer = take(alice, written + spec)

    assert [said["message"] for said in answer.context["fields"][field]["messages"]] == [words]


@pytest.mark.parametrize("way", ["text", "file"])
def test_what_was_not_read_into_the_form_is_not_dropped_in_silence(way: str, hub: list[str], alice: User) -> None:
    sent = {"wish": WISH} if way == "text" else {"wish_file": SimpleUploadedFile("chat.yaml", WISH.encode())}

    answer = create(alice, **sent)

    assert answer.status_code == 422
    assert said(answer) == ["Nothing was asked for: the form has not read this. Fill it in from here, or empty this."]
    assert answer.context["wish"].text == WISH
    assert answer.context["wish"].opened
    assert not Deployment.objects.exists()


def test_mistakes_of_a_text_that_was_not_read_are_told_with_it(hub: list[str], alice: User) -> None:
    first, *mistakes = said(create(alice, wish="spec: {flavour: x}"))
    assert first.startswith("Nothing was asked for")
    assert any("flavour" in mistake for mistake in mistakes)
    assert not Deployment.objects.exists()


def test_a_text_that_the_form_wrote_or_read_stands_in_nobodys_way(hub: list[str], alice: User) -> None:
    shown = create(alice, show="files").context["wish"]
    assert shown.read

    # As a browser sends it, and with a field that was changed since.
    lines = shown.text.replace("\n", "\r\n")
    sent = create(alice, wish=lines, wish_read=shown.read, max_model_len="4096")

    assert sent.status_code == 302
    row = Deployment.objects.get()
    assert row.latest is not None
    assert row.latest.spec["engine"]["args"]["max-model-len"] == 4096


def test_a_text_that_says_what_the_form_says_was_read_whoever_typed_it(hub: list[str], alice: User) -> None:
    shown = create(alice, show="files").context["wish"]
    assert create(alice, wish=f"# by hand\n{shown.text}").status_code == 302


def test_a_change_does_not_drop_a_text_either(chat: Deployment, alice: User) -> None:
    url = reverse("deployment-edit", args=[chat.pk])
    person = signed_in(alice)
    form = person.get(url).context["values"]

    answer = person.post(url, {**form, "base_revision": "1", "wish": WISH})

    assert answer.status_code == 422
    assert chat.revisions.count() == 1


def test_a_text_is_kept_when_the_form_has_mistakes_with_whether_it_was_read(hub: list[str], alice: User) -> None:
    shown = create(alice, show="files").context["wish"]
    answer = create(alice, wish=shown.text, wish_read=shown.read, name="NOT A NAME")
    assert answer.status_code == 422
    assert (answer.context["wish"].text, answer.context["wish"].read) == (shown.text, shown.read)
