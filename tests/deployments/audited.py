"""One wish for each service that people and timers call, and the kind of the line that it leaves in the audit."""

from __future__ import annotations

from datetime import timedelta

from django.test import override_settings
from django.utils import timezone

from deployments.models import (
    Deployment,
    Membership,
    QuotaGrant,
    QuotaRequest,
    Revision,
    User,
)
from deployments.services import (
    approvals,
    catalogue,
    catalogue_edits,
    deciding,
    emergencies,
    endpoint_keys,
    engines,
    expiry,
    flavors,
    grant_ends,
    grants,
    ledger,
    left_keys,
    lifecycle,
    quota_requests,
    renderings,
    requests,
    stopping,
)
from deployments.spec import DeploymentSpec
from tests.deployments import audited_people
from tests.deployments import factories as make
from tests.deployments.audited_world import Act, World


def _submit(w: World) -> User:
    spec = DeploymentSpec.from_json(w.spec)
    requests.submit(principal=w.of(w.ann), team=w.team, name="chat", spec=spec)
    return w.ann


def _revise(w: World) -> User:
    chat = w.runs()
    spec = DeploymentSpec.from_json(w.spec | {"engine": {"profile": "vllm-0.32.0", "args": {"max-model-len": 4096}}})
    requests.revise(principal=w.of(w.alice), deployment=chat, spec=spec, base_revision=1)
    return w.alice


def _decide(w: World) -> User:
    row = w.asked()
    approvals.decide(principal=w.of(w.carol), revision=row, digest=row.digest, approve=True)
    return w.carol


def _decide_all(w: World) -> User:
    row = w.asked()
    item = deciding.Item(deciding.DEPLOYMENT, row.pk, row.digest)
    [result] = deciding.decide_all(principal=w.of(w.carol), items=[item], approve=False, comment="no")
    assert result.decided
    return w.carol


def _call(w: World) -> User:
    row = w.asked(w.carol)
    w.more["emergency"] = emergencies.call(principal=w.of(w.carol), revision=row, digest=row.digest, reason="it burns")
    return w.carol


def _sign(w: World) -> User:
    _call(w)
    row = w.more["emergency"]
    emergencies.sign(principal=w.of(w.dora), emergency_id=row.pk, digest=row.digest)
    return w.carol  # Both stand in it: who called as the actor, who signed as `second`.


def _withdraw_call(w: World) -> User:
    _call(w)
    emergencies.withdraw(principal=w.of(w.carol), emergency_id=w.more["emergency"].pk)
    return w.carol


def _stop(w: World) -> User:
    lifecycle.stop(principal=w.of(w.ann), deployment=w.runs())
    return w.ann


def _stop_all(w: World) -> User:
    [result] = stopping.stop_all(principal=w.of(w.ann), pks=[w.runs().pk])
    assert result.outcome == stopping.STOPPING
    return w.ann


def _left_keys(w: World) -> None:
    endpoint_keys.create(principal=w.of(w.alice), team=w.team, name="ci", every_deployment=True)
    Membership.objects.filter(team=w.team, user=w.alice).update(role=Membership.Role.MEMBER)
    assert left_keys.tell_of(w.alice) == 1


def _start(w: World) -> User:
    chat = w.runs()
    lifecycle.stop(principal=w.of(w.ann), deployment=chat)
    lifecycle.start(principal=w.of(w.alice), deployment=chat)
    return w.alice


def _delete(w: World) -> User:
    lifecycle.delete(principal=w.of(w.ann), deployment=w.runs())
    return w.ann


def _force(w: World) -> User:
    chat = w.runs()
    lifecycle.stop(principal=w.of(w.ann), deployment=chat)
    ledger.force_release(principal=w.of(w.carol), deployment=chat, reason="the node burnt")
    return w.carol


def _grant(w: World) -> User:
    grants.grant(principal=w.of(w.carol), team=w.team, flavor=w.h100, gpus=2)
    return w.carol


def _change_grant(w: World) -> User:
    grants.change_grant(principal=w.of(w.carol), grant_id=QuotaGrant.objects.get().pk, gpus=3)
    return w.carol


def _quota_asked(w: World) -> User:
    w.quota_asked()
    return w.alice


def _quota_decided(w: World) -> User:
    quota_requests.decide(principal=w.of(w.carol), request_id=w.quota_asked().pk, grant=True, comment="fine")
    return w.carol


def _quota_withdrawn(w: World) -> User:
    quota_requests.withdraw(principal=w.of(w.alice), request_id=w.quota_asked().pk)
    return w.alice


def _grants_end(w: World) -> None:
    QuotaGrant.objects.update(valid_until=timezone.now() - timedelta(minutes=1))
    assert grant_ends.follow_dates() > 0


def _nobody_decided(w: World) -> None:
    w.asked()
    Revision.objects.update(created_at=timezone.now() - timedelta(days=99))
    assert expiry.expire_undecided() == 1


