"""The request form as files: its wish as YAML, read back into its fields, and the objects that it would become."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.core.files.uploadedfile import UploadedFile

from deployments.forms.request import DeploymentForm, initial_of
from deployments.models import Deployment, Principal
from deployments.services.errors import DomainError
from deployments.services.files import Files
from deployments.services.previews import preview
from deployments.spec_errors import parse_spec
from deployments.views.detail import as_texts
from deployments.wish_text import MOST_CHARACTERS, Problem, Read, read_wish, write_wish
from portal.lib.htmx import PortalRequest

# Buttons of the form: read the text into its fields, and show the fields as text.
TAKE, SHOW = "take", "show"
TEXT, FILE = "wish", "wish_file"
# Beside the text: the mark of what the form itself wrote there, or has read.
READ = "wish_read"
# Fields that say nothing of the wish itself, or whose value the form keeps where a text has none.
KEPT = frozenset({"team", "name", "note"})
MOST_SAID = 12
TOO_LARGE = Problem(0, "", f"The file is larger than {MOST_CHARACTERS // 1024} KiB, far more than a wish takes.")
EXAMPLE = """\
team: search
name: chat
spec:
  source:
    uri: hf://Qwen/Qwen2.5-7B-Instruct
  flavor: h100-80gb
  engine:
    args:
      max-model-len: 16384
"""


@dataclass(frozen=True)
class WishFiles:
    """What stands in the part of the form that speaks YAML."""

    text: str = ""
    # The mark of the text that says what the form said: while it stands there unchanged, nothing is left to be read.
    read: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    files: Files | None = None
    objects: list[dict[str, Any]] = field(default_factory=list)
    # Why there are no objects to show; and whether zeros stand for the model's commit.
    why_not: str = ""
    pinned: bool = True
    opened: bool = False
    example: str = EXAMPLE
    most: int = MOST_CHARACTERS

    @property
    def too_large(self) -> list[dict[str, Any]]:
        """What is said of a file that is not even sent."""
        return [_said(TOO_LARGE)]

    @property
    def wrong(self) -> bool:
        """True when the text was not taken."""
        return any(said["severity"] == "error" for said in self.messages)


def shown(form: DeploymentForm, principal: Principal) -> WishFiles:
    """The form as it stands as YAML, and what it would put on the cluster. May ask the hub once."""
    spec, row = form.spec, form.deployment
    name = row.name if row else form.text("name")
    text = write_wish(spec.to_json() if spec else form.spec_data, team=form.text("team"), name=name)
    team = row.team if row else getattr(form, "cleaned_data", {}).get("team")
    if spec is None or team is None:
        why_not = "Correct what is marked red first: then this shows the objects."
        return WishFiles(text, _mark(text), why_not=why_not, opened=True)
    try:
        made = preview(principal=principal, team=team, name=name, spec=spec, deployment=row)
    except DomainError as error:
        return WishFiles(text, _mark(text), why_not=error.message, opened=True)
    running = row.applied if row else None
    files = Files(
        file=f"{made.account['metadata']['name']}-revision-{made.revision}.yaml",
        namespace=team.namespace,
        deployment_id=str(row.pk) if row else "0",
        account=made.account,
        objects=made.objects,
        before=running.objects_json if running else None,
    )
    return WishFiles(text, _mark(text), files=files, objects=as_texts(files.all), pinned=made.pinned, opened=True)


def taken(request: PortalRequest, deployment: Deployment | None = None) -> tuple[WishFiles, dict[str, str]]:
    """The text or file that was sent with the form, and the fields' values that it means; none where it is wrong."""
    text, problem = _sent(request)
    if problem is not None:
        return WishFiles(text, messages=[_said(problem)], opened=True), {}
    read = read_wish(text)
    problems = [*read.problems, *(_foreign(deployment, read.team, read.name) if deployment else ())]
    if problems:
        return WishFiles(text, messages=[_said(each) for each in problems[:MOST_SAID]], opened=True), {}
    # What the text leaves out is not set: the form then means exactly what the text means.
    values = {name: "" for name in DeploymentForm.base_fields if name not in KEPT}
    values |= {name: str(value) for name, value in initial_of(read.spec).items()}
    if deployment is None:
        values |= {name: value for name, value in (("team", read.team), ("name", read.name)) if value}
    return WishFiles(text, _mark(text), opened=True), values


