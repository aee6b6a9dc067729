"""Credentials against a cluster: made into Secrets that nobody reads, rotated without approval, gone when unused."""

from __future__ import annotations

import base64
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.kube.errors import ErrorClass
from deployments.kube.kinds import Ref, kind_of
from deployments.models import Credential, Deployment, Intent, SealedValue, SecretVersion, Team
from deployments.reconciler import secrets, teams
from deployments.services import convergence, credentials
from sandbox.lite.faults import Fault
from sandbox.lite.requests import Request
from tests.deployments import factories as make
from tests.deployments.converging.stage import Recorder, Stage
from tests.deployments.converging.test_crashes import Killed, Mortal
from tests.deployments.sealing_keys import GATED, TOKEN, HubOfTokens, add, told, use_keys

pytestmark = pytest.mark.django_db

SECRET = kind_of("v1", "Secret")
FRESH = "hf_canaryFresh8Lk2Wn5Qx0Vd4"


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    use_keys(settings)


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch) -> HubOfTokens:
    """The hub that tokens are tested at."""
    found = HubOfTokens(monkeypatch)
    found.accepted.add(FRESH)
    return found


@pytest.fixture
def lead(stage: Stage, alice: Any) -> Any:
    return make.principal(alice)


def secrets_there(stage: Stage) -> dict[str, dict[str, Any]]:
    """Our Secrets of the namespace, by name."""
    found = stage.admin.list_all(SECRET, namespace=stage.team.namespace)
    return {item["metadata"]["name"]: item for item in found if item["metadata"]["name"].startswith("slipway-")}


def account_of(stage: Stage, row: Deployment) -> list[str]:
    live = stage.admin.read(Ref("v1", "ServiceAccount", stage.team.namespace, row.name))
    assert live is not None
    return [item["name"] for item in live.get("secrets") or ()]


def rotate(lead: Any, credential: Credential, token: str = FRESH) -> None:
    credentials.rotate(principal=lead, credential_id=credential.pk, fields={"token": token})


def with_credential(name: str = "hub") -> dict[str, Any]:
    return {"source": {"uri": make.QWEN, "credential": name}}


def test_a_value_becomes_an_immutable_secret_that_is_never_read(stage: Stage, lead: Any):
    made = add(lead, stage.team)
    with Recorder(stage) as seen:
        stage.converge_team()
    assert stage.team.ready
    version = SecretVersion.objects.get()
    (secret,) = secrets_there(stage).values()
    assert secret["metadata"]["name"] == version.name
    assert secret["metadata"]["uid"] == version.uid
    assert secret["metadata"]["labels"]["slipway.dev/team"] == "search"
    assert (secret["immutable"], secret["type"]) == (True, "Opaque")
    assert {name: base64.b64decode(text).decode() for name, text in secret["data"].items()} == {"HF_TOKEN": TOKEN}
    row = told(made)
    assert (row.state, row.test_code, row.problem) == (Credential.State.READY, "found", "")
    assert not SealedValue.objects.exists()
    assert [(intent.verb, intent.uid) for intent in Intent.objects.filter(kind="Secret")] == [("create", version.uid)]
    assert stage.open_intents() == 0
    assert [method for method, path in seen.calls if "/secrets" in path] == ["POST"]
    # A pass with nothing to do leaves Secrets alone.
    with Recorder(stage) as seen:
        stage.converge_team()
    assert not [path for _, path in seen.calls if "/secrets" in path]


def test_a_token_that_the_hub_refuses_is_not_stored(stage: Stage, lead: Any, tokens: HubOfTokens):
    tokens.accepted.clear()
    made = add(lead, stage.team)
    stage.converge_team()
    row = told(made)
    assert (row.state, row.problem, row.test_code) == (Credential.State.ENTER_AGAIN, "bad_token", "bad_token")
    assert not secrets_there(stage)
    assert not SealedValue.objects.exists()
    assert SecretVersion.objects.get().deleted_at is not None
    assert not Intent.objects.filter(kind="Secret").exists()


def test_a_hub_that_cannot_be_reached_keeps_nobody_from_storing(stage: Stage, lead: Any, tokens: HubOfTokens):
    tokens.down = True
    made = add(lead, stage.team)
    stage.converge_team()
    row = told(made)
    assert (row.state, row.test_code) == (Credential.State.READY, "unreachable")
    assert len(secrets_there(stage)) == 1


