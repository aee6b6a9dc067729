"""Images that are made to harm whoever reads them: each is refused, or read within bounds of time and memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from deployments.sources import image_layers, image_limits
from deployments.sources.image_layers import Contents, Entry, contents_of
from deployments.sources.image_limits import Budget, ImageError, harmless
from deployments.sources.packaging import packaged
from tests.deployments.test_packaging import MODEL, below, entry, folder, layer, layout


def raw_header(name: str, size: int, kind: bytes) -> bytes:
    """One header block with any size, also one below zero (base 256)."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" + struct.pack(">q", size).rjust(11, b"\xff" if size < 0 else b"\0")
    if size >= 0:
        block[124] = 0x80
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*pairs: tuple[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        item = entry("models/file", size=4)
        item.pax_headers = dict(pairs)
        archive.addfile(item, io.BytesIO(b"1234"))
    return out.getvalue()


def many(make: Callable[[int], tarfile.TarInfo], count: int) -> Iterator[tarfile.TarInfo]:
    return (make(number) for number in range(count))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_as_long_as_it_says_is_not_read(tmp_path: Path, kind: bytes, packed: bool) -> None:
    body = raw_header("x", 2**40, kind) + b"\0" * 1024
    with pytest.raises(ImageError, match="header in the image is longer"):
        contents_of(layout(tmp_path, gzip.compress(body) if packed else body))


@pytest.mark.parametrize(
    "body",
    [raw_header("models/file", -512, tarfile.REGTYPE) + b"\0" * 1024, pax(("size", "-512")), pax(("size", "-1"))],
    ids=["header", "pax, a block", "pax"],
)
def test_a_size_below_zero_leads_nowhere(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(ImageError):
        contents_of(layout(tmp_path, body))


def test_sparse_files_are_not_read(tmp_path: Path) -> None:
    sparse = pax(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "models/file"))
    with pytest.raises(ImageError, match="sparse"):
        contents_of(layout(tmp_path / "pax", sparse))
    with pytest.raises(ImageError, match="sparse"):
        contents_of(layout(tmp_path / "gnu", raw_header("x", 0, tarfile.GNUTYPE_SPARSE) + b"\0" * 1024))


def test_entries_that_take_others_away_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_limits, "MOST_MEMBERS", 500)
    whiteouts = layer({}, many(lambda number: entry(f"a/.wh.{number}"), 501))
    with pytest.raises(ImageError, match="more than 500 entries"):
        contents_of(layout(tmp_path / "whiteouts", whiteouts))
    opaque = layer({}, many(lambda number: entry(f"a/{image_layers.OPAQUE}"), 501))
    with pytest.raises(ImageError, match="more than 500 entries"):
        contents_of(layout(tmp_path / "opaque", opaque))
    monkeypatch.setattr(image_layers, "MOST_ENTRIES", 100)
    with pytest.raises(ImageError, match="more than 100 files"):
        contents_of(layout(tmp_path / "folders", layer({}, many(lambda number: folder(f"d{number}", 0o755), 101))))


def test_whiteouts_of_a_large_image_take_a_step_each(tmp_path: Path) -> None:
    """Thousands of them over thousands of files: what each looks at is what it takes away."""
    files = layer({f"a/{number}/file": b"" for number in range(3000)})
    takes = layer({}, many(lambda number: entry(f"a/.wh.{number}"), 3000))
    again = layer({}, many(lambda number: entry(f"a/{image_layers.OPAQUE}"), 3000))
    assert not contents_of(layout(tmp_path, files, takes, files, again)).entries


@pytest.mark.parametrize("name", ["a/" * 129 + "file", "b" * 4097, "c/" + "d" * 5000])
def test_paths_have_an_end(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="path in the image"):
        contents_of(layout(tmp_path, layer({name: b""})))


def test_names_and_configurations_together_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_limits, "MOST_NAMES", 10_000)
    with pytest.raises(ImageError, match="names in the image"):
        contents_of(layout(tmp_path / "names", layer({f"{number:03}" + "n" * 97: b"" for number in range(101)})))
    monkeypatch.undo()
    monkeypatch.setattr(image_limits, "MOST_HEADS", 10_000)
    with pytest.raises(ImageError, match="configurations in the image"):
        contents_of(layout(tmp_path / "heads", layer({f"{n}/config.json": b" " * 1000 for n in range(11)})))