def filled_in(wish: WishFiles, form: DeploymentForm) -> WishFiles:
    """Whether the form says what the text says, now that it was filled in from it."""
    left = [str(form[name].label) for name in form.fields if form.errors.get(name)]
    if wish.wrong:
        return wish
    if left:
        message = f"The form is filled in, but could not take all of it. Look at what is marked red: {', '.join(left)}."
        return replace(wish, messages=[{"severity": "warning", "message": message}])
    told = {"severity": "success", "message": "The form now says what this says. Look it through, then send it."}
    return replace(wish, messages=[told])


def kept(data: Mapping[str, Any]) -> WishFiles:
    """What was typed as YAML, as it was sent along with the form."""
    return WishFiles(str(data.get(TEXT, ""))[:MOST_CHARACTERS], str(data.get(READ, ""))[:64])


def unread(request: PortalRequest, form: DeploymentForm) -> WishFiles | None:
    """The text or file that was sent with the form and says something else than it, with what to do; None for none."""
    if FILE not in request.FILES:
        text = str(request.POST.get(TEXT, ""))
        if not text.strip() or _mark(text) == request.POST.get(READ):
            return None
    text, problem = _sent(request)
    read = read_wish(text) if problem is None else Read(problems=(problem,))
    if not read.problems and _says(form, read):
        return None
    told = Problem(0, "", "Nothing was asked for: the form has not read this. Fill it in from here, or empty this.")
    problems = [told, *read.problems][:MOST_SAID]
    return WishFiles(text[:MOST_CHARACTERS], messages=[_said(each) for each in problems], opened=True)


def _says(form: DeploymentForm, read: Read) -> bool:
    """True when a text means what the fields mean."""
    team, name = read.team or form.text("team"), read.name or form.text("name")
    return parse_spec(read.spec)[0] == form.spec and (team, name) == (form.text("team"), form.text("name"))


def _mark(text: str) -> str:
    """A mark of a text that does not depend on how a browser ends its lines."""
    return hashlib.sha256("\n".join(text.split("\r\n")).strip().encode()).hexdigest()


def _sent(request: PortalRequest) -> tuple[str, Problem | None]:
    upload = request.FILES.get(FILE)
    if not isinstance(upload, UploadedFile):
        text = str(request.POST.get(TEXT, ""))
        return text, None if text.strip() else Problem(0, "", "Write or paste YAML here, or choose a file.")
    raw = upload.read(MOST_CHARACTERS + 1)
    if len(raw) > MOST_CHARACTERS:
        return "", TOO_LARGE
    try:
        return raw.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        return "", Problem(0, "", "The file is not text in UTF-8.")


def _foreign(row: Deployment, team: str, name: str) -> list[Problem]:
    """A text of another deployment than the one that is changed."""
    said = []
    if team and team != row.team.slug:
        said.append(Problem(0, "/team", f"This is for the team “{team[:60]}”, and not for “{row.team.slug}”."))
    if name and name != row.name:
        said.append(Problem(0, "/name", f"This is for “{name[:60]}”, and not for “{row.name}”: names stay."))
    return said


def _said(problem: Problem) -> dict[str, Any]:
    where = f"Line {problem.line}" if problem.line else ""
    place = ", ".join(part for part in (where, problem.pointer.lstrip("/").replace("/", " › ")) if part)
    return {"severity": "error", "message": f"{place}: {problem.message}" if place else problem.message}
