"""Somebody with a browser but without its scripts: a session, a CSRF token, forms as a page sends them."""

from __future__ import annotations

import re
from html import unescape
from types import TracebackType
from typing import Any

import httpx

TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
HTMX = {"HX-Request": "true"}
# Browsers wait longer; a page that needs more than this with a part away is too slow for people.
PATIENCE = 15.0


class Visitor:
    """One person's session at a running demo; anonymous without a name."""

    def __init__(self, demo: dict[str, Any], username: str = "", *, seconds: float = PATIENCE) -> None:
        self.url: str = demo["url"]
        self.http = httpx.Client(base_url=self.url, timeout=seconds, trust_env=False)
        found = TOKEN.search(self.http.get("/accounts/login/").text)
        assert found, "no CSRF token on the page to sign in"
        self.token = found.group(1)
        if username:
            account = next(row for row in demo["accounts"] if row["username"] == username)
            self._sign_in(username, account["password"])

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.http.close()

    def get(self, path: str, *, htmx: bool = False, **params: str) -> httpx.Response:
        """Open a page, or as htmx a part of one; redirects are shown, not followed."""
        return self.http.get(path, params=params or None, headers=HTMX if htmx else None)

    def post(self, path: str, fields: dict[str, str], *, htmx: bool = False) -> httpx.Response:
        """Send a form."""
        headers = {"Referer": self.url + path, "X-CSRFToken": self.token, **(HTMX if htmx else {})}
        return self.http.post(path, data=fields, headers=headers)

    def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Any request, with the session and the CSRF token."""
        headers = {"Referer": self.url + path, "X-CSRFToken": self.token, **given.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **given)

    def _sign_in(self, username: str, password: str) -> None:
        answer = self.post("/accounts/login/", {"login": username, "password": password, "next": "/"})
        assert answer.status_code == 302, answer.text[:2000]
        self.token = self.http.cookies["csrftoken"]


def text_of(page: str) -> str:
    """The words of a page or a part, without its tags, in one line."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", bare)).split())


def message_at(page: str, field: str) -> str:
    """What stands in the message box of one field of the request form."""
    notes = r'((?:\s*<div class="note.*?</div>)*)'
    found = re.search(rf'<div id="msg-{re.escape(field)}"[^>]*>{notes}\s*</div>', page, re.S)
    assert found, f"no message box for {field}"
    return text_of(found.group(1))


def value_of(page: str, field: str) -> str | None:
    """What stands in a field of a form: of an input, a text area, or the chosen entry of a list."""
    name = re.escape(field)
    for tag in re.findall(rf'<input\b[^>]*\bname="{name}"[^>]*>', page):
        if 'type="radio"' in tag and " checked" not in tag:
            continue
        given = re.search(r'\bvalue="([^"]*)"', tag)
        return unescape(given.group(1)) if given else ""
    if area := re.search(rf'<textarea\b[^>]*\bname="{name}"[^>]*>(.*?)</textarea>', page, re.S):
        return unescape(area.group(1)).removeprefix("\n")  # as browsers do
    if chosen := re.search(rf'<select\b[^>]*\bname="{name}"[^>]*>(.*?)</select>', page, re.S):
        picked = re.search(r'<option\b[^>]*\bvalue="([^"]*)"[^>]*\bselected', chosen.group(1))
        return unescape(picked.group(1)) if picked else None
    return None
