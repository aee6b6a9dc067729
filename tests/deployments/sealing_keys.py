"""A pair of sealing keys for tests, and credentials as they are entered."""

from __future__ import annotations

from typing import Any

from deployments.models import Credential, Deployment, Principal, SealedValue, Team, User
from deployments.services import credential_trials, credentials, sealing
from deployments.sources import Reply
from tests.deployments import factories as make

PUBLIC, PRIVATE = sealing.new_pair()
TOKEN = "hf_canary0Zq7mXv3KpW9sRtYb1"
GATED = "hf://meta-llama/Llama-3.1-8B-Instruct"
COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "torch_dtype": "bfloat16",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def use_keys(settings: Any) -> None:
    """Web and workers of a test in one process: both keys are set."""
    settings.SEAL_PUBLIC_KEY, settings.SEAL_PRIVATE_KEYS = PUBLIC, [PRIVATE]


def add(principal: Principal, team: Team, name: str = "hub", *, token: str = TOKEN, test_uri: str = "") -> Credential:
    """A Hugging Face token, entered."""
    return credentials.create(
        principal=principal, team=team, name=name, kind="hf", fields={"token": token}, test_uri=test_uri
    )


def naming(team: Team, author: User, credential: str = "hub") -> Deployment:
    """A deployment whose newest revision names a credential."""
    row = make.make_deployment(team, author)
    last = row.latest
    assert last is not None
    spec = {**last.spec, "source": {**last.spec["source"], "credential": credential}}
    last.pk, last.number, last.spec, last._state.adding = None, 2, spec, True
    last.save()
    Deployment.objects.filter(pk=row.pk).update(latest=last)
    return row


def told(credential: Credential) -> Any:
    """The credential as it stands now, with its state."""
    return Credential.objects.told().get(pk=credential.pk)


def opened(credential: Credential) -> sealing.Opened:
    """What waits sealed for a worker."""
    sealed = SealedValue.objects.select_related("version").get(version__credential=credential)
    return sealing.unseal(
        sealed.version,
        key_name=sealed.key_name,
        ciphertext=bytes(sealed.ciphertext),
        team_id=credential.team_id,
    )


class HubOfTokens:
    """A hub in place of the network: `accepted` tokens are somebody's, `licensed` ones may read gated models."""

    def __init__(self, monkeypatch: Any) -> None:
        self.accepted = {TOKEN}
        self.licensed = {TOKEN}
        self.asked: list[tuple[str, str]] = []
        self.down = False
        monkeypatch.setattr(credential_trials, "_hub_get", self)

    def __call__(self, path: str, token: str) -> Reply:
        self.asked.append((path, token))
        if self.down:
            return Reply(0, error="hub.example cannot be reached")
        if token not in self.accepted:
            return Reply(401, {"error": "Invalid credentials in Authorization header"})
        if path == "/api/whoami-v2":
            return Reply(200, {"type": "user", "name": "team-search"})
        if "Llama-3.1-8B-Instruct" not in path:
            return Reply(404)
        if "/resolve/" in path:
            return Reply(200, CONFIG) if token in self.licensed else Reply(403)
        return Reply(200, {"sha": COMMIT, "gated": "manual", "siblings": SIBLINGS})


SIBLINGS = [{"rfilename": "model.safetensors", "size": 16_060_522_496}, {"rfilename": "config.json", "size": 855}]
