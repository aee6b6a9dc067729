"""Refusals, worded as kube-apiserver words them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NOWHERE = "<nil>"  # how Go spells the path of the whole object


@dataclass(frozen=True)
class Cause:
    """One entry of `details.causes`: a field path, a reason word and a sentence."""

    field: str
    reason: str
    message: str


class StatusError(Exception):
    """An answer that is a Status object instead of what was asked for."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = headers or {}

    def status(self) -> dict[str, Any]:
        """Return the metav1.Status body."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


def _details(group: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    details = {"name": name, "group": group, "kind": kind} | more
    return {key: value for key, value in details.items() if value not in ("", None)}


def qualified(group: str, word: str) -> str:
    """Return `deployments.apps`, or `pods` in the core group."""
    return f"{word}.{group}" if group else word


def not_found(group: str, plural: str, name: str) -> StatusError:
    """404 for one object."""
    return StatusError(
        404,
        "NotFound",
        f'{qualified(group, plural)} "{name}" not found',
        details=_details(group, plural, name),
    )


def unknown_path() -> StatusError:
    """404 for a path that names no resource."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", details={})


def already_exists(group: str, plural: str, name: str) -> StatusError:
    """409 for a create of a taken name."""
    return StatusError(
        409,
        "AlreadyExists",
        f'{qualified(group, plural)} "{name}" already exists',
        details=_details(group, plural, name),
    )


def conflict(group: str, plural: str, name: str, why: str) -> StatusError:
    """409 for a write that no longer fits the object."""
    return StatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}',
        details=_details(group, plural, name),
    )


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> StatusError:
    """422 with one cause per wrong field; the sentence says the same of one field once."""
    sentences = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    text = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    return StatusError(
        422,
        "Invalid",
        f'{qualified(group, kind)} "{name}" is invalid: {text}',
        details=_details(
            group,
            kind,
            name,
            causes=[{"reason": c.reason, "message": c.message, "field": c.field} for c in causes],
        ),
    )


def forbidden(group: str, plural: str, name: str, why: str) -> StatusError:
    """403 with the reason an admission step or the authoriser gave."""
    subject = f'{qualified(group, plural)} "{name}"' if name else qualified(group, plural)
    return StatusError(
        403,
        "Forbidden",
        f"{subject} is forbidden: {why}",
        details=_details(group, plural, name),
    )


def denied(webhook: str, why: str, code: int = 403) -> StatusError:
    """403 as an admission webhook gives it, or 422 from one that answers with a list of wrong fields."""
    reason = "Invalid" if code == 422 else "Forbidden"
    return StatusError(code, reason, f'admission webhook "{webhook}" denied the request: {why}')


def unauthorized() -> StatusError:
    """401: no token, or one that nobody has."""
    return StatusError(401, "Unauthorized", "Unauthorized", headers={"WWW-Authenticate": 'Bearer realm="kubernetes"'})


def bad_request(message: str) -> StatusError:
    """400."""
    return StatusError(400, "BadRequest", message)


def expired(message: str) -> StatusError:
    """410: the resourceVersion or continue token is older than the event log."""
    return StatusError(410, "Expired", message)


def method_not_allowed() -> StatusError:
    """405."""
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def unsupported_media_type(wanted: str) -> StatusError:
    """415 for a body this server cannot read."""
    return StatusError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {wanted}",
    )


def internal(message: str) -> StatusError:
    """500."""
    return StatusError(500, "InternalError", message)


def required(field: str, detail: str = "") -> Cause:
    """A field that must be there."""
    return Cause(field, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def invalid_value(field: str, value: Any, detail: str) -> Cause:
    """A field whose value breaks a rule."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {spell(value)}: {detail}")


def unsupported(field: str, value: Any, allowed: list[str], *, ordered: bool = False) -> Cause:
    """A field whose value is not one of a few; Go's own enumerations are told in order of the alphabet."""
    words = ", ".join(f'"{word}"' for word in (allowed if ordered else sorted(allowed)))
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {spell(value)}: supported values: {words}")


_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def spell(value: Any) -> str:
    """Write a value as Go's field errors do."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.translate(_ESCAPED) + '"'
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return str(value)
    import orjson

    return orjson.dumps(value).decode()