def test_what_unpacks_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_limits, "SPARE", 1 << 20)
    bomb = gzip.compress(layer({"models/model.safetensors": b"\0" * (16 << 20)}))
    assert len(bomb) < 20_000
    with pytest.raises(ImageError, match="unpacks to more than 100 times"):
        contents_of(layout(tmp_path / "bomb", bomb))
    # The same small layer named many times has what one of it may have.
    budget = Budget()
    for _ in range(5):
        budget.packed("same", 10)
    budget.unpacked(1000 + (1 << 20))
    with pytest.raises(ImageError):
        budget.unpacked(1)


def test_layers_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_layers, "MOST_LAYERS", 3)
    with pytest.raises(ImageError, match="more than 3 layers"):
        contents_of(layout(tmp_path, *[layer({})] * 4))


def test_weights_in_a_hundred_folders_are_enough(tmp_path: Path) -> None:
    everywhere = layout(tmp_path, layer({f"m{n}/model.safetensors": b"w" for n in range(101)}))
    with pytest.raises(ImageError, match="101 folders"):
        packaged(contents_of(everywhere))


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(ImageError, match="neither a folder nor a file"):
            contents_of(path)
    root = layout(tmp_path / "layout", layer(MODEL))
    (blob,) = [path for path in (root / "blobs" / "sha256").iterdir() if path.stat().st_size > 4096]
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(ImageError, match="lacks"):
        contents_of(root)
    (root / "index.json").unlink()
    os.mkfifo(root / "index.json")
    with pytest.raises(ImageError, match="no image"):
        contents_of(root)
    inside = tarfile.TarInfo("models/pipe")
    inside.type = tarfile.FIFOTYPE
    assert "models/pipe" not in contents_of(layout(tmp_path / "in", layer(below("models"), [inside]))).entries


@pytest.mark.parametrize("name", ["../secret.tar", "/etc/passwd", "a/../../secret.tar"])
def test_a_manifest_names_nothing_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.tar").write_bytes(layer(below("models")))
    root = tmp_path / "image"
    root.mkdir()
    (root / "manifest.json").write_text(json.dumps([{"Layers": [name]}]))
    with pytest.raises(ImageError, match="lacks"):
        contents_of(root)


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_names_do_nothing_to_a_terminal(tmp_path: Path, flag: list[str]) -> None:
    evil = "m\x1b[2J\x9b31m\u202eodel"
    out = StringIO()
    files = {f"{evil}/model.safetensors": b"w" * 8, f"{evil}/config.json": MODEL["config.json"], f"{evil}/\udcff": b""}
    call = lambda: call_command("model_image", layout(tmp_path, layer(files, mode=0o600)), *flag, stdout=out)  # noqa: E731
    with pytest.raises(CommandError):
        call()
    told = out.getvalue()
    assert "safetensors" in told
    assert [char for char in told if not char.isprintable() and char != "\n"] == []
    told.encode()
    assert harmless("a\x1b[2J\u202eb\udcff\n“c”") == "a\\u001b[2J\\u202eb\\udcff\n“c”"


def test_an_error_does_nothing_to_a_terminal_either(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps([{"Layers": ["\x1b[2Jgone"]}]))
    with pytest.raises(CommandError) as failure:
        call_command("model_image", tmp_path, stdout=StringIO())
    assert "\\u001b[2Jgone" in str(failure.value)


def test_an_image_packed_as_a_whole_says_how_to_unpack_it(tmp_path: Path) -> None:
    (tmp_path / "image.tar.gz").write_bytes(gzip.compress(layer(MODEL)))
    with pytest.raises(ImageError, match="gunzip"):
        contents_of(tmp_path / "image.tar.gz")


def test_what_a_folder_hides_and_what_it_keeps() -> None:
    contents = Contents()
    for path in ("a/b/c", "a/b/d", "a/e", "f"):
        contents.put(path, Entry(1, 0o644))
    contents.put("a/b", None, 0o700)
    assert set(contents.entries) == {"a/b/c", "a/b/d", "a/e", "f"}
    contents.remove_below("a", {"a/b/c"})
    assert set(contents.entries) == {"a/b/c", "f"}
    contents.put("a/e", Entry(1, 0o644))
    contents.remove("a")
    assert set(contents.entries) == {"f"}
    contents.put("f", None, 0o755)
    assert (set(contents.entries), contents.folders) == (set(), {"f": 0o755})
    contents.remove_below("", set())
    assert contents.folders == {}
