"""Reading a model hub as huggingface_hub does, with its errors word for word."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from sandbox.engine.boot import ModelFiles

PUBLIC = "https://huggingface.co"
ADAPTER = "adapter_config.json"  # what a LoRA adapter has in place of a config.json


class HubError(Exception):
    """What huggingface_hub raises; the text is the exception's class path and message."""


@dataclass(frozen=True)
class Snapshot:
    """One revision of a repository: its commit and file sizes in bytes."""

    model: str
    sha: str
    sizes: dict[str, int]


class HubClient:
    """Talks to one hub."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url.rstrip("/")
        self.http = http

    async def snapshot(self, model: str, revision: str, token: str | None) -> Snapshot:
        """List a revision; raises HubError when it does not exist or the hub cannot be reached."""
        path = f"/api/models/{model}/revision/{revision}"
        answer = await self._request("GET", path, token, blobs="true")
        body: dict[str, Any] = answer.json()
        return Snapshot(model, body["sha"], {entry["rfilename"]: entry["size"] for entry in body["siblings"]})

    async def open(self, snapshot: Snapshot, name: str, token: str | None) -> int:
        """Ask for one file as a download begins; returns its size in bytes or raises HubError."""
        answer = await self._request("HEAD", f"/{snapshot.model}/resolve/{snapshot.sha}/{name}", token)
        return int(answer.headers.get("x-linked-size") or answer.headers.get("content-length") or 0)

    async def config(self, snapshot: Snapshot, token: str | None) -> dict[str, Any]:
        """Read config.json, or that of an adapter; raises HubError."""
        name = ADAPTER if ADAPTER in snapshot.sizes and "config.json" not in snapshot.sizes else "config.json"
        answer = await self._request("GET", f"/{snapshot.model}/resolve/{snapshot.sha}/{name}", token)
        config: dict[str, Any] = answer.json()
        return config

    async def files(self, model: str, revision: str, token: str | None) -> ModelFiles:
        """A whole repository as an engine sees it; raises HubError."""
        snapshot = await self.snapshot(model, revision, token)
        return ModelFiles(await self.config(snapshot, token), snapshot.sizes)

    async def _request(self, method: str, path: str, token: str | None, **params: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = await self.http.request(method, f"{self.url}{path}", params=params, headers=headers, timeout=15.0)
        except httpx.HTTPError as error:
            raise HubError(
                "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the files on "
                "the Hub and we cannot find the appropriate snapshot folder for the specified revision on the local "
                f"disk. Please check your internet connection and try again. ({type(error).__name__})"
            ) from error
        if answer.status_code >= 400:
            raise HubError(_error_text(answer, path))
        return answer


def _error_text(answer: httpx.Response, path: str) -> str:
    code = answer.headers.get("x-error-code", "")
    message = answer.headers.get("x-error-message", "")
    status = answer.status_code
    request_id = f"Root=1-{uuid.uuid4().hex[:8]}-{uuid.uuid4().hex[:24]};{uuid.uuid4()}"
    first = f"{status} Client Error. (Request ID: {request_id})"
    url = f"{PUBLIC}{path}"
    errors = "huggingface_hub.errors"
    if code == "GatedRepo":
        return f"{errors}.GatedRepoError: {first}\n\nCannot access gated repo for url {url}.\n{message}"
    if code == "RevisionNotFound":
        return f"{errors}.RevisionNotFoundError: {first}\n\nRevision Not Found for url: {url}.\n{message}"
    if code == "EntryNotFound":
        return f"{errors}.EntryNotFoundError: {first}\n\nEntry Not Found for url: {url}."
    if code == "RepoNotFound":
        return (
            f"{errors}.RepositoryNotFoundError: {first}\n\nRepository Not Found for url: {url}.\nPlease make sure you "
            "specified the correct `repo_id` and `repo_type`.\nIf you are trying to access a private or gated repo, "
            "make sure you are authenticated. For more details, see https://huggingface.co/docs/huggingface_hub/authentication"
        )
    if status == 401:
        first = f"{status} Client Error: Unauthorized for url: {url} (Request ID: {request_id})"
        return f"{errors}.HfHubHTTPError: {first}\n\n{message}"
    return f"{errors}.HfHubHTTPError: {status} Error for url: {url} (Request ID: {request_id})\n\n{message}"
