"""Images with weights, checked before they are pushed: what is in them, and which clusters can serve it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from deployments.sources import packaging
from deployments.sources.image_layers import contents_of
from deployments.sources.image_limits import ImageError
from deployments.sources.packaging import Packaged, packaged, programs_of

CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2}).encode()
MODEL = {"config.json": CONFIG, "model.safetensors": b"w" * 4096, "tokenizer.json": b"{}"}
SHELL = {f"bin/{name}": b"x" for name in ("sh", "ls", "ln", "sleep")}


def entry(name: str, *, mode: int = 0o644, size: int = 0, link: str = "", hard: bool = False) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.mode, made.size, made.linkname = mode, size, link
    if link:
        made.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
    return made


def layer(files: Mapping[str, bytes], more: Iterable[tarfile.TarInfo] = (), mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, body in files.items():
            archive.addfile(entry(name, mode=mode, size=len(body)), io.BytesIO(body))
        for item in more:
            archive.addfile(item)
    return out.getvalue()


def below(folder: str, files: Mapping[str, bytes] = MODEL) -> dict[str, bytes]:
    return {f"{folder}/{name}": body for name, body in files.items()}


def folder(name: str, mode: int) -> tarfile.TarInfo:
    made = entry(name, mode=mode)
    made.type = tarfile.DIRTYPE
    return made


def layout(root: Path, *layers: bytes) -> Path:
    """An OCI layout of one image for amd64 beside an attestation, as `docker buildx build --output type=oci` writes."""
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(body: bytes) -> dict[str, Any]:
        name = hashlib.sha256(body).hexdigest()
        (blobs / name).write_bytes(body)
        return {"digest": f"sha256:{name}", "size": len(body)}

    manifest = blob(json.dumps({"layers": [blob(body) for body in layers]}).encode())
    attestation = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}, **blob(b"{}")}
    inner = blob(json.dumps({"manifests": [attestation, {**manifest, "platform": {"architecture": "amd64"}}]}).encode())
    (root / "index.json").write_text(json.dumps({"manifests": [inner]}))
    return root


def packed(root: Path, to: Path) -> Path:
    with tarfile.open(to, "w") as archive:
        archive.add(root, arcname=".")
    return to


def only(path: Path) -> Packaged:
    (found,) = packaged(contents_of(path))
    return found


def codes(one: Packaged) -> set[str]:
    return {finding.code for finding in one.findings}


def test_weights_below_models_beside_a_shell_are_served_everywhere(tmp_path: Path) -> None:
    found = only(layout(tmp_path / "image", layer(SHELL), gzip.compress(layer(below("models")))))
    assert found.serves
    assert not found.findings
    assert found.folder == "/models"
    assert found.ways == ("image volume of KServe", "image volume of Slipway's own runtime", "modelcar")
    assert found.size == sum(map(len, MODEL.values()))


def test_files_alone_suit_an_image_volume_and_no_modelcar(tmp_path: Path) -> None:
    found = only(layout(tmp_path / "image", layer(MODEL)))
    assert found.serves
    assert found.folder == "/"
    assert found.ways == ("image volume of Slipway's own runtime",)
    assert codes(found) == {"folder", "image_volume_only"}


def test_an_archive_of_a_layout_and_docker_save_say_the_same(tmp_path: Path) -> None:
    root = layout(tmp_path / "image", layer(SHELL), layer(below("models")))
    saved = tmp_path / "saved"
    saved.mkdir()
    for name, body in {"a.tar": layer(SHELL), "b.tar": layer(below("models"))}.items():
        (saved / name).write_bytes(body)
    (saved / "manifest.json").write_text(json.dumps([{"Config": "c.json", "Layers": ["a.tar", "b.tar"]}]))
    assert only(packed(root, tmp_path / "oci.tar")) == only(root) == only(packed(saved, tmp_path / "docker.tar"))


def test_links_of_a_hub_cache_lead_out_of_what_is_mounted(tmp_path: Path) -> None:
    blobs = {name: hashlib.sha256(body).hexdigest() for name, body in MODEL.items()}
    links = [entry(f"models/{name}", link=f"../blobs/{blob}") for name, blob in blobs.items()]
    found = only(layout(tmp_path / "image", layer({f"blobs/{blobs[name]}": MODEL[name] for name in MODEL}, links)))
    assert not found.serves
    assert "links_outside" in codes(found)


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    files = {name: body for name, body in MODEL.items() if name != "model.safetensors"}
    files["parts/one"] = b"w" * 10
    link = entry("models/model.safetensors", link="parts/one")
    found = only(layout(tmp_path / "image", layer(below("models", files), [link])))
    assert found.serves
    assert found.size == sum(len(body) for name, body in files.items() if "/" not in name) + 10


def test_a_circle_of_links_is_no_model(tmp_path: Path) -> None:
    round_ = [entry("models/model.safetensors", link="b"), entry("models/b", link="model.safetensors")]
    found = only(layout(tmp_path / "image", layer({"models/config.json": CONFIG}, round_)))
    assert not found.serves


@pytest.mark.parametrize("shut", ["file", "folder", "parent"])
def test_what_only_the_owner_reads_is_refused(tmp_path: Path, shut: str) -> None:
    place = "srv/llm" if shut == "parent" else "models"
    more = {"file": [], "folder": [folder("models", 0o700)], "parent": [folder("srv", 0o750)]}[shut]
    body = layer(below(place), more, mode=0o600 if shut == "file" else 0o644)
    found = only(layout(tmp_path / "image", body))
    assert not found.serves
    (wrong,) = [finding for finding in found.findings if finding.is_error]
    assert wrong.code == "not_readable"
    assert "chmod -R a+rX" in wrong.remedy


def test_what_a_later_layer_takes_away_is_gone(tmp_path: Path) -> None:
    hidden = layer({"models/.wh.model.safetensors": b"", "bin/.wh.sh": b""})
    contents = contents_of(layout(tmp_path / "one", layer(SHELL), layer(below("models")), hidden))
    assert packaged(contents) == []
    assert programs_of(contents) == {"ls", "ln", "sleep"}
    opaque = layer({"models/.wh..wh..opq": b"", "models/new.safetensors": b"n" * 7, "models/config.json": CONFIG})
    found = only(layout(tmp_path / "two", layer(below("models")), opaque))
    assert found.size == 7 + len(CONFIG)
    assert codes(found) >= {"no_tokenizer"}


def test_programs_may_be_links_to_one_another(tmp_path: Path) -> None:
    busybox = [entry(f"bin/{name}", link="bin/busybox", hard=True) for name in ("sh", "ls", "ln", "sleep")]
    found = only(layout(tmp_path / "image", layer({"bin/busybox": b"x"}, busybox), layer(below("models"))))
    assert "modelcar" in found.ways


def test_a_model_without_its_config_or_with_nonsense_in_it_is_refused(tmp_path: Path) -> None:
    bare = only(layout(tmp_path / "bare", layer({"models/model.safetensors": b"w"})))
    assert not bare.serves
    assert codes(bare) >= {"no_model"}
    nonsense = {**MODEL, "config.json": b"[" * 100_000}
    found = only(layout(tmp_path / "nonsense", layer(below("models", nonsense))))
    assert not found.serves
    assert codes(found) >= {"no_model"}


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("zstd", "zstd"),
        ("empty", "neither index.json"),
        ("lacking", "The image lacks"),
        ("no_digest", "no sha256 digest"),
        ("no_json", "no JSON"),
        ("circle", "names no image"),
    ],
)
def test_what_is_no_image_is_said_to_be_none(tmp_path: Path, broken: str, says: str) -> None:
    root = tmp_path / "image"
    if broken == "zstd":
        layout(root, b"\x28\xb5\x2f\xfd" + b"x" * 20)
    elif broken == "empty":
        root.mkdir()
    elif broken == "lacking":
        layout(root, layer(MODEL))
        for blob in (root / "blobs" / "sha256").iterdir():
            blob.unlink()
    else:
        root.mkdir()
        (root / "index.json").write_text(
            {
                "no_digest": '{"layers": [{"digest": "../../../etc/passwd"}]}',
                "no_json": "{",
                "circle": '{"manifests": []}',
            }[broken]
        )
    with pytest.raises(ImageError, match=says):
        contents_of(root)


def test_a_file_that_is_no_archive_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "file.tar").write_text("no archive")
    with pytest.raises(ImageError, match="cannot be read"):
        contents_of(tmp_path / "file.tar")


def test_the_command_tells_and_its_exit_says_whether_it_serves(tmp_path: Path) -> None:
    good = layout(tmp_path / "good", layer(MODEL))
    out = StringIO()
    call_command("model_image", good, stdout=out)
    assert "/: safetensors, 0.00 GiB" in out.getvalue()
    assert "can be served by: image volume of Slipway's own runtime" in out.getvalue()
    out = StringIO()
    call_command("model_image", good, "--json", stdout=out)
    assert json.loads(out.getvalue())["ok"] is True
    bad = layout(tmp_path / "bad", layer({"models/model.safetensors": b"w"}))
    with pytest.raises(CommandError, match="can be served as it is"):
        call_command("model_image", bad, stdout=StringIO())
    with pytest.raises(CommandError, match="holds weights"):
        call_command("model_image", layout(tmp_path / "none", layer(SHELL)), stdout=StringIO())
    with pytest.raises(CommandError, match="cannot be read") as failure:
        call_command("model_image", tmp_path / "missing.tar", stdout=StringIO())
    assert failure.value.returncode == 2


def test_a_link_of_an_archive_to_nothing_or_to_itself_is_no_layer(tmp_path: Path) -> None:
    for target in ("/elsewhere", "layer"):
        file = tmp_path / "saved.tar"
        body = b'[{"Layers": ["layer"]}]'
        with tarfile.open(file, "w") as archive:
            archive.addfile(entry("manifest.json", size=len(body)), io.BytesIO(body))
            archive.addfile(entry("layer", link=target))
        with pytest.raises(ImageError):
            contents_of(file)


def test_descriptors_of_a_wrong_form_and_broken_gzip_are_no_image(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "index.json").write_text('{"manifests": [{"annotations": "x", "platform": [1], "digest": 5}]}')
    with pytest.raises(ImageError, match="no sha256 digest"):
        contents_of(wrong)
    body = gzip.compress(layer(below("models")))
    with pytest.raises(ImageError):
        contents_of(layout(tmp_path / "broken", body[:20] + b"\xff" * 40 + body[60:]))


def test_thousands_of_folders_of_a_base_take_no_time_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {f"usr/lib/{number}/file": b"" for number in range(300)}
    looked: list[str] = []
    monkeypatch.setattr(packaging, "_links", lambda name, links: looked.append(name) or iter(()))
    assert only(layout(tmp_path, layer(base), layer(below("models")))).folder == "/models"
    assert looked == ["models"]
