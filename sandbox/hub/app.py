"""HTTP shapes of huggingface.co: model information, file trees, and the headers a downloader looks at."""

from __future__ import annotations

from typing import Any

import orjson

from sandbox.asgi import Answer, Receive, Request, Scope, Send, json_answer, send_answer, text_answer
from sandbox.hub.catalog import HubFile, Model, access, load, load_adapters, valid

LIST_LIMIT = 1000
TOKENIZER_CONFIG = "tokenizer_config.json"


class Hub:
    """The ASGI application."""

    def __init__(self) -> None:
        self.models = {**load(), **load_adapters()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        head = request.method == "HEAD"
        if request.method not in ("GET", "HEAD"):
            answer = _error(405, "MethodNotAllowed", "This hub only reads.")
        else:
            answer = self.answer(request.parts, request.query, _token(request), head=head)
        await send_answer(send, answer, head=head)

    def answer(self, parts: list[str], query: dict[str, str], token: str | None, *, head: bool = False) -> Answer:
        """Route a GET or HEAD by its path segments."""
        match parts:
            case ["healthz"]:
                return text_answer("ok")
            case ["api", "whoami-v2"]:
                return _whoami(token)
            case ["api", "models"]:
                return self._search(query)
            case ["api", "models", owner, name]:
                return self._information(f"{owner}/{name}", "main", query, token)
            case ["api", "models", owner, name, "revision", revision]:
                return self._information(f"{owner}/{name}", revision, query, token)
            case ["api", "models", owner, name, "tree", revision, *_]:
                return self._tree(f"{owner}/{name}", revision, token)
            case ["api", "models", owner, name, "auth-check"]:
                return self._resolve(f"{owner}/{name}", "main", None, token, head=head)
            case [owner, name, "resolve", revision, *path] if path:
                return self._resolve(f"{owner}/{name}", revision, "/".join(path), token, head=head)
        return _error(404, "NotFound", "Sorry, we can't find the page you are looking for.")

    def _search(self, query: dict[str, str]) -> Answer:
        wanted = query.get("search", "").lower()
        limit = int(query["limit"]) if query.get("limit", "").isdigit() else LIST_LIMIT
        tag = query.get("filter", "")
        found = [
            model
            for model in self.models.values()
            if wanted in model.id.lower() and (not tag or tag in model.card["tags"]) and not model.private
        ]
        # Asked to tell more, the hub tells what was asked for; here that is all that there is to tell.
        return json_answer(
            [_summary(model) | (_weights(model) if "expand" in query else {}) for model in found[:limit]]
        )

    def _information(self, model_id: str, revision: str, query: dict[str, str], token: str | None) -> Answer:
        model = self._find(model_id, revision, token)
        if isinstance(model, Answer):
            return model
        blobs = query.get("blobs", "").lower() in ("1", "true")
        body = _summary(model) | {
            "sha": model.sha,
            "disabled": False,
            "config": {name: model.config[name] for name in ("architectures", "model_type") if name in model.config},
            "cardData": {"license": model.card["license"], "pipeline_tag": model.card["pipeline_tag"]},
            **_weights(model),
            "siblings": [_sibling(model, file, blobs) for file in model.files],
            "usedStorage": sum(file.size for file in model.files),
        }
        return json_answer(body)

    def _tree(self, model_id: str, revision: str, token: str | None) -> Answer:
        model = self._find(model_id, revision, token)
        if isinstance(model, Answer):
            return model
        entries = []
        for file in model.files:
            entry: dict[str, Any] = {"type": "file", "oid": file.etag(model.sha)[:40], "size": file.size}
            if file.lfs:
                entry["lfs"] = {"oid": file.etag(model.sha), "size": file.size, "pointerSize": 135}
            entries.append(entry | {"path": file.name})
        return json_answer(entries)

    def _resolve(self, model_id: str, revision: str, path: str | None, token: str | None, *, head: bool) -> Answer:
        model = self._find(model_id, revision, token)
        if isinstance(model, Answer):
            return model
        refusal = access(model, token)
        if refusal is not None:
            return _refused(model, refusal)
        if path is None:
            return json_answer({"ok": True})
        file = model.file(path)
        if file is None:
            return _error(404, "EntryNotFound", "Entry not found")
        return _file_answer(model, file, head=head)

    def _find(self, model_id: str, revision: str, token: str | None) -> Model | Answer:
        if token is not None and not valid(token):
            return _error(401, None, "Invalid credentials in Authorization header")
        model = self.models.get(model_id)
        if model is None:
            return _error(404, "RepoNotFound", "Repository not found")
        if model.private and access(model, token) is not None:
            # As if it were not there: whoever shows no token is asked for one.
            return _error(401 if token is None else 404, "RepoNotFound", "Repository not found")
        if not model.knows(revision):
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return model


def _file_answer(model: Model, file: HubFile, *, head: bool) -> Answer:
    headers = {
        "x-repo-commit": model.sha,
        "x-linked-size": str(file.size),
        "x-linked-etag": f'"{file.etag(model.sha)}"',
        "etag": f'"{file.etag(model.sha)}"',
        "accept-ranges": "bytes",
        "access-control-expose-headers": "X-Repo-Commit,X-Error-Code,X-Error-Message,ETag,X-Linked-Size,X-Linked-ETag",
    }
    if file.name == model.config_name:
        content = orjson.dumps(model.config, option=orjson.OPT_INDENT_2)
        return Answer(200, content, "application/json", tuple(headers.items()))
    if file.name == TOKENIZER_CONFIG:
        return Answer(200, orjson.dumps(model.tokenizer), "application/json", tuple(headers.items()))
    if head:
        return Answer(200, b"", "application/octet-stream", tuple(headers.items()))
    return _error(
        501, None, f"This hub is a look-alike: it knows the size of {file.name} but does not hold its content."
    )


def _refused(model: Model, refusal: str) -> Answer:
    page = f"https://huggingface.co/{model.id}"
    if refusal == "invalid":
        return _error(401, None, "Invalid credentials in Authorization header")
    if refusal == "anonymous":
        text = (
            f"Access to model {model.id} is restricted. You must have access to it and be authenticated to access it."
        )
        return _error(401, "GatedRepo", f"{text} Please log in.")
    text = f"Access to model {model.id} is restricted and you are not in the authorized list."
    return _error(403, "GatedRepo", f"{text} Visit {page} to ask for access.")


def _summary(model: Model) -> dict[str, Any]:
    return {
        "_id": model.sha[:24],
        "id": model.id,
        "modelId": model.id,
        "author": model.id.split("/")[0],
        "private": model.private,
        "gated": model.gated,
        "library_name": "transformers",
        **model.card,
    }


def _weights(model: Model) -> dict[str, Any]:
    return {"safetensors": {"parameters": model.parameters, "total": sum(model.parameters.values())}}


def _sibling(model: Model, file: HubFile, blobs: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": file.name}
    if blobs:
        entry |= {"blobId": file.etag(model.sha)[:40], "size": file.size}
        if file.lfs:
            entry["lfs"] = {"sha256": file.etag(model.sha), "size": file.size, "pointerSize": 135}
    return entry


def _whoami(token: str | None) -> Answer:
    if token is None or not valid(token):
        return _error(401, None, "Invalid username or password.")
    return json_answer({"type": "user", "name": "sandbox-user", "auth": {"type": "access_token"}, "orgs": []})


def _token(request: Request) -> str | None:
    header = request.headers.get("authorization", "")
    return header[7:].strip() if header.lower().startswith("bearer ") else None


def _error(status: int, code: str | None, message: str) -> Answer:
    headers = {"x-error-message": message} | ({"x-error-code": code} if code else {})
    return json_answer({"error": message}, status, headers)
