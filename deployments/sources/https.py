"""Plain downloads: one archive, or one GGUF file, at a public address. Pure; whoever calls brings the HTTP.

KServe's loader fetches one URL: archives it unpacks, anything else it stores as it is, and only when the server calls
it `application/octet-stream`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from deployments.sources.checks import Ask, Reply, SourceCheck, SourceCode
from deployments.sources.listing import Place, is_archive, judge

_TAR = ("application/x-tar", "application/x-gtar", "application/x-gzip", "application/gzip")
_ZIP = ("application/x-zip-compressed", "application/zip", "application/zip-compressed")
_PLAIN = ("application/octet-stream",)


def check(uri: str, ask: Ask) -> SourceCheck:
    """Look an address up and say what the loader would make of it."""
    name = urlsplit(uri).path.rpartition("/")[2]
    head = ask(uri, method="HEAD")
    if head.status == 405:
        head = ask(uri, headers={"Range": "bytes=0-0"})
    if head.status not in {200, 206}:
        return _refused(uri, head)
    kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
    taken = _ZIP if name.endswith(".zip") else _TAR if is_archive(name) else _PLAIN
    if not kind.startswith(taken):
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"The server calls {name[:80]} “{kind[:60] or 'nothing'}”; the loader takes {taken[0]} only.",
            "Have the server send that Content-Type, or put the file into a bucket.",
        )
    text = head.headers.get("content-range", "").rpartition("/")[2] or head.headers.get("content-length", "")
    size = int(text) if text.isdecimal() and len(text) < 19 else 0

    def read(file: str, first: int | None) -> Reply:
        return ask(uri, headers={"Range": f"bytes=0-{(first or 1) - 1}"})

    return judge(Place(uri, read, single=True), {name: size})


def _refused(uri: str, reply: Reply) -> SourceCheck:
    host = urlsplit(uri).hostname
    if reply.forbidden:
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"Nothing is downloaded from there: {reply.error}",
            "Use a public address, or have an admin add the server to DOWNLOAD_SERVERS.",
        )
    if reply.status in {404, 410}:
        return SourceCheck(SourceCode.NOT_FOUND, f"{host} has nothing at this address.", "Check the address.")
    if reply.status in {401, 403}:
        return SourceCheck(
            SourceCode.GATED,
            f"{host} gives this only to those who sign in.",
            "Plain downloads are fetched without a credential: put the file into a bucket of the team.",
        )
    return SourceCheck(
        SourceCode.UNREACHABLE,
        f"{host} could not be asked ({reply.said}).",
        "Check the address: it must be public, with https and without a port.",
    )