def test_a_refused_new_value_leaves_the_old_one_in_use(stage: Stage, lead: Any, tokens: HubOfTokens):
    made = add(lead, stage.team)
    stage.converge_team()
    before = told(made).current_id
    rotate(lead, made, "hf_nobody_issued_this")
    stage.converge_team()
    row = told(made)
    assert (row.state, row.problem, row.current_id) == (Credential.State.READY, "bad_token", before)
    assert row.test_code == "found", "of the value in use"
    assert len(secrets_there(stage)) == 1


def test_the_value_in_use_entered_once_more_is_only_tested(stage: Stage, lead: Any, tokens: HubOfTokens):
    made = add(lead, stage.team)
    stage.converge_team()
    before = told(made).current_id
    credentials.rotate(principal=lead, credential_id=made.pk, fields={"token": TOKEN}, test_uri=GATED)
    with Recorder(stage) as seen:
        stage.converge_team()
    row = told(made)
    assert (row.current_id, row.test_code, row.test_uri) == (before, "found", GATED)
    assert row.test_facts["layers"] == 32
    assert not [path for _, path in seen.calls if "/secrets" in path]
    # What was accepted once may be revoked where it came from.
    tokens.accepted.clear()
    rotate(lead, made, TOKEN)
    stage.converge_team()
    row = told(made)
    assert (row.current_id, row.test_code, row.problem) == (before, "bad_token", "bad_token")
    assert len(secrets_there(stage)) == 1


def test_a_worker_without_the_key_leaves_it_to_others(stage: Stage, lead: Any, settings: Any):
    private, settings.SEAL_PRIVATE_KEYS = settings.SEAL_PRIVATE_KEYS, []
    made = add(lead, stage.team)
    stage.converge_team()
    assert stage.team.ready
    assert (told(made).state, told(made).problem) == (Credential.State.PENDING, "no_key")
    assert stage.team.next_reconcile_at - timezone.now() < timedelta(seconds=10)
    settings.SEAL_PRIVATE_KEYS = private
    stage.converge_team()
    assert (told(made).state, told(made).problem) == (Credential.State.READY, "")


def test_a_deployment_runs_with_its_credential_alone(stage: Stage, lead: Any):
    add(lead, stage.team, "other")
    made = add(lead, stage.team)
    stage.converge_team()
    row = stage.running(**with_credential())
    assert account_of(stage, row) == [told(made).current.name]
    annotations = stage.service(row)["spec"]["predictor"]["annotations"]
    assert annotations["slipway.dev/secrets"]
    assert told(made).last_used_at is not None
    plain = stage.running("plain")
    assert account_of(stage, plain) == []
    assert "annotations" not in stage.service(plain)["spec"]["predictor"]


def test_a_deployment_waits_for_a_value_on_its_way(stage: Stage, lead: Any):
    stage.converge_team()
    made = add(lead, stage.team)
    row = stage.converge(stage.ask(**with_credential()))
    assert (row.outcome["code"], stage.service(row)) == ("waiting", None)
    stage.converge_team()
    row.refresh_from_db()
    assert row.next_reconcile_at <= timezone.now(), "the deployment is due as soon as the Secret is there"
    row = stage.converge(row)
    assert row.outcome["phase"] == "applied"
    assert account_of(stage, row) == [told(made).current.name]


def test_a_deployment_says_that_a_value_has_to_be_entered_again(stage: Stage, lead: Any):
    stage.converge_team()
    made = add(lead, stage.team)
    row = stage.ask(**with_credential())
    SealedValue.objects.update(expires_at=timezone.now())
    credentials.expire()
    row = stage.converge(row)
    assert (row.outcome["phase"], row.outcome["code"]) == ("blocked", "credential_not_stored")
    assert row.state == Deployment.State.BLOCKED
    rotate(lead, made)
    stage.converge_team()
    assert stage.converge(row).outcome["phase"] == "applied"


