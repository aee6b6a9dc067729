"""The gateway's question: may the bearer of this header call that deployment?"""

from __future__ import annotations

from typing import Any

import orjson

from deployments.services import invoke
from deployments.services.invoke import Admission
from portal.live.database import in_database
from portal.live.http import Receive, Refused, Scope, Send, body_of, header_of, send_json

MOST_BODY = 8 * 1024


async def authorize(scope: Scope, receive: Receive, send: Send) -> None:
    """200 admits and names the caller; 401 and 403 refuse."""
    try:
        question: Any = orjson.loads(await body_of(receive, most=MOST_BODY))
    except orjson.JSONDecodeError:
        raise Refused(400, "invalid", "Send JSON with namespace and name.") from None
    namespace, name = (question.get(key) if isinstance(question, dict) else None for key in ("namespace", "name"))
    if not isinstance(namespace, str) or not isinstance(name, str):
        raise Refused(400, "invalid", "Send JSON with namespace and name.")
    verdict = await in_database(invoke.admit, header_of(scope, b"authorization"), namespace, name)
    if isinstance(verdict, Admission):
        await send_json(send, 200, {"subject": verdict.subject, "deployment": verdict.deployment_id})
        return
    extra = [(b"www-authenticate", b'Bearer realm="slipway"')] if verdict.status == 401 else []
    await send_json(send, verdict.status, {"code": verdict.code, "message": verdict.message}, extra)
