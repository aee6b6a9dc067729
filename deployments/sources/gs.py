"""Buckets of Google Cloud Storage: what lies under an address. Pure; whoever calls brings the HTTP and the token."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from deployments.sources.checks import Ask, Reply, SourceCheck, SourceCode
from deployments.sources.listing import Place, judge, too_many, under

API = "https://storage.googleapis.com"
MOST = 1000
LATER = "You can go on: it is looked up again before anything starts."


def check(bucket: str, path: str, ask: Ask, *, api: str = API, token: str = "") -> SourceCheck:
    """Look up a folder, or a single file, of a bucket, with an access token or, without one, as anybody."""
    shown = f"gs://{bucket}/{path}".rstrip("/")
    wanted = path.strip("/")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    base = f"{api}/storage/v1/b/{quote(bucket, safe='')}/o"
    fields = quote("items(name,size),nextPageToken", safe="")
    reply = ask(f"{base}?fields={fields}&maxResults={MOST}&prefix={quote(wanted, safe='')}", headers=headers)
    if reply.status != 200 or not isinstance(reply.json, Mapping):
        return _refused(shown, bucket, reply, with_token=bool(token))
    if reply.json.get("nextPageToken"):
        return too_many(shown)
    found = under(wanted, _objects(reply.json))
    uri = f"gs://{bucket}/{wanted}"  # the loader adds a folder's last slash itself
    if not found.sizes:
        return SourceCheck(SourceCode.NOT_FOUND, f"Nothing lies under {shown}.", "Check bucket and folder.")

    def read(name: str, first: int | None) -> Reply:
        part = {"Range": f"bytes=0-{first - 1}"} if first else {}
        return ask(f"{base}/{quote(found.key(name), safe='')}?alt=media", headers={**headers, **part})

    return judge(Place(uri, read, found.single), found.sizes)


def _objects(listing: Mapping[str, object]) -> dict[str, int]:
    """Names and sizes in bytes, as far as the answer makes sense."""
    items = listing.get("items")
    found: dict[str, int] = {}
    for item in items[:MOST] if isinstance(items, list) else ():
        name, size = (item.get("name"), item.get("size")) if isinstance(item, Mapping) else (None, None)
        if isinstance(name, str) and str(size).isdecimal() and len(str(size)) < 19:
            found[name] = int(str(size))
    return found


def _refused(shown: str, bucket: str, reply: Reply, *, with_token: bool) -> SourceCheck:
    if reply.status == 404:
        return SourceCheck(SourceCode.NOT_FOUND, f"There is no bucket “{bucket}”.", "Check its name.")
    if reply.status in {401, 403} and with_token:
        return SourceCheck(
            SourceCode.GATED,
            f"Google knows this service account, but it may not list {shown}.",
            "It needs the role Storage Object Viewer on the bucket.",
        )
    if reply.status in {401, 403}:
        return SourceCheck(
            SourceCode.GATED,
            f"The bucket “{bucket}” is not public.",
            "Choose a credential with the key of a service account that may read it.",
        )
    return SourceCheck(SourceCode.UNREACHABLE, f"Google could not be asked ({reply.said}).", LATER)
