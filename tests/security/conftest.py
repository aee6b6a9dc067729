"""One world for all tests of a module: each request to it is rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings
from drf_spectacular.generators import SchemaGenerator

from deployments.services import model_checks
from deployments.sources import Reply
from deployments.views.frame import frame_of
from tests.deployments.sealing_keys import PUBLIC

from .world import World


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    quick = override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
    with django_db_blocker.unblock(), quick, pytest.MonkeyPatch.context() as patch, transaction.atomic():
        patch.setattr(model_checks, "_get", lambda path: Reply(404))
        patch.setattr("portal.lib.hints._send", lambda task, pk: None)
        patch.setattr("monitoring.prometheus.settings.PROMETHEUS_URL", "http://127.0.0.1:9")
        patch.setattr("portal.lib.broker.answers", lambda url: True)
        patch.setattr("django.conf.settings.SEAL_PUBLIC_KEY", PUBLIC)
        # A code that was made before many requests is still good after them.
        patch.setattr("django.conf.settings.MFA_TOTP_TOLERANCE", 40, raising=False)
        yield World()
        transaction.set_rollback(True)


@pytest.fixture(scope="module")
def framed_once(world: World) -> Iterator[None]:
    """What stands around a page is read once for each person, and the document of the API is made once, where no test
    looks at them: they are a third of the work."""
    generate = SchemaGenerator.get_schema
    document = cache(lambda: generate(SchemaGenerator(), request=None, public=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("portal.context.frame_of", cache(frame_of))
        patch.setattr(SchemaGenerator, "get_schema", lambda self, request=None, public=False: document())
        yield
