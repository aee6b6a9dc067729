"""A Kubeflow Model Registry as it answered: recordings of the real server, asked as one or served as one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deployments.sources import Reply

FOLDER = Path(__file__).parent / "data" / "model-registry-0.2.22"


class Recording:
    """Answers by method, path and query; what was never recorded is never made up."""

    def __init__(self, name: str = "mysql") -> None:
        self.rows: dict[str, dict[str, Any]] = {
            row["path"]: row for row in json.loads((FOLDER / f"{name}.json").read_text())
        }
        self.asked: list[str] = []

    def row(self, path: str) -> dict[str, Any]:
        """What was taken down for a path with its query."""
        self.asked.append(path)
        if path not in self.rows:
            raise AssertionError(f"{path} was never recorded: run scripts/record_model_registry.py")
        return self.rows[path]

    def __call__(self, url: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        parts = urlsplit(url)
        row = self.row(f"{parts.path}?{parts.query}" if parts.query else parts.path)
        assert method == row["method"]
        return Reply(row["status"], row.get("json"), {"content-type": row["content_type"]}, body=_body(row))

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request to a web server."""
        row = self.row(handler.path)
        body = _body(row)
        handler.send_response(row["status"])
        handler.send_header("Content-Type", row["content_type"])
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def _body(row: Mapping[str, Any]) -> bytes:
    text = row["text"] if "text" in row else json.dumps(row["json"], ensure_ascii=False) + "\n"
    return str(text).encode()
