"""How addresses of each kind of store are written: read strictly, each refused with what to write instead. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from deployments.sources import kubeflow, mlflow
from deployments.sources.listing import FILE_NAME, is_file

# Parts of a path: nothing that a shell, a template or a query reads, and no way up.
_PART = r"(?!\.\.?(?:/|\Z))[A-Za-z0-9_.=+@,~-]{1,200}"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*/?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_CLAIM = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::[0-9]{1,5})?")
# What KServe's loader takes for something else than a plain download.
_AZURE = re.compile(r"\.(?:blob|file)\.core\.windows\.net(?:[:/]|\Z)")


def bucket(scheme: str, rest: str) -> str:
    """“bucket/folder” of an address of a bucket; ValueError, in words for people, for anything else."""
    name, _, path = rest.partition("/")
    if not _BUCKET.fullmatch(name):
        raise ValueError(
            f"“{name[:70]}” is not the name of a bucket: those have 3 to 63 lower-case letters, digits, “.”, “_” and "
            "“-”, with a letter or digit at both ends."
        )
    if not path.strip("/"):
        raise ValueError(f"Name the folder of the model too: {scheme}://{name}/folder")
    return f"{name}/{_path(path)}"


def claim(rest: str) -> str:
    """“claim/folder” of a volume claim; without a folder the whole volume is the model."""
    name, _, path = rest.partition("/")
    if not _CLAIM.fullmatch(name):
        raise ValueError(
            f"“{name[:70]}” is not the name of a volume claim: those have at most 63 lower-case letters, digits and "
            "“-”, with a letter or digit at both ends."
        )
    return f"{name}/{_path(path)}" if path.strip("/") else name


def download(uri: str) -> str:
    """“host/path” of a plain download, which must name one archive or one GGUF file."""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        raise ValueError("That is not a web address.") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("The address must not carry a user name or password.")
    if parts.query or parts.fragment or "?" in uri or "#" in uri:
        raise ValueError("The address must not have a query: a signed one would be stored and shown to everybody.")
    if not _HOST.fullmatch(parts.netloc):
        raise ValueError(_no_host(parts.netloc))
    path = _path(parts.path.lstrip("/"))
    name = path.rpartition("/")[2]
    if not is_file(name) or not FILE_NAME.fullmatch(name):
        raise ValueError("A download is one file: an archive (.tar, .tar.gz, .tgz, .zip) or a .gguf.")
    if ".git" in uri.removesuffix(".gguf"):
        raise ValueError("The cluster would take this address for a Git repository, because of the “.git” in it.")
    if _AZURE.search(uri):
        raise ValueError("The cluster would take this address for Azure storage, of which it has no keys.")
    return f"{parts.netloc}/{path}"


def _no_host(netloc: str) -> str:
    """Why this is not the host of a download."""
    if netloc.startswith("["):
        return "Write the server by its name: an address in brackets (IPv6) is not taken."
    return "Write https:// and the server's name, then the path."


def entry(uri: str) -> str:
    """The name of an entry of an MLflow or Kubeflow registry with its version."""
    if uri.startswith(kubeflow.PREFIX):
        return "/".join(kubeflow.parse_entry(uri))
    mlflow.parse_entry(uri)
    return uri.removeprefix("models:/")


def _path(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ValueError(
            "The path has characters or parts that are not taken: use letters, digits, “.”, “_”, “-” and “/”."
        )
    return path.rstrip("/")
