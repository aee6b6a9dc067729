"""Whatever somebody sends: a message at the field in the form, a problem with a pointer in the API, never a 500.

Nothing of it is half written: the tables that hold wishes have the same rows before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from .people import Person
from .steady import nothing_written
from .visitor import Visitor, message_at, value_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

LONG = "x" * 300
HUGE = "hf://org/" + "x" * 1_000_000
MANY_FLAGS = "\n".join(f"--flag-{number}=1" for number in range(10_000))

# What is typed into the request form: field, text, words that must stand at that field.
TYPED = [
    ("name", "", "Give it a name"),
    ("name", "Chat", "lower-case"),
    ("name", "größe", "lower-case"),
    ("name", "🚀", "lower-case"),
    ("name", LONG, "At most"),
    ("name", "-chat", "lower-case"),
    ("name", "chat-", "lower-case"),
    ("name", "../../etc", "lower-case"),
    ("name", "a\x00b", "Null characters"),
    ("name", "chat\u202egnp", "lower-case"),
    ("name", "{{.Name}}", "lower-case"),
    ("name", "$(POD_NAME)", "lower-case"),
    ("name", "<script>alert(1)</script>", "lower-case"),
    ("name", "'; DROP TABLE x; --", "lower-case"),
    ("name", "vllm", "reserved"),
    ("name", "chat", "already has a deployment"),
    ("team", "labs", "do not belong to a team"),
    ("team", "no-such-team", "do not belong to a team"),
    ("team", "a\x00b", "Null characters"),
    ("source_uri", "", "Name the model"),
    ("source_uri", "hf://Qwen/No-Such-Model", "The hub has no model"),
    ("source_uri", "ftp://example.org/model", "not a known kind"),
    ("source_uri", "file:///etc/passwd", "not a known kind"),
    ("source_uri", "hf://../../etc", "owner/model"),
    ("source_uri", "hf://Qwen/{{.Name}}", "may not contain"),
    ("source_uri", "hf://Qwen/$(HF_TOKEN)", "may not contain"),
    ("source_uri", "hf://Qwen/Qwen2.5\x00", "control characters"),
    ("source_uri", "hf://Qwen/größe", "ASCII letters"),
    ("source_uri", "hf://Qwen/" + LONG * 2, "At most"),
    ("source_uri", HUGE, "at most 512 characters. Nothing beyond is kept"),
    ("source_revision", "--upload-pack=x", "may not begin with"),
    ("source_revision", "main branch", "only"),
    ("source_revision", LONG, "At most"),
    ("source_revision", "a\x00b", "Null characters"),
    ("strategy", "magic", "Choose one of"),
    ("strategy", "oci-volume", "loads from oci:// only"),
    ("flavor", "no-such-gpu", "There is no flavor"),
    ("flavor", "l4-24gb\x00", "Null characters"),
    ("flavor", "", "required"),
    ("profile", "vllm-9.9.9", "There is no engine"),
    ("tensor_parallel_size", "3", "cannot share evenly"),
    ("tensor_parallel_size", "0", "takes 1 to 16"),
    ("tensor_parallel_size", "-1", "takes 1 to 16"),
    ("tensor_parallel_size", "1.5", "whole number"),
    ("tensor_parallel_size", "two", "whole number"),
    ("tensor_parallel_size", "true", "whole number"),
    ("tensor_parallel_size", "1e9", "whole number"),
    ("tensor_parallel_size", "9" * 20, "Must be between"),
    ("tensor_parallel_size", "9" * 5000, "at most 20"),
    ("replicas_min", "0", "at least 1"),
    ("replicas_min", "-3", "at least 1"),
    ("replicas_min", "51", "at most 50"),
    ("replicas_min", "NaN", "whole number"),
    ("replicas_max", "0", "at least 1"),
    ("replicas_max", "1000000", "at most 50"),
    ("replicas_max", "９９", "whole number"),
    ("max_model_len", "-5", "takes 1 to"),
    ("max_model_len", "99999999", "Use 32,768"),
    ("max_model_len", "1e400", "whole number"),
    ("gpu_memory_utilization", "NaN", "Must be a number"),
    ("gpu_memory_utilization", "Infinity", "Must be a number"),
    ("gpu_memory_utilization", "-inf", "Must be a number"),
    ("gpu_memory_utilization", "1e400", "Must be a number"),
    ("gpu_memory_utilization", "1.5", "takes 0.1 to 0.98"),
    ("gpu_memory_utilization", "-0.1", "takes 0.1 to 0.98"),
    ("gpu_memory_utilization", "0", "takes 0.1 to 0.98"),
    ("kv_cache_dtype", "int3", "takes one of: auto, bfloat16"),
    ("enable_prefix_caching", "maybe", "Choose one of the values"),
    ("max_num_seqs", "0", "takes 1 to"),
    ("max_num_seqs", "-1", "takes 1 to"),
    ("args", "--no-such-flag=1", "no-such-flag"),
    ("args", "--port=9000", "port"),
    ("args", "--api-key=secret", "api-key"),
    ("args", "--host=0.0.0.0", "host"),
    ("args", "--max-num-batched-tokens=$(X)", "may not contain"),
    ("args", "--max-num-batched-tokens={{.Name}}", "may not contain"),
    ("args", "--max-num-batched-tokens=1e400", "finite"),
    ("args", "--max-num-batched-tokens=many", "takes a number"),
    ("args", "--seed=1\n--seed=2", "given twice"),
    ("args", "max-num-seqs 5", "Line 1"),
    ("args", "--x; rm -rf /", "Line 1"),
    ("args", "--Größe=1", "Line 1"),
    ("args", MANY_FLAGS, "At most"),
    ("args", "--a\x00=1", "Null characters"),
    ("note", "x" * 501, "at most 500"),
    ("note", "a\x00b", "Null characters"),
]


def form(name: str = "fresh-name", **changes: str) -> dict[str, str]:
    """The request form, filled in well."""
    return {
        "team": "search",
        "name": name,
        "source_uri": "hf://Qwen/Qwen2.5-0.5B-Instruct",
        "strategy": "standard",
        "flavor": "l4-24gb",
        "tensor_parallel_size": "1",
        "replicas_min": "1",
        "replicas_max": "1",
        "gpu_memory_utilization": "0.9",
        **changes,
    }


@pytest.fixture(scope="module")
def alice(demo: dict[str, Any]) -> Iterator[Visitor]:
    with Visitor(demo, "alice", seconds=30) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def carol(demo: dict[str, Any]) -> Iterator[Visitor]:
    with Visitor(demo, "carol", seconds=30) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def chat(demo: dict[str, Any]) -> int:
    """A deployment of Alice's team."""
    return int(Person.named(demo, "alice").call("GET", "/api/v1/deployments/?name=chat")[1]["results"][0]["id"])


