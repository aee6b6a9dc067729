"""Calls of the REST API as programs make them, and the problems that they are answered with."""

from __future__ import annotations

from typing import Any

from django.test import Client

from deployments.services import tokens
from tests.deployments import factories as make


class Api:
    """A program with a token."""

    def __init__(self, user, *scopes: str) -> None:
        who = make.principal(user)
        _, text = tokens.create(
            principal=who, name=make.a_name(), scopes=scopes or ("read", "write", "approve", "invoke")
        )
        self.client = Client(headers={"authorization": f"Bearer {text}"})

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = {"data": body, "content_type": "application/json"} if body is not None else {}
        address = path if path.startswith("/") else f"/api/v1/{path}"
        return getattr(self.client, method)(address, headers=headers or None, **sent)


def problem(answer, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.content
    assert answer["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["request_id"]
    return body


def pointers(answer, status: int = 422) -> dict[str, str]:
    return {error["pointer"]: error["code"] for error in problem(answer, status)["errors"]}
