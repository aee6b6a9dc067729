"""What every part of one look at an LLMInferenceService needs: the service, its spec, where the model comes from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sandbox.client import Obj
from sandbox.lite.controllers.kserve_credentials import secret_names
from sandbox.lite.controllers.llm_config import Settings
from sandbox.lite.controllers.llm_lora import adapters_of
from sandbox.lite.controllers.llm_status import STOPPED, Draft
from sandbox.lite.controllers.llm_storage import Source
from sandbox.lite.controllers.llm_writer import Failure, Writer
from sandbox.lite.controllers.resources import (
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)


@dataclass(frozen=True)
class World:
    """What one look takes besides the service."""

    writer: Writer
    settings: Settings
    moment: datetime
    pods: list[Obj]  # of the service
    services: list[Obj]  # of the service


class Look:
    """One look. `combined` is the spec with presets; `draft` the status being written."""

    def __init__(self, service: Obj, combined: Obj, model: str, draft: Draft, world: World, *, stopped: bool) -> None:
        self.service, self.combined, self.model, self.draft = service, combined, model, draft
        self.world, self.writer, self.stopped = world, world.writer, stopped
        self.namespace: str = service["metadata"]["namespace"]

    def _source(self, account: Obj | None) -> Source:
        """Return where the model comes from for pods of this account; None stands for the default one."""
        found = account or self._default_account()
        annotated = {"metadata": {"annotations": self.service["metadata"].get("annotations") or {}}}
        names = secret_names(annotated, found)
        secrets = [self.writer.get(SECRETS, self.namespace, name) for name in names]
        initializer = self.combined.get("storageInitializer") or {}
        return Source(
            uri=str((self.combined.get("model") or {}).get("uri") or ""),
            config=self.world.settings.kserve,
            enabled=initializer.get("enabled") is not False,
            account=found,
            secrets=[secret for secret in secrets if secret is not None],
            adapters=adapters_of(self.combined, self.namespace),
            lora=(self.combined.get("model") or {}).get("lora") or {},
        )

    def _default_account(self) -> Obj | None:
        return self.writer.get(SERVICE_ACCOUNTS, self.namespace, "default")

    def _account(self, name: str, what: str) -> Obj:
        found = self.writer.get(SERVICE_ACCOUNTS, self.namespace, name)
        if found is None:
            text = f'ServiceAccount "{name}" not found'
            raise Failure(f"failed to fetch existing {what} service account {self.namespace}/{name}: {text}")
        return found

    async def _absent(self, kind: str, resource: Resource, name: str) -> None:
        if self.stopped:
            self.draft.mark(kind, STOPPED)
        else:
            self.draft.clear(kind)
        await self.writer.remove(self.service, resource, name)
