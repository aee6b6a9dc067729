"""Deployments and everything that hangs below one."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments.api import quota_schemas, schemas, shapes
from deployments.api.base import (
    ID,
    PAGING,
    ApiViewSet,
    PreconditionRequiredError,
    body_of,
    choices_of,
    etag,
    if_match,
    keyset,
    number_of,
    word_of,
)
from deployments.api.tags import digest_in, number_in, tag_of
from deployments.api.waiting import waiting
from deployments.models import Approval, Deployment, Reservation, Revision, Team
from deployments.services import approvals, engines, files, ledger, lifecycle, requests, waits
from deployments.services.errors import InvalidError, MissingError, RefusedError
from deployments.spec import DeploymentSpec

PAGE = [
    OpenApiParameter("limit", int, description="Rows per page, at most 200"),
    OpenApiParameter("after", int, description="Only rows with a smaller id"),
]
IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="The entity tag that GET answered with"
)
PROBLEMS = {401: schemas.Problem, 403: schemas.Problem, 404: schemas.Problem}
WRITES = {**PROBLEMS, 409: schemas.Problem, 412: schemas.Problem, 422: schemas.Problem}


class DeploymentViewSet(ApiViewSet):
    """What teams want to run."""

    scopes: ClassVar[dict[str, str]] = {"approve": "approve", "reject": "approve", "release": "approve"}
    parameters: ClassVar[dict[str, tuple[str, ...]]] = {
        "list": (*PAGING, "team", "state", "name"),
        "revisions": PAGING,
        "manifests": ("revision", "against"),
    }

    @extend_schema(
        operation_id="deployments_list",
        parameters=[
            *PAGE,
            OpenApiParameter("team", str, description="Slug of a team"),
            OpenApiParameter("state", str, enum=Deployment.State.values),
            OpenApiParameter("name", str, description="Exact name"),
        ],
        responses={200: schemas.page_of(schemas.DeploymentAnswer), **PROBLEMS},
    )
    def list(self, request: Request) -> Response:
        """The deployments one may see, newest first."""
        rows = Deployment.objects.alive().visible_to(self.principal)
        for parameter, column in (("team", "team__slug"), ("name", "name")):
            value = word_of(request, parameter)
            if value is not None:
                rows = rows.filter(**{column: value})
        if state := choices_of(request, "state", Deployment.State.values):
            rows = rows.filter(state__in=state)
        return keyset(request, shapes.deployments(rows), shapes.deployment)

    @extend_schema(request=schemas.RequestBody, responses={201: schemas.DeploymentAnswer, **WRITES})
    def create(self, request: Request) -> Response:
        """Ask for a deployment. It waits for approval unless the team's policy approves at once."""
        body = _known(body_of(request), "team", "name", "spec", "note")
        team = requests.team_called(self.principal, body.get("team"))
        made = requests.submit(
            principal=self.principal,
            team=team,
            name=_name(body.get("name")),
            spec=_spec(body.get("spec")),
            note=body.get("note", ""),
        )
        return _answer(made.pk, status=201)

    @extend_schema(responses={200: quota_schemas.DeploymentDetail, **PROBLEMS})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One deployment, and how it waits for quota if it does; its ETag names the newest revision."""
        row = self._get(pk)
        answer = _answer(row.pk)
        answer.data["waiting"] = waiting(waits.waiting_of(row))
        return answer

    @extend_schema(request=schemas.SpecBody, parameters=[IF_MATCH], responses={200: schemas.DeploymentAnswer, **WRITES})
    def update(self, request: Request, pk: str) -> Response:
        """Replace the spec by a new revision, which needs its own approval."""
        body = _known(body_of(request), "spec", "note", "base_revision")
        return self._revise(pk, body, body.get("spec"))

    @extend_schema(request=schemas.SpecBody, parameters=[IF_MATCH], responses={200: schemas.DeploymentAnswer, **WRITES})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change parts of the spec (RFC 7396): a new revision, which needs its own approval."""
        body = _known(body_of(request), "spec", "note", "base_revision")
        latest = self._get(pk).latest
        changes = body.get("spec")
        if not isinstance(changes, dict):
            raise InvalidError("Must be an object.", pointer="/spec", field="spec")
        return self._revise(pk, body, _merged(latest.spec if latest else {}, changes))

    @extend_schema(responses={202: schemas.DeploymentAnswer, **WRITES})
    def destroy(self, request: Request, pk: str) -> Response:
        """Have it taken off the cluster; its GPUs come back when the pods are gone."""
        lifecycle.delete(principal=self.principal, deployment=self._get(pk))
        return _answer(int(pk), status=202)

    @extend_schema(request=schemas.ReasonBody, responses={202: schemas.DeploymentAnswer, **WRITES})
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        """Stop it; its GPUs come back when the pods are gone."""
        body = _known(body_of(request), "reason")
        lifecycle.stop(principal=self.principal, deployment=self._get(pk), reason=body.get("reason", ""))
        return _answer(int(pk), status=202)

    @extend_schema(request=None, responses={202: schemas.DeploymentAnswer, **WRITES})
    @action(detail=True, methods=["post"])
    def start(self, request: Request, pk: str) -> Response:
        """Run the approved revision again."""
        lifecycle.start(principal=self.principal, deployment=self._get(pk))
        return _answer(int(pk), status=202)

    @extend_schema(request=schemas.ForceBody, responses={200: schemas.ReservationAnswer(many=True), **WRITES})
    @action(detail=True, methods=["post"])
    def release(self, request: Request, pk: str) -> Response:
        """Give the GPUs of a stopped or deleted deployment back without proof that its pods are gone (admins).

        Answers with the lines written into the ledger: none when nothing was held.
        """
        body = _known(body_of(request), "reason")
        row = self._get(pk)
        made = ledger.force_release(principal=self.principal, deployment=row, reason=body.get("reason", ""))
        rows = shapes.reservations(Reservation.objects.filter(pk__in=[entry.pk for entry in made]).order_by("pk"))
        return Response([shapes.reservation(entry) for entry in rows])

    @extend_schema(
        request=schemas.DecisionBody, parameters=[IF_MATCH], responses={200: schemas.DecisionAnswer, **WRITES}
    )
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Approve the newest revision, named by its digest."""
        return self._decide(request, pk, approve=True)

    @extend_schema(
        request=schemas.DecisionBody, parameters=[IF_MATCH], responses={200: schemas.DecisionAnswer, **WRITES}
    )
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: str) -> Response:
        """Reject the newest revision, named by its digest."""
        return self._decide(request, pk, approve=False)

    @extend_schema(
        operation_id="deployments_revisions_list",
        parameters=PAGE,
        responses={200: schemas.page_of(schemas.RevisionAnswer), **PROBLEMS},
    )
    @action(detail=True, methods=["get"])
    def revisions(self, request: Request, pk: str) -> Response:
        """Its revisions, newest first."""
        rows = Revision.objects.filter(deployment=self._get(pk))
        return keyset(request, shapes.revisions(rows), shapes.revision)

    @extend_schema(responses={200: schemas.RevisionDetail, **PROBLEMS})
    @action(detail=True, methods=["get"], url_path=f"revisions/(?P<number>{ID})")
    def revision(self, request: Request, pk: str, number: str) -> Response:
        """One revision with the objects that will be applied; its ETag is the digest that an approval signs."""
        rows = Revision.objects.filter(deployment=self._get(pk), number=min(int(number), 2**31 - 1))
        row = shapes.revisions(rows).first()
        if row is None:
            raise MissingError("There is no such revision.")
        shown = shapes.revision(row) | {"objects": rows.values_list("objects_json", flat=True).get()}
        return Response(shown, headers=etag(shown["digest"]))

    @extend_schema(
        parameters=[
            OpenApiParameter("revision", int, description="Its number; without it the newest"),
            OpenApiParameter("against", int, description="What to compare with; without it the revision that runs"),
        ],
        responses={200: schemas.ManifestsAnswer, **PROBLEMS},
    )
    @action(detail=True, methods=["get"])
    def manifests(self, request: Request, pk: str) -> Response:
        """What a revision puts on the cluster as objects and as one YAML file, how it differs, and the same by kubectl.

        Of a credential only the name of its Secret is in it.
        """
        row = self._get(pk)
        most = 2**31 - 1
        asked, other = (number_of(request, name, most=most) for name in ("revision", "against"))
        revision = files.revision_of(row, asked or 0)
        running = row.applied.number if row.applied else None
        number = other or running
        against = files.revision_of(row, number) if number else None
        if revision is None or (other and against is None):
            raise MissingError("There is no such revision.")
        shown = files.of_revision(row, revision, against)
        answer = {
            "revision": revision.number,
            "digest": revision.digest,
            "running": running,
            "against": against.number if against else None,
            "account": shown.account,
            "objects": revision.objects_json,
            "yaml": shown.yaml,
            "diff": shown.diff,
            "kubectl": shown.kubectl.as_json(),
        }
        return Response(answer, headers=etag(revision.digest))

    def location_of(self, answer: Response) -> str:
        """Of a decision the deployment and the digest that was decided about."""
        if self.action in {"approve", "reject"}:
            return f"{self.request.path.rstrip('/').rpartition('/')[0]}/?digest={answer.data['digest']}"
        return super().location_of(answer)

    def rebuilt(self, location: str) -> Response:
        """A decision from its approval, anything else from the deployment as it is now."""
        self.rereading = True
        row = self._get(location.partition("?")[0].rstrip("/").rpartition("/")[2])
        if self.action not in {"approve", "reject"}:
            return _answer(row.pk)
        decisions = Approval.objects.filter(revision__deployment=row, actor=self.principal.user)
        made = decisions.filter(digest=location.partition("?digest=")[2]).order_by("pk").last()
        if made is None:
            raise MissingError("There is no such decision.")
        return _decided(made, row.pk)

    def _get(self, pk: str) -> Deployment:
        rows = Deployment.objects.alive().visible_to(self.principal).select_related("latest", "team")
        row = rows.filter(pk=int(pk)).first()
        if row is None:
            raise MissingError("There is no such deployment.")
        return row

    def _revise(self, pk: str, body: dict[str, Any], spec: object) -> Response:
        requests.revise(
            principal=self.principal,
            deployment=self._get(pk),
            spec=_spec(spec),
            base_revision=_base_revision(self.request, body),
            note=body.get("note", ""),
        )
        return _answer(int(pk))

    def _decide(self, request: Request, pk: str, *, approve: bool) -> Response:
        body = _known(body_of(request), "digest", "comment")
        revision = self._get(pk).latest
        tag = if_match(request)
        digest = body.get("digest") if tag is None else digest_in(tag)
        if digest is None:
            raise PreconditionRequiredError("Name the digest that you looked at, in If-Match or as “digest”.")
        if revision is None:
            raise MissingError("There is no revision to decide about.")
        made = approvals.decide(
            principal=self.principal,
            revision=revision,
            digest=str(digest),
            approve=approve,
            comment=body.get("comment", ""),
        )
        return _decided(made, int(pk))


class PreflightViewSet(ApiViewSet):
    """Checks of wishes that nobody has sent yet."""

    harmless = frozenset({"create"})

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {"create": ("deployment",)}

    @extend_schema(
        operation_id="preflight",
        parameters=[OpenApiParameter("deployment", int, description="The deployment that it would change")],
        request=schemas.PreflightBody,
        responses={200: schemas.PreflightAnswer, **PROBLEMS},
    )
    def create(self, request: Request) -> Response:
        """What `POST /deployments/` would say, without storing anything."""
        body = _known(body_of(request), "team", "name", "spec", "note", "model")
        try:
            team = requests.team_called(self.principal, body.get("team"))
        except RefusedError:
            team = None
        edited = number_of(request, "deployment")
        deployment = self._edited(edited, team) if edited else None
        name, spec = body.get("name"), body.get("spec")
        result = requests.preflight(
            principal=self.principal,
            team=team,
            name=name if isinstance(name, str) else "",
            spec=spec,
            note=body.get("note", ""),
            deployment=deployment,
            numbers=_numbers(body.get("model")),
            with_ways=True,
        )
        return Response(_preflight(result))

    def _edited(self, pk: int, team: Team | None) -> Deployment | None:
        """The deployment that would be changed; None where the team is wrong, which is said apart."""
        if team is None:
            return None
        row = Deployment.objects.alive().writable_by(self.principal).filter(pk=pk, team=team).first()
        if row is None:
            words = "The team has no such deployment that you may change."
            raise InvalidError(words, field="deployment", pointer="?deployment", code="deployment_unknown")
        return row


def _preflight(result: requests.PreflightResult) -> dict[str, Any]:
    quota, roles = result.quota, _by_role(result)
    # What was there before roles were told apart: of two that of decode, which holds the caches longest.
    last = roles[-1] if roles else {"fit": None, "options": []}
    return {
        "ok": result.ok,
        "findings": [finding.as_json() for finding in result.findings],
        "gpus": result.gpus,
        "surge": result.surge,
        "asks": [ask.as_json() for ask in result.asks],
        "approval": result.approval,
        "fit": last["fit"],
        "options": last["options"],
        "roles": roles,
        "model": result.model_facts.as_json() if result.model_facts else None,
        "missing": list(result.missing),
        "quota": {
            "flavor": quota.flavor.slug,
            "limit": quota.limit,
            "reserved": quota.reserved,
            "free": quota.free,
            "until": quota.until,
        }
        if quota
        else None,
    }


def _by_role(result: requests.PreflightResult) -> list[dict[str, Any]]:
    """What each role runs, in the memory of its GPUs, prefill before decode; one entry where pods do both."""
    if result.spec is None:
        return []
    return [
        {
            "role": role.value,
            "gpus_per_replica": own.gpus_per_replica,
            "fit": fit.as_json() if (fit := result.fits.get(role)) else None,
            "options": [way.as_json() for way in result.ways.get(role, ())],
        }
        for role, own in result.spec.by_role().items()
    ]


def _numbers(sent: object) -> dict[str, int]:
    """What somebody says of a model; InvalidError names the number that is none."""
    if sent is None:
        return {}
    if not isinstance(sent, dict):
        raise InvalidError("Must be an object of numbers.", pointer="/model", field="model")
    serializer = schemas.ModelNumbers(data=sent)
    for name in sent:
        if name not in serializer.fields:
            shown = name[:60].replace("~", "~0").replace("/", "~1")
            words = f"Known here: {', '.join(serializer.fields)}."
            raise InvalidError(words, pointer=f"/model/{shown}", field="model", code="unknown_field")
    if not serializer.is_valid():
        name, said = next(iter(serializer.errors.items()))
        raise InvalidError(str(said[0]), pointer=f"/model/{name}", field="model")
    return dict(serializer.validated_data)


def _decided(made: Approval, pk: int) -> Response:
    answer = {"approved": made.approved, "digest": made.digest, "kind": made.kind, "comment": made.comment}
    return Response({**answer, "deployment": _shown(pk)})


def _shown(pk: int) -> dict[str, Any]:
    # Past the queryset of the caller: who wrote it may see what became of it, even with a token that only writes.
    return shapes.deployment(shapes.deployments(Deployment.objects.filter(pk=pk)).get())


def _answer(pk: int, status: int = 200) -> Response:
    shown = _shown(pk)
    return Response(shown, status=status, headers=etag(tag_of(shown["revision"], shown["digest"])))


def _known(body: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in body:
        if name not in names:
            shown = name[:60].replace("~", "~0").replace("/", "~1")
            raise InvalidError(
                f"Known here: {', '.join(names)}.", pointer=f"/{shown}", field=shown, code="unknown_field"
            )
    return body


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidError("Must be text.", pointer="/name", code="required" if name is None else "invalid")
    return name


def _spec(data: object) -> DeploymentSpec:
    spec, problems = engines.parse_spec(data)
    if spec is None:
        raise RefusedError([problem.as_finding() for problem in problems])
    return spec


def _base_revision(request: Request, body: dict[str, Any]) -> int:
    tag = if_match(request)
    if tag is not None:
        return number_in(tag)
    base = body.get("base_revision")
    if base is None:
        raise PreconditionRequiredError("Say which revision you change, in If-Match or as “base_revision”.")
    if isinstance(base, bool) or not isinstance(base, int):
        raise InvalidError("Must be a whole number.", pointer="/base_revision", field="base_revision")
    return base


def _merged(target: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7396)."""
    result = copy.deepcopy(target)
    for key, value in changes.items():
        inner = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _merged(inner if isinstance(inner, dict) else {}, value)
        else:
            result[key] = value
    return result
