"""Answers of the API server are told apart by their reason and causes, not by their number."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.kube.errors import ErrorClass, answer_error, transport_error


def status(reason: str = "", message: str = "", *, causes: list[dict[str, Any]] | None = None, **details: Any):
    return {"kind": "Status", "reason": reason, "message": message, "details": {**details, "causes": causes or []}}


CASES = [
    (409, status("AlreadyExists", 'namespaces "a" already exists'), ErrorClass.TAKEN, "name_taken"),
    (
        422,
        status("Invalid", "field is immutable", causes=[{"field": "metadata.uid"}]),
        ErrorClass.TAKEN,
        "name_taken",
    ),
    (409, status("Conflict", "uid mismatch: … no existing object was found"), ErrorClass.GONE, "uid_mismatch"),
    (409, status("Conflict", "Precondition failed: UID in precondition: x"), ErrorClass.GONE, "uid_mismatch"),
    (409, status("Conflict", "the object has been modified"), ErrorClass.CONFLICT, "conflict"),
    (
        409,
        status("Conflict", "conflict", causes=[{"reason": "FieldManagerConflict", "field": ".spec.a"}]),
        ErrorClass.BUG,
        "field_conflict",
    ),
    (404, status("NotFound", 'pods "a" not found', name="a", kind="pods"), ErrorClass.GONE, "gone"),
    (404, status("NotFound", "", name="x", kind="namespaces"), ErrorClass.GONE, "namespace_missing"),
    (404, {}, ErrorClass.WAIT, "kind_missing"),
    (404, status("NotFound", "the server could not find the requested resource"), ErrorClass.WAIT, "kind_missing"),
    (403, status("Forbidden", 'User "w" cannot create resource'), ErrorClass.WAIT, "permission"),
    (403, status("Forbidden", "exceeded quota: slipway, requested: …"), ErrorClass.WAIT, "quota_exceeded"),
    (403, status("Forbidden", 'violates PodSecurity "restricted:latest"'), ErrorClass.WAIT, "pod_security"),
    (403, status("Forbidden", "because it is being terminated"), ErrorClass.WAIT, "namespace_terminating"),
    (400, status("BadRequest", 'admission webhook "x" denied the request: no'), ErrorClass.WAIT, "denied"),
    (422, status("Invalid", "bad", causes=[{"field": "spec.replicas"}]), ErrorClass.WAIT, "invalid"),
    (401, status("Unauthorized"), ErrorClass.WAIT, "unauthorized"),
    (410, status("Expired"), ErrorClass.EXPIRED, "expired"),
    (429, {}, ErrorClass.RETRY, "too_many_requests"),
    (500, status("", "failed to create typed patch object (…): .nope"), ErrorClass.WAIT, "invalid"),
    (500, status("InternalError", 'failed calling webhook "x"'), ErrorClass.RETRY, "webhook_unreachable"),
    (503, {}, ErrorClass.RETRY, "server_error"),
    (418, {}, ErrorClass.BUG, "http_418"),
]


@pytest.mark.parametrize(("number", "body", "kind", "code"), CASES)
def test_an_answer_has_one_class(number, body, kind, code):
    error = answer_error(number, body, mutating=True, retry_after=None)
    assert (error.kind, error.code) == (kind, code)


def test_of_a_write_that_failed_inside_nobody_knows_whether_it_happened():
    assert answer_error(500, {}, mutating=True, retry_after=None).unknown
    assert not answer_error(500, {}, mutating=False, retry_after=None).unknown
    assert transport_error("timeout", "late", mutating=True).unknown


def test_a_refusal_certainly_did_nothing():
    assert not answer_error(422, status("Invalid", "no"), mutating=True, retry_after=None).unknown
    unknown_field = status("", "field not declared in schema")
    assert not answer_error(500, unknown_field, mutating=True, retry_after=None).unknown


def test_the_field_of_a_refusal_is_kept_and_its_text_cut():
    error = answer_error(
        422, status("Invalid", "x" * 5000, causes=[{"field": "spec.a"}]), mutating=True, retry_after=None
    )
    assert error.field == "spec.a"
    assert len(error.message) == 400


def test_an_answer_that_is_no_status_shows_only_its_number():
    error = answer_error(502, {}, mutating=False, retry_after=3.0)
    assert error.message == "The API server answered 502."
    assert error.retry_after == 3.0


@pytest.mark.parametrize("details", [None, "text", {"causes": "text"}, {"causes": ["text"]}])
def test_a_hostile_status_does_not_break_us(details):
    body = {"reason": 5, "message": None, "details": details}
    assert answer_error(409, body, mutating=True, retry_after=None).kind is ErrorClass.CONFLICT
