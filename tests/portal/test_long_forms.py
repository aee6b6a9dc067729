"""Far too much in the request form: said at the field, with all else as it was typed, and nothing stored."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.models import Deployment, Revision, Team, User
from deployments.services import requests
from deployments.spec import DeploymentSpec
from portal import long_forms
from tests.deployments import factories as make
from tests.deployments.conftest import alice, h100, hub, team
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import signed_in

__all__ = ["alice", "h100", "hub", "team"]

MIB = 1024 * 1024
MUCH = "x" * 5 * MIB
# The fields that hold text, and what is said at each of them.
FIELDS = {
    "name": "At most 40 characters. Nothing beyond is kept.",
    "source_revision": "At most 128 characters. Nothing beyond is kept.",
    "source_folder": "At most 256 characters. Nothing beyond is kept.",
    "credential": "At most 63 characters. Nothing beyond is kept.",
    "source_uri": "At most 512 characters. Nothing beyond is kept.",
    "args": "At most 8000 characters. Nothing beyond is kept.",
    "adapters": "At most 6000 characters. Nothing beyond is kept.",
    "prefill_args": "At most 8000 characters. Nothing beyond is kept.",
    "note": "At most 500 characters. Nothing beyond is kept.",
    "max_model_len": "At most 20 characters. Nothing beyond is kept.",
}
# Those that take one of what they offer, and buttons that set a field.
CHOICES = ("team", "flavor", "profile", "strategy", "source_cache", "surge", "set", "way")


def said_at(answer: Any, field: str) -> list[str]:
    return [entry["message"] for entry in answer.context["fields"][field]["messages"]]


@pytest.mark.parametrize("field", FIELDS)
def test_five_megabytes_in_a_field_are_told_there_and_the_rest_is_kept(hub: list[str], alice: User, field: str) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(**{field: MUCH}))

    assert answer.status_code == 422
    assert said_at(answer, field) == [FIELDS[field]]
    assert answer.context["values"][field] == "x" * int(FIELDS[field].split()[2])
    kept = {name: answer.context["values"][name] for name in typed() if name != field}
    assert kept == {name: value for name, value in typed().items() if name != field}
    assert not Deployment.objects.exists()


@pytest.mark.parametrize("field", [*FIELDS, *CHOICES])
def test_what_is_too_long_makes_no_long_answer(hub: list[str], alice: User, field: str) -> None:
    browser, much = signed_in(alice), f"name={MUCH}" if field in {"set", "way"} else MUCH
    for name in ("deployment-create", "deployment-preflight", "deployment-preview"):
        usual = len(browser.post(reverse(name), typed(name="")).content)
        answer = browser.post(reverse(name), typed(name="") | {field: much})
        # What the longest field takes may be shown in more than one place.
        assert len(answer.content) < usual + 40_000, name


def test_while_typing_the_same_is_said(hub: list[str], alice: User) -> None:
    body = urlencode(typed(args="ü" * MIB))
    kind = "application/x-www-form-urlencoded"
    for form in ({"data": typed(note=MUCH)}, {"data": body, "content_type": kind}):
        answer = signed_in(alice).post(reverse("deployment-preflight"), headers={"hx-request": "true"}, **form)
        assert answer.status_code == 200
        field = "note" if "content_type" not in form else "args"
        assert FIELDS[field] in said_at(answer, field)


@pytest.mark.parametrize("content", [MUCH.encode(), b"\x00\xff" * 2 * MIB], ids=["text", "bytes"])
def test_a_file_of_five_megabytes_is_told_at_the_file_and_the_rest_is_kept(
    hub: list[str], alice: User, content: bytes
) -> None:
    file = SimpleUploadedFile("chat.yaml", content)
    answer = signed_in(alice).post(reverse("deployment-create"), {**typed(), "take": "yaml", "wish_file": file})

    assert answer.status_code == 422
    assert "The file is larger than 64 KiB" in answer.context["wish"].messages[0]["message"]
    assert {name: answer.context["values"][name] for name in typed()} == typed()
    assert not Deployment.objects.exists()


def test_five_megabytes_of_yaml_are_told_at_the_text(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), {**typed(), "take": "yaml", "wish": MUCH})

    assert answer.status_code == 422
    assert "At most 64 KiB" in answer.context["wish"].messages[0]["message"]
    assert {name: answer.context["values"][name] for name in typed()} == typed()


def test_an_edit_is_told_the_same(hub: list[str], alice: User) -> None:
    spec = DeploymentSpec.from_json(make.a_spec())
    chat = requests.submit(principal=make.principal(alice), team=Team.objects.get(), name="chat", spec=spec)
    sent = typed(base_revision="1", note=MUCH)

    answer = signed_in(alice).post(reverse("deployment-edit", args=[chat.pk]), sent)

    assert answer.status_code == 422
    assert FIELDS["note"] in said_at(answer, "note")
    assert Revision.objects.count() == 1


def test_what_not_even_cutting_makes_small_is_a_page_that_says_so(hub: list[str], alice: User) -> None:
    browser = signed_in(alice)
    whole = browser.post(reverse("deployment-create"), typed(note="x" * 9 * MIB))
    many = browser.post(reverse("deployment-create"), typed(**{f"f{number}": "x" * MIB for number in range(6)}))
    other = browser.post(reverse("account"), {"name": MUCH})
    for answer in (whole, many, other):
        assert answer.status_code == 413
        assert "Nothing was changed" in answer.content.decode()


@settings(max_examples=50)
@given(values=st.dictionaries(st.sampled_from("abc"), st.text("aü%&=\r\n-", max_size=30) | st.just(MUCH[:300_000])))
def test_short_parts_stay_as_they_are_and_long_ones_stay_too_long(values: dict[str, str]) -> None:
    encoded = long_forms.cut(urlencode(values).encode(), long_forms.ENCODED).decode()
    found = {name: texts[0] for name, texts in parse_qs(encoded, keep_blank_values=True).items()}
    assert {name: len(text) for name, text in found.items()} == {
        name: min(len(text), long_forms.MOST_OF_PART) for name, text in values.items()
    }
    assert all(values[name].startswith(text) for name, text in found.items())


def test_a_long_value_is_never_cut_inside_a_character_of_its_code() -> None:
    for shift in range(4):
        pair = b"a=" + b"x" * shift + b"%C3%BC" * 60_000
        kept = long_forms.cut(pair, long_forms.ENCODED)
        assert long_forms.MOST_OF_PART - 3 <= len(kept) - 2 <= long_forms.MOST_OF_PART
        assert len(kept.rpartition(b"%")[2]) == 2


@pytest.mark.parametrize(
    ("field", "text"), [("note", "why " * 400 + "."), ("name", "a" * 41), ("max_model_len", "9" * 5000)]
)
def test_what_somebody_may_have_typed_comes_back_whole(hub: list[str], alice: User, field: str, text: str) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(**{field: text}))

    assert answer.status_code == 422
    assert said_at(answer, field) == [FIELDS[field].removesuffix(" Nothing beyond is kept.")]
    assert answer.context["values"][field] == text
