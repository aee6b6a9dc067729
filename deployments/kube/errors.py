"""What an answer of the API server means for us, told apart by its reason and causes, not by its number. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_MESSAGE = 400


class ErrorClass(StrEnum):
    """What to do about a failed call."""

    RETRY = "retry"  # by itself, later
    CONFLICT = "conflict"  # the object changed since it was read: read again, plan again
    EXPIRED = "expired"  # a list or watch cannot go on from there: list again
    GONE = "gone"  # the object with that uid is not there
    TAKEN = "taken"  # a stranger has that name
    WAIT = "wait"  # for a person
    BUG = "bug"  # ours


@dataclass(eq=False)  # exceptions must stay hashable
class ClusterError(Exception):
    """A cluster call that did not do what was asked.

    `message` is text for people, of the server where it gave one; `field` a path into the object. `unknown` means
    that the server may have done it all the same: look before doing it again.
    """

    kind: ErrorClass
    code: str
    message: str
    field: str = ""
    status: int = 0
    retry_after: float | None = None
    unknown: bool = False

    def __str__(self) -> str:
        return f"{self.kind}/{self.code}: {self.message}"


def transport_error(code: str, message: str, *, mutating: bool) -> ClusterError:
    """A call that got no answer: of a write nobody knows whether it happened."""
    return ClusterError(ErrorClass.RETRY, code, cut(message), unknown=mutating)


def answer_error(status: int, body: Mapping[str, Any], *, mutating: bool, retry_after: float | None) -> ClusterError:
    """Classify an answer of 400 or more by its Status object; `body` is empty where the answer was none."""
    reason, message = str(body.get("reason") or ""), str(body.get("message") or "")
    causes = _causes(body)
    kind, code, field = _verdict(status, reason, message, causes, body)
    error = ClusterError(kind, code, cut(message) or f"The API server answered {status}.", field, status, retry_after)
    error.unknown = mutating and status >= 500 and kind is ErrorClass.RETRY
    return error


def starting_error() -> ClusterError:
    """A refusal of a server that is not ready."""
    message = "The API server is starting, and does not know its roles yet."
    return ClusterError(ErrorClass.RETRY, "starting", message, status=403)


def cut(text: str) -> str:
    """Text of the cluster on one line, short enough for a row."""
    words = " ".join(text.split())
    return words if len(words) <= MAX_MESSAGE else words[: MAX_MESSAGE - 1] + "…"


def _verdict(
    status: int, reason: str, message: str, causes: list[Mapping[str, Any]], body: Mapping[str, Any]
) -> tuple[ErrorClass, str, str]:
    field = next((str(cause.get("field")) for cause in causes if cause.get("field")), "")
    if status in (400, 422):
        return _refused(message, causes, field)
    if status == 401:
        return ErrorClass.WAIT, "unauthorized", ""
    if status == 403:
        return ErrorClass.WAIT, *_forbidden(message, causes)
    if status == 404:
        return _missing(reason, message, body)
    if status == 409:
        return _conflict(reason, message, causes, field)
    if status == 410:
        return ErrorClass.EXPIRED, "expired", ""
    if status == 429:
        return ErrorClass.RETRY, "too_many_requests", ""
    if status >= 500:
        return _server_error(message)
    return ErrorClass.BUG, f"http_{status}", ""


def _refused(message: str, causes: list[Mapping[str, Any]], field: str) -> tuple[ErrorClass, str, str]:
    if field == "metadata.uid":
        return ErrorClass.TAKEN, "name_taken", field
    if "the server rejected our request due to an error in our request" in message or "test operation" in message:
        return ErrorClass.CONFLICT, "conflict", field
    if "denied the request" in message:
        return ErrorClass.WAIT, "denied", field
    return ErrorClass.WAIT, "invalid", field


def _forbidden(message: str, causes: list[Mapping[str, Any]]) -> tuple[str, str]:
    if "exceeded quota" in message or "failed quota" in message:
        return "quota_exceeded", ""
    if "violates PodSecurity" in message:
        return "pod_security", ""
    if "being terminated" in message or any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return "namespace_terminating", ""
    if "denied the request" in message:
        return "denied", ""
    return "permission", ""


def _missing(reason: str, message: str, body: Mapping[str, Any]) -> tuple[ErrorClass, str, str]:
    details = body.get("details") or {}
    if isinstance(details, Mapping) and details.get("kind") == "namespaces":
        return ErrorClass.GONE, "namespace_missing", ""
    named = isinstance(details, Mapping) and bool(details.get("name"))
    if reason == "NotFound" and named:
        return ErrorClass.GONE, "gone", ""
    # No object is named: the whole path is unknown, so the CRD (or the API group) is not installed.
    return ErrorClass.WAIT, "kind_missing", ""


def _conflict(reason: str, message: str, causes: list[Mapping[str, Any]], field: str) -> tuple[ErrorClass, str, str]:
    if reason == "AlreadyExists":
        return ErrorClass.TAKEN, "name_taken", ""
    lower = message.lower()
    if "uid mismatch" in lower or ("precondition" in lower and "uid" in lower):
        return ErrorClass.GONE, "uid_mismatch", ""
    if any(cause.get("reason") == "FieldManagerConflict" for cause in causes):
        return ErrorClass.BUG, "field_conflict", field
    return ErrorClass.CONFLICT, "conflict", field


def _server_error(message: str) -> tuple[ErrorClass, str, str]:
    # Server-side apply answers an unknown field with 500: a wrong object, and no retry makes it right.
    if "failed to create typed patch object" in message or "field not declared in schema" in message:
        return ErrorClass.WAIT, "invalid", ""
    if "failed calling webhook" in message:
        return ErrorClass.RETRY, "webhook_unreachable", ""
    return ErrorClass.RETRY, "server_error", ""


def _causes(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = body.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    return [cause for cause in causes if isinstance(cause, Mapping)] if isinstance(causes, list) else []