def _nobody_granted(w: World) -> None:
    w.quota_asked()
    QuotaRequest.objects.update(created_at=timezone.now() - timedelta(days=99))
    assert expiry.expire_asked() == 1


def _flavor_made(w: World) -> User:
    values = {"slug": "b200", "name": "B200", "product": "NVIDIA-B200", "memory_mib": 183_000, "gpus_per_node": 8}
    flavors.create(principal=w.of(w.carol), compute_capability="10.0", **values)
    return w.carol


def _flavor_changed(w: World) -> User:
    flavors.change(principal=w.of(w.carol), slug="h100-80gb", name="Hopper")
    return w.carol


def _engine_changed(w: World) -> User:
    make.make_profile()
    engines.change(principal=w.of(w.carol), slug="vllm-0.32.0", plugins=["gguf"])
    return w.carol


def _plugins_given(w: World) -> None:
    assert engines.give(make.make_profile(), ["gguf"])


def _engine_moved(w: World) -> None:
    assert engines.move(make.make_profile(), f"registry.example.com/vllm@sha256:{'d' * 64}")


def _model_added(w: World) -> User:
    make.make_check()
    catalogue.add(principal=w.of(w.carol), uri=make.QWEN)
    return w.carol


def _model_pinned(w: World) -> User:
    _model_added(w)
    catalogue.change(principal=w.of(w.carol), slug="qwen2.5-7b-instruct", pinned=True)
    return w.carol


def _own_model(w: World) -> str:
    make.make_check("hf://org/own")
    return catalogue.add(principal=w.of(w.carol), uri="hf://org/own").slug


def _model_edited(w: World) -> User:
    catalogue_edits.edit(principal=w.of(w.carol), slug=_own_model(w), summary="Good.")
    return w.carol


def _model_removed(w: World) -> User:
    catalogue_edits.delete(principal=w.of(w.carol), slug=_own_model(w))
    return w.carol


def _otherwise_rendered(w: World) -> Deployment:
    """A deployment that was approved as another configuration renders it."""
    with override_settings(MONITORING_NAMESPACE="elsewhere"):
        _submit(w)
        row = Revision.objects.get()
        approvals.decide(principal=w.of(w.carol), revision=row, digest=row.digest, approve=True)
    return Deployment.objects.select_related("approved").get()


def _renewed(w: World) -> User:
    row = _otherwise_rendered(w)
    digest = row.approved.digest if row.approved else ""
    renderings.renew(principal=w.of(w.carol), deployment_id=row.pk, digest=digest)
    return w.carol


def _wave(w: World) -> User:
    row = _otherwise_rendered(w)
    digest = row.approved.digest if row.approved else ""
    [(_, made, why)] = renderings.wave(principal=w.of(w.carol), chosen=[(row.pk, digest)], size=5)
    assert made, why
    return w.carol


# service → (a wish that carries it out, the kind of its line)
AUDITED: dict[str, tuple[Act, str]] = audited_people.AUDITED | {
    "catalogue_edits.delete": (_model_removed, "catalogue_removed"),
    "catalogue_edits.edit": (_model_edited, "catalogue_edited"),
    "approvals.decide": (_decide, "approved"),
    "catalogue.add": (_model_added, "catalogue_added"),
    "catalogue.change": (_model_pinned, "catalogue_changed"),
    "deciding.decide_all": (_decide_all, "rejected"),
    "emergencies.call": (_call, "emergency_called"),
    "emergencies.sign": (_sign, "approved"),
    "emergencies.withdraw": (_withdraw_call, "emergency_withdrawn"),
    "engines.change": (_engine_changed, "engine_changed"),
    "engines.give": (_plugins_given, "engine_changed"),
    "engines.move": (_engine_moved, "engine_changed"),
    "expiry.expire_asked": (_nobody_granted, "quota_expired"),
    "expiry.expire_undecided": (_nobody_decided, "expired"),
    "flavors.change": (_flavor_changed, "flavor_changed"),
    "flavors.create": (_flavor_made, "flavor_made"),
    "grant_ends.follow_dates": (_grants_end, "quota_ended"),
    "grants.change_grant": (_change_grant, "quota_granted"),
    "grants.grant": (_grant, "quota_granted"),
    "ledger.force_release": (_force, "gpus_forced"),
    "lifecycle.delete": (_delete, "delete_asked"),
    "lifecycle.start": (_start, "started"),
    "left_keys.tell_of": (_left_keys, "key_maker_left"),
    "lifecycle.stop": (_stop, "stopped"),
    "quota_requests.ask": (_quota_asked, "quota_asked"),
    "quota_requests.decide": (_quota_decided, "quota_request_granted"),
    "quota_requests.withdraw": (_quota_withdrawn, "quota_withdrawn"),
    "renderings.renew": (_renewed, "revised"),
    "renderings.wave": (_wave, "revised"),
    "requests.revise": (_revise, "revised"),
    "requests.submit": (_submit, "requested"),
    "stopping.stop_all": (_stop_all, "stopped"),
}
