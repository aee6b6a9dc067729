"""Texts that the database keeps sealed with a key that follows from the site's secret key."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


def sealed(text: str, context: bytes) -> str:
    """The text, sealed; `context` keeps what is sealed for one use from being opened for another."""
    return _box(context).encrypt(text.encode()).decode()


def opened(text: str, context: bytes) -> str:
    """The text again; InvalidToken when the site's secret key is another one now."""
    return _box(context).decrypt(text.encode()).decode()


def _box(context: bytes) -> MultiFernet:
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    keys = [hashlib.sha256(context + str(secret).encode()).digest() for secret in secrets]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])


__all__ = ["InvalidToken", "opened", "sealed"]