def test_the_form_says_it_at_the_field_and_keeps_what_was_typed(alice: Visitor, demo: dict[str, Any]) -> None:
    wrong = []
    with nothing_written(demo):
        for field, text, words in TYPED:
            answer = alice.post("/deployments/new/", form(**{field: text}))
            problem = _form_problem(answer, field, text, words)
            if problem:
                wrong.append(f"{field}={text[:40]!r}: {problem}")
    assert not wrong, "\n".join(wrong)


def test_while_typing_the_same_is_said_beside_the_fields(alice: Visitor, demo: dict[str, Any]) -> None:
    wrong = []
    with nothing_written(demo):
        for field, text, words in TYPED:
            if not text:
                continue  # what nobody has filled in yet is no mistake
            answer = alice.post("/deployments/preflight/", form(**{field: text}), htmx=True)
            said = message_at(answer.text, field) if answer.status_code == 200 else ""
            if words.lower() not in said.lower() or not said:
                wrong.append(f"{field}={text[:40]!r}: {answer.status_code} {said!r}")
    assert not wrong, "\n".join(wrong)


def test_an_edit_is_checked_like_a_request(alice: Visitor, chat: int, demo: dict[str, Any]) -> None:
    page = alice.get(f"/deployments/{chat}/edit/").text
    good = {field: value_of(page, field) or "" for field in form() if field not in {"team", "name"}}
    wrong = []
    with nothing_written(demo):
        # One case for each field: the rules are those of a request.
        for field, text, words in {case[0]: case for case in TYPED if case[0] not in {"team", "name"}}.values():
            answer = alice.post(f"/deployments/{chat}/edit/", {**good, "base_revision": "1", field: text})
            if problem := _form_problem(answer, field, text, words):
                wrong.append(f"{field}={text[:40]!r}: {problem}")
        for stale in ("0", "-1", "99", "1e3", "9" * 400, "\x00", ""):
            answer = alice.post(f"/deployments/{chat}/edit/", {**good, "base_revision": stale})
            if answer.status_code != 422:
                wrong.append(f"base_revision={stale[:20]!r}: {answer.status_code}")
    assert not wrong, "\n".join(wrong)


