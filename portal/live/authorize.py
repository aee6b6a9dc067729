"""The gateway's question: may the bearer of this header call that deployment?

It comes in two forms. Slipway's own sandbox posts JSON. Envoy's external authorization over HTTP, and others that
forward the caller's request without its body, append the caller's path to ours; nginx names it in X-Original-URI.

A gateway that posts JSON counts the requests of a key itself and reports them (`portal.live.usage`), because it does
not ask for each; of the others each question is a request, and is counted here.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import orjson

from deployments.services import usage
from deployments.services.invoke import Admission, Refusal, admit
from portal.live.database import in_database
from portal.live.http import Receive, Refused, Scope, Send, body_of, header_of, send_json
from portal.live.metered import HEADER, told
from portal.live.usage import Tally

MOST_BODY = 8 * 1024
PREFIX = "/live/authorize/"
OPEN = "/live/authorize-open/"
MOST_OPEN = 200
MOST_OPEN_BODY = 1024 * 1024
# Literal names of one segment each: a path in which they could mean something else to the gateway's router is refused.
ENDPOINT = re.compile(r"/([a-z0-9-]{1,63})/([a-z0-9-]{1,63})(/[^?#]*)?")


async def authorize(scope: Scope, receive: Receive, send: Send, tally: Tally) -> None:
    """200 admits, names the caller and says how long that counts; 401, 403 and 429 refuse. A question in JSON."""
    try:
        question: Any = orjson.loads(await body_of(receive, most=MOST_BODY))
    except orjson.JSONDecodeError:
        raise Refused(400, "invalid", "Send JSON with namespace and name.") from None
    namespace, name = (question.get(key) if isinstance(question, dict) else None for key in ("namespace", "name"))
    if not isinstance(namespace, str) or not isinstance(name, str):
        raise Refused(400, "invalid", "Send JSON with namespace and name.")
    verdict = await in_database(usage.ask, header_of(scope, b"authorization"), namespace, name)
    if isinstance(verdict, Admission):
        key = verdict.key
        answer = {
            "subject": verdict.subject,
            "deployment": verdict.deployment_id,
            "key": key and key.key_id,
            "requests_per_minute": key and key.requests_per_minute,
            "tokens_per_minute": key and key.tokens_per_minute,
            "cache_seconds": verdict.remembered,
            "stale_seconds": verdict.without_answer,
        }
        await send_json(send, 200, answer)
        return
    tally.refused(verdict)
    refusal = {"code": verdict.code, "message": verdict.message, "limit": verdict.limit}
    await send_json(send, verdict.status, refusal, _headers(verdict))


async def authorize_open(scope: Scope, receive: Receive, send: Send) -> None:
    """Which of the callers whose answers are under way may still have them: `may`, in the order of the question.

    Nothing is counted against a limit: they were counted when they came. A question in JSON: `open`, a list of
    authorization, namespace and name.
    """
    try:
        question: Any = orjson.loads(await body_of(receive, most=MOST_OPEN_BODY))
    except orjson.JSONDecodeError:
        raise Refused(400, "invalid", "Send JSON with a list of what is open.") from None
    rows = question.get("open") if isinstance(question, dict) else None
    if not isinstance(rows, list) or len(rows) > MOST_OPEN:
        raise Refused(422, "invalid", f"Name at most {MOST_OPEN} that are open.", pointer="/open")
    callers = [_caller(row, index) for index, row in enumerate(rows)]
    await send_json(send, 200, {"may": await in_database(_still, callers)})


def _still(callers: list[tuple[str, str, str]]) -> list[bool]:
    known = {caller: isinstance(admit(*caller, begun=True), Admission) for caller in set(callers)}
    return [known[caller] for caller in callers]


def _caller(row: Any, index: int) -> tuple[str, str, str]:
    found = [row.get(name) if isinstance(row, dict) else None for name in ("authorization", "namespace", "name")]
    header, namespace, name = found
    if not (isinstance(header, str) and isinstance(namespace, str) and isinstance(name, str)):
        words = "Name authorization, namespace and name of each."
        raise Refused(422, "invalid", words, pointer=f"/open/{index}")
    return header, namespace, name


async def authorize_request(scope: Scope, receive: Receive, send: Send, tally: Tally) -> None:
    """The same answer to a request of any method that carries the caller's path; a body is not read.

    What is refused goes back to the caller as it is: an error as OpenAI's clients know it.
    """
    endpoint = endpoint_of(_asked_path(scope))
    if endpoint is None:
        verdict: Admission | Refusal = Refusal(403, "not_allowed", "There is no such endpoint for this key or token.")
    else:
        verdict = await in_database(usage.ask, header_of(scope, b"authorization"), *endpoint)
    if isinstance(verdict, Admission):
        tally.admitted(verdict)
        extra = [
            (b"x-slipway-subject", verdict.subject.encode("ascii", "replace")),
            (HEADER.encode(), told(verdict).encode()),
        ]
        await send_json(send, 200, {"subject": verdict.subject, "deployment": verdict.deployment_id}, extra)
        return
    tally.refused(verdict)
    kind = verdict.limit or ("authentication_error" if verdict.status == 401 else "permission_error")
    error = {"message": verdict.message, "type": kind, "code": verdict.code, "param": None}
    await send_json(send, verdict.status, {"error": error}, _headers(verdict))


def endpoint_of(path: str) -> tuple[str, str] | None:
    """Namespace and name of the deployment that a path of the gateway leads to, None when it leads to none.

    Dot segments and doubled or hidden slashes lead to none: a router that resolves them may go where we do not look.
    """
    found = ENDPOINT.fullmatch(path.partition("?")[0])
    if found is None:
        return None
    rest = unquote(found.group(3) or "")
    segments = re.split(r"[/\\]", rest)[1:]
    if any(segment in {".", ".."} for segment in segments) or "" in segments[:-1]:
        return None
    return found.group(1), found.group(2)


def _asked_path(scope: Scope) -> str:
    """The caller's own path as it was sent: after ours, or where ours is all there is, in X-Original-URI."""
    raw = bytes(scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    asked = raw.removeprefix(PREFIX.rstrip("/"))
    if not raw.startswith(PREFIX) or asked == "/":
        return header_of(scope, b"x-original-uri")
    return asked


def _headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    if refusal.status == 401:
        return [(b"www-authenticate", b'Bearer realm="slipway"')]
    return [(b"retry-after", str(refusal.retry_after).encode())] if refusal.retry_after else []
