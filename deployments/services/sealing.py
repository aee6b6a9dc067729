"""Values on their way from a browser to a worker: sealed to the workers' public key, so that web cannot open them.

libsodium's sealed box. Web knows the public key alone; workers know the private ones, the newest first. What is sealed
says for which row it is, so that a sealed text copied to another row opens nothing there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from django.conf import settings
from django.utils import timezone
from django.utils.crypto import salted_hmac
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from deployments.models import SecretVersion
from deployments.spec import canonical

KEY_BYTES = 32


class NoKeyError(Exception):
    """This process has no key for it: web without a public one, or a worker without the private one that fits."""


class UnfitError(Exception):
    """What was sealed cannot be opened, or is for another row. Says nothing of what is in it."""


class TooLateError(UnfitError):
    """The value lies there for longer than it may."""


@dataclass(frozen=True, repr=False)
class Opened:
    """What somebody entered, in the clear: in a worker, for moments."""

    value: Mapping[str, str]
    settings: Mapping[str, str]


def can_seal() -> bool:
    """True where a public key is set that is one."""
    try:
        _public_key()
    except (NoKeyError, ValueError):
        return False
    return True


def seal(version: SecretVersion, value: Mapping[str, str], *, team_id: int, expires_at: datetime) -> tuple[str, bytes]:
    """Seal a value for its row; returns the name of the key and the sealed text. Raises NoKeyError."""
    public = _public_key()
    text = orjson.dumps(
        {**_address(version, team_id), "expires": expires_at.isoformat(), "value": value, "settings": version.settings}
    )
    return name_of(bytes(public)), SealedBox(public).encrypt(text)


def unseal(version: SecretVersion, *, key_name: str, ciphertext: bytes, team_id: int) -> Opened:
    """Open a sealed value; NoKeyError where this worker lacks its key, UnfitError when it is not for this row."""
    try:
        private = _private_keys().get(key_name)
    except ValueError:
        private = None  # One of them is no key: whoever set it is told as if it were missing.
    if private is None:
        raise NoKeyError(key_name)
    try:
        said: Any = orjson.loads(SealedBox(private).decrypt(ciphertext))
        address = {name: said[name] for name in _address(version, team_id)}
        expires, value, more = datetime.fromisoformat(said["expires"]), said["value"], said["settings"]
    except (CryptoError, ValueError, KeyError, TypeError):
        # Without its cause: that one may quote what it read.
        raise UnfitError("It cannot be opened.") from None
    if address != _address(version, team_id):
        raise UnfitError("It was sealed for another credential.")
    if expires <= timezone.now():
        raise TooLateError("It is too old.")
    return Opened(value, more)


def fingerprint(value: Mapping[str, str]) -> str:
    """Twelve hex digits that are the same for the same value; keyed, so that nobody can try values against them."""
    return salted_hmac("slipway.credential", canonical(dict(value)), algorithm="sha256").hexdigest()[:12]


def name_of(public: bytes) -> str:
    """The name of a key pair, by its public half."""
    return hashlib.sha256(public).hexdigest()[:16]


def new_pair() -> tuple[str, str]:
    """A new key pair as settings take it: the public key, the private key."""
    private = PrivateKey.generate()
    return _text(bytes(private.public_key)), _text(bytes(private))


def public_of(private: str) -> str:
    """The public key that belongs to a private one, both as settings take them; ValueError when it is none."""
    return _text(bytes(PrivateKey(_bytes(private)).public_key))


def _address(version: SecretVersion, team_id: int) -> dict[str, Any]:
    return {
        "credential": version.credential_id,
        "version": version.number,
        "team": team_id,
        "namespace": version.namespace,
        "secret": version.name,
    }


def _public_key() -> PublicKey:
    if not settings.SEAL_PUBLIC_KEY:
        raise NoKeyError("SLIPWAY_SEAL_PUBLIC_KEY is not set.")
    return PublicKey(_bytes(settings.SEAL_PUBLIC_KEY))


def _private_keys() -> dict[str, PrivateKey]:
    keys = [PrivateKey(_bytes(text)) for text in settings.SEAL_PRIVATE_KEYS]
    return {name_of(bytes(key.public_key)): key for key in keys}


def _bytes(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != KEY_BYTES:
        # Never the text itself: it may be a private key.
        raise ValueError("A sealing key is 32 bytes in base64: manage.py sealing_keys makes a pair.") from None
    return found


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
