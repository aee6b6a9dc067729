#!/usr/bin/env python3
"""Fetch the vendored assets again and compare them with the recorded hashes.

    python scripts/vendor.py check      hashes of what lies in static/vendor (offline; a test runs this)
    python scripts/vendor.py fetch      `npm pack` each package, verify the tarball, write the files
    python scripts/vendor.py record     as fetch, but accept and record new hashes (after a version bump)

What is wanted stands in static/vendor/vendor.json. Which registry npm asks is npm's own configuration.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).resolve().parent.parent / "static" / "vendor"
MANIFEST = VENDOR / "vendor.json"
SOURCE_MAP = re.compile(rb"\n?(/\*|//)# sourceMappingURL=[^\n*]*(\*/)?\s*$")
SVG_BODY = re.compile(r"<svg[^>]*>(.*)</svg>", re.DOTALL)
BLANK_PATH = re.compile(r'<path stroke="none" d="M0 0h24v24H0z" fill="none"\s*/>')


def main(argv: list[str]) -> int:
    """Run one of check, fetch and record; the exit status says whether everything is as recorded."""
    command = argv[0] if argv else "check"
    if command not in {"check", "fetch", "record"}:
        print(__doc__)
        return 2
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    if command != "check":
        for package in manifest["packages"]:
            fetch(package, record=command == "record")
    if command == "record":
        for package in manifest["packages"]:
            for file in package["files"]:
                file["sha256"] = sha256(VENDOR / file["to"])
        MANIFEST.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    wrong = problems(manifest)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def problems(manifest: dict[str, Any]) -> list[str]:
    """What differs between the files here and the recorded hashes, one line each."""
    wrong = []
    expected = {MANIFEST}
    for package in manifest["packages"]:
        for file in package["files"]:
            path = VENDOR / file["to"]
            expected.add(path)
            if not path.exists():
                wrong.append(f"{file['to']}: missing")
            elif sha256(path) != file.get("sha256"):
                wrong.append(f"{file['to']}: not what {package['name']} {package['version']} holds")
    for path in sorted(VENDOR.rglob("*")):
        if path.is_file() and path not in expected:
            wrong.append(f"{path.relative_to(VENDOR)}: not in vendor.json")
    return wrong


def fetch(package: dict[str, Any], *, record: bool) -> None:
    """Pack one package with npm, verify it, and write the files that are wanted from it."""
    with tempfile.TemporaryDirectory() as folder:
        spec = f"{package['name']}@{package['version']}"
        subprocess.run(["npm", "pack", "--silent", spec], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        tarball = next(Path(folder).glob("*.tgz"))
        digest = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        if record:
            package["integrity"] = digest
        elif digest != package["integrity"]:
            raise SystemExit(f"{spec}: the tarball is not the recorded one")
        with tarfile.open(tarball) as archive:
            for file in package["files"]:
                if "made_by" in file:
                    continue  # Made from what is fetched here, by a script of its own.
                data = content(archive, file)
                target = VENDOR / file["to"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)


def content(archive: tarfile.TarFile, file: dict[str, Any]) -> bytes:
    """What one wanted file holds: a sprite, a text that the package lacks (a licence), or a member as it is."""
    if "icons" in file:
        return sprite(archive, file["icons"])
    if "text" in file:
        return str(file["text"]).encode()
    return member(archive, file["from"])


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """One file of a package, without the line that points to a source map we do not ship."""
    source = archive.extractfile(f"package/{name}")
    if source is None:
        raise SystemExit(f"{name}: not a file of the package")
    data = source.read()
    if name.endswith((".js", ".css")):
        data = SOURCE_MAP.sub(b"\n", data.rstrip())
    return data


def sprite(archive: tarfile.TarFile, icons: list[str]) -> bytes:
    """One SVG with a symbol per icon: `<use href="icons.svg#i-home">`."""
    symbols = []
    for name in sorted(icons):
        text = member(archive, f"icons/outline/{name}.svg").decode()
        found = SVG_BODY.search(text)
        if found is None:
            raise SystemExit(f"{name}: not an SVG")
        body = re.sub(r">\s+<", "><", BLANK_PATH.sub("", found.group(1)).strip())
        symbols.append(f'<symbol id="i-{name}" viewBox="0 0 24 24">{body}</symbol>')
    return ('<svg xmlns="http://www.w3.org/2000/svg">' + "\n".join(symbols) + "</svg>\n").encode()


def sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