def test_a_rotation_needs_no_approval_and_ends_the_old_secret(stage: Stage, lead: Any):
    made = add(lead, stage.team)
    stage.converge_team()
    row = stage.running(**with_credential())
    old, revision = told(made).current, row.applied_id
    mark = stage.service(row)["spec"]["predictor"]["annotations"]["slipway.dev/secrets"]
    pod = name_in_a_pod(stage, row, old.name)

    rotate(lead, made)
    stage.converge_team()
    new = told(made).current
    assert new.pk != old.pk
    assert set(secrets_there(stage)) == {old.name, new.name}, "the account still lists the old one"
    row = stage.converge(row)
    assert (row.outcome["phase"], row.applied_id, row.latest.number) == ("applied", revision, 1)
    assert account_of(stage, row) == [new.name]
    assert stage.service(row)["spec"]["predictor"]["annotations"]["slipway.dev/secrets"] != mark

    stage.converge_team()
    assert set(secrets_there(stage)) == {old.name, new.name}, "a pod still names the old one"
    assert stage.team.next_reconcile_at - timezone.now() < timedelta(seconds=10)
    stage.admin.delete(pod, stage.admin.read(pod)["metadata"]["uid"], propagation="Background")
    until(stage, lambda: set(secrets_there(stage)) == {new.name})
    old.refresh_from_db()
    assert old.deleted_at is not None
    assert stage.open_intents() == 0


def test_a_stopped_deployment_takes_the_new_value_when_it_starts(stage: Stage, lead: Any):
    made = add(lead, stage.team)
    stage.converge_team()
    row = stage.running(**with_credential())
    rotate(lead, made)
    stage.converge_team()
    stage.converge(row)
    until(stage, lambda: set(secrets_there(stage)) == {told(made).current.name})


def test_deleting_a_credential_deletes_its_secret(stage: Stage, lead: Any):
    made = add(lead, stage.team)
    stage.converge_team()
    assert len(secrets_there(stage)) == 1
    credentials.delete(principal=lead, credential_id=made.pk)
    stage.converge_team()
    assert not secrets_there(stage)
    assert stage.open_intents() == 0
    assert [intent.verb for intent in Intent.objects.filter(kind="Secret").order_by("pk")] == ["create", "delete"]


def test_a_secret_that_a_hand_deleted_is_gone_and_no_trouble(stage: Stage, lead: Any):
    made = add(lead, stage.team)
    stage.converge_team()
    version = told(made).current
    stage.remove(Ref("v1", "Secret", stage.team.namespace, version.name))
    credentials.delete(principal=lead, credential_id=made.pk)
    stage.converge_team()
    assert stage.open_intents() == 0
    version.refresh_from_db()
    assert version.deleted_at is not None


def test_a_cluster_that_refuses_is_told_of_without_its_words(stage: Stage, lead: Any, caplog: Any):
    """An API server quotes what it refuses: nothing of that may end anywhere."""
    caplog.set_level("DEBUG")
    stage.converge_team()
    made = add(lead, stage.team)

    def refuse(request: Request) -> Fault | None:
        if request.method == "POST" and "/secrets" in request.path:
            return Fault(status=422, reason="Invalid", message=f'data: Invalid value: "{TOKEN}": no')
        return None

    stage.ground.faults.before_hook = refuse
    stage.converge_team()
    assert stage.team.ready, "one credential does not stop a team"
    row = told(made)
    assert (row.state, row.problem) == (Credential.State.PENDING, "invalid")
    assert TOKEN not in caplog.text
    assert TOKEN not in str(list(Intent.objects.values())) + str(list(Credential.objects.values()))
    stage.ground.faults.clear()
    stage.converge_team()
    assert (told(made).state, told(made).problem) == (Credential.State.READY, "")
    assert len(secrets_there(stage)) == 1


def test_an_error_of_our_own_stops_no_team_and_tells_no_value(
    stage: Stage, lead: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
):
    stage.converge_team()
    made = add(lead, stage.team)

    def broken(*args: Any) -> Any:
        raise ValueError(f"cannot parse {TOKEN}")

    monkeypatch.setattr(secrets.credential_trials, "try_out", broken)
    stage.converge_team()
    assert stage.team.ready
    assert (told(made).state, told(made).problem) == (Credential.State.PENDING, "internal")
    assert "ValueError" in caplog.text
    assert TOKEN not in caplog.text