def _form_problem(answer: httpx.Response, field: str, text: str, words: str) -> str:
    """What is wrong with the answer to a bad form; empty when it is as it should be."""
    if answer.status_code != 422:
        return f"answered {answer.status_code}"
    said = message_at(answer.text, field)
    if not said or words.lower() not in said.lower():
        return f"says {said!r} at the field"
    kept = value_of(answer.text, field)
    # Of what nobody typed the page shows the beginning alone, and says so.
    typed = text.strip()[: len(kept or "")] if "nothing beyond is kept" in said.lower() else text.strip()
    if field not in CHOSEN and (kept or "").strip().replace("\r", "") != typed:
        return f"kept {kept[:60] if kept else kept!r}"
    return ""


CHOSEN = {"team", "flavor", "profile", "kv_cache_dtype", "enable_prefix_caching", "strategy"}
NASTY = (
    "",
    "-1",
    "0",
    "9" * 31,
    "1e400",
    "NaN",
    "a\x00b",
    "größe\u202e",
    "🚀",
    LONG,
    "../x",
    "{{.Name}}",
    "' OR 1=1 --",
)

QUERIES = ("", "-1", "9" * 31, "a\x00b", "größe\u202e🚀", LONG, "' OR 1=1 --")


def test_other_forms_refuse_what_makes_no_sense(
    alice: Visitor, carol: Visitor, chat: int, demo: dict[str, Any]
) -> None:
    grant = {"team": "search", "flavor": "l4-24gb", "gpus": "1", "until": "", "comment": ""}
    wrong: list[str] = []

    def expect(answer: httpx.Response, statuses: set[int], what: str) -> None:
        if answer.status_code not in statuses:
            wrong.append(f"{what}: {answer.status_code}")

    with nothing_written(demo):
        for text in NASTY:
            for field in ("team", "flavor", "gpus"):
                expect(carol.post("/quotas/grant/", {**grant, field: text}), {422}, f"grant {field}={text[:20]!r}")
            expect(alice.post("/account/", {"name": "x", "days": "9", "scopes": text}), {422}, f"scopes {text[:20]!r}")
            expect(alice.post(f"/deployments/{chat}/delete/", {"confirm": text}), {422}, f"confirm {text[:20]!r}")
            expect(alice.post(f"/deployments/{chat}/stop/", {"reason": LONG + "x" + text}), {422}, "a long reason")
    assert not wrong, "\n".join(wrong)


def test_queries_in_addresses_never_break_a_page(alice: Visitor, carol: Visitor, chat: int) -> None:
    wrong = []
    cursors = (
        "W10",
        "WyJhIl0",
        "bnVsbA",
        "e30",
        "WzFlNDAwXQ",
        "WyJhIiwxXQ",
        "WyJhXHUwMDAwIiwxXQ",
        "WzFlNDAwLDFd",
        "=",
        "%",
    )
    for visitor, path, names in (
        (alice, "/", ("team", "show", "sort", "q", "after", "before")),
        (alice, "/deployments/", ("team", "show", "sort", "q", "after", "before", "page")),
        (alice, "/deployments/new/", ("team", "model", "uri")),
        (alice, f"/deployments/{chat}/edit/", ("set",)),
        (alice, f"/deployments/{chat}/logs/", ("pod", "container", "previous")),
        (alice, f"/deployments/{chat}/revisions/", ("after", "before")),
        (alice, f"/deployments/{chat}/manifests/", ("revision", "format")),
        (alice, f"/deployments/{chat}/metrics/", ("range",)),
        (alice, f"/deployments/{chat}/charts/", ("range", "set")),
        (alice, f"/deployments/{chat}/charts/ttft.csv", ("range",)),
        (alice, "/metrics/", ("range",)),
        (alice, "/metrics/charts/", ("range",)),
        (alice, "/metrics/columns/", ("ids",)),
        (alice, "/catalogue/", ("q", "team")),
        (carol, "/approvals/", ("show", "after", "before")),
        (carol, "/approvals/?show=history", ("after", "before")),
        (carol, "/quotas/", ("team", "after", "before", "format")),
        (carol, "/capacity/", ("team",)),
        (alice, "/accounts/login/", ("next",)),
    ):
        for name in names:
            for text in (*QUERIES, *(cursors if name in {"after", "before"} else ())):
                joined = "&" if "?" in path else "?"
                answer = visitor.http.get(f"{path}{joined}{name}={quote(text)}")
                # Of a team that is not there, or is not theirs, a page of quotas knows nothing.
                fine = {404} if (path, name) == ("/quotas/", "team") and text else {200, 302}
                if answer.status_code not in ({400} if "\0" in text else fine):
                    wrong.append(f"{path} {name}={text[:20]!r}: {answer.status_code}")
    assert not wrong, "\n".join(wrong)