def test_an_error_about_a_secret_carries_nothing_of_it(stage: Stage, lead: Any):
    stage.converge_team()

    def refuse(request: Request) -> Fault | None:
        return Fault(status=422, reason="Invalid", message=TOKEN) if "/secrets" in request.path else None

    stage.ground.faults.before_hook = refuse
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": stage.team.namespace}}
    with pytest.raises(secrets.ClusterError) as caught:
        secrets._silently(lambda: stage.worker.create(body))
    assert (caught.value.kind, caught.value.code) == (ErrorClass.WAIT, "invalid")
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", ["make", "rotate", "remove"])
def test_killed_at_any_call_about_a_secret(act: str, after: bool, stage: Stage, lead: Any):
    """Whoever comes next ends where an undisturbed worker would have: one live Secret per credential, no stray."""
    stage.converge_team()
    at = 0
    while True:
        at += 1
        made = add(lead, stage.team, f"c{at}")
        if act != "make":
            stage.converge_team()
        if act == "rotate":
            rotate(lead, made)
        if act == "remove":
            credentials.delete(principal=lead, credential_id=made.pk)
        mortal = MortalOfSecrets(stage.worker, at=at, after=after)
        Team.objects.filter(pk=stage.team.pk).update(next_reconcile_at=convergence.Now(), lease_until=None)
        try:
            teams.reconcile_team(stage.team.pk, mortal)  # type: ignore[arg-type]
        except Killed:
            stage.converge_team()
            stage.converge_team()
            kept = Credential.objects.kept().values_list("current__name", flat=True)
            assert set(secrets_there(stage)) == set(kept)
            assert stage.open_intents() == 0
            assert not SealedValue.objects.exists()
            continue
        break
    assert at > {"make": 1, "rotate": 2, "remove": 1}[act]


def test_a_value_that_expired_after_a_crash_leaves_no_secret(stage: Stage, lead: Any):
    """The Secret was made, its record was not, and the value is gone before anybody looks again."""
    stage.converge_team()
    made = add(lead, stage.team)
    mortal = MortalOfSecrets(stage.worker, at=1, after=True)
    Team.objects.filter(pk=stage.team.pk).update(next_reconcile_at=convergence.Now())
    with pytest.raises(Killed):
        teams.reconcile_team(stage.team.pk, mortal)  # type: ignore[arg-type]
    assert len(secrets_there(stage)) == 1
    SealedValue.objects.update(expires_at=timezone.now())
    credentials.expire()
    stage.converge_team()
    assert not secrets_there(stage)
    assert (told(made).state, told(made).problem) == (Credential.State.ENTER_AGAIN, "expired")
    assert stage.open_intents() == 0


def test_an_answer_that_is_lost_ends_in_one_secret(stage: Stage, lead: Any):
    stage.converge_team()
    made = add(lead, stage.team)
    lost: list[str] = []

    def drop(request: Request) -> Fault | None:
        if request.method == "POST" and "/secrets" in request.path and not lost:
            lost.append(request.path)
            return Fault(drop=True)
        return None

    stage.ground.faults.after_hook = drop
    stage.converge_team()
    assert stage.open_intents() == 1
    stage.converge_team()
    assert stage.open_intents() == 0
    (secret,) = secrets_there(stage).values()
    assert secret["metadata"]["uid"] == told(made).current.uid


def test_every_way_a_pod_names_a_secret_is_seen():
    pod = {
        "initContainers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}}]}],
        "containers": [{"env": [{"name": "B", "value": "x"}], "envFrom": [{"secretRef": {"name": "b"}}]}],
        "volumes": [
            {"name": "c", "secret": {"secretName": "c"}},
            {"name": "d", "projected": {"sources": [{"secret": {"name": "d"}}]}},
            {"name": "e", "emptyDir": {}},
        ],
        "imagePullSecrets": [{"name": "f"}],
    }
    assert secrets.secrets_of(pod) == {"a", "b", "c", "d", "f"}
    assert secrets.secrets_of({}) == set()


class MortalOfSecrets(Mortal):
    """Dies at the n-th call that makes or deletes a Secret."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name not in {"create", "discard"}:
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "create" and args[0]["kind"] != "Secret":
                return method(*args, **kwargs)
            self.calls += 1
            if self.calls == self._at and not self._after:
                raise Killed(name)
            result = method(*args, **kwargs)
            if self.calls == self._at:
                raise Killed(name)
            return result

        return call


def name_in_a_pod(stage: Stage, row: Deployment, secret: str) -> Ref:
    """A pod that reads a Secret, as KServe's webhook leaves it."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    env = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "HF_TOKEN"}}}]
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{row.name}-by-hand", "namespace": stage.team.namespace},
        "spec": {
            "initContainers": [
                {"name": "storage-initializer", "image": "init", "env": env, "securityContext": restricted}
            ],
            "containers": [{"name": "kserve-container", "image": "vllm", "securityContext": restricted}],
        },
    }
    return Ref.of(stage.admin.create(body))


def until(stage: Stage, done: Any, *, seconds: float = 15) -> None:
    """Play a worker on the team until the cluster has come to rest."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        stage.converge_team()
        time.sleep(0.05)
