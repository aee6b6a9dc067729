"""What a service may refuse, in words for people; one place in the API and one in the forms show it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from deployments.findings import SPEC_FIELDS, Finding, passing

T = TypeVar("T")


class DomainError(Exception):
    """A wish that was understood and is not carried out."""

    status = 400
    code = "refused"
    # Seconds after which the same wish may be carried out; None: time alone changes nothing.
    wait: int | None = None

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        pointer: str = "",
        code: str = "",
        findings: Iterable[Finding] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field or SPEC_FIELDS.get(pointer, "")
        self.pointer = pointer
        self.code = code or type(self).code
        self.findings = tuple(findings)
        # What else is wrong with the same wish, each at its own field.
        self.also: tuple[DomainError, ...] = ()

    def by_field(self, fields: Collection[str]) -> dict[str, str]:
        """All that is wrong in words, by field; under `form` what is about none of these fields."""
        found: dict[str, str] = {}
        for error in (self, *self.also):
            found.setdefault(error.field if error.field in fields else "form", error.message)
        return found


class NotAuthenticatedError(DomainError):
    """Nobody is known to ask."""

    status = 401
    code = "not_authenticated"


class NotAllowedError(DomainError):
    """The principal sees the thing but may not do this to it."""

    status = 403
    code = "not_allowed"


class MissingError(DomainError):
    """There is no such thing, or the principal may not know of it: both look the same."""

    status = 404
    code = "not_found"


class ConflictError(DomainError):
    """The thing is in a state in which this makes no sense."""

    status = 409
    code = "conflict"


class QuotaExceededError(ConflictError):
    """The team's quota of this flavor does not cover it."""

    code = "quota_exceeded"


class StaleError(DomainError):
    """What the page or the program showed has changed meanwhile."""

    status = 412
    code = "stale"


class InvalidError(DomainError):
    """One field holds something that cannot be meant."""

    status = 422
    code = "invalid"


class Checks:
    """Looks at all fields of a wish before anything is refused: people mend everything at once."""

    def __init__(self) -> None:
        self._wrong: list[InvalidError] = []

    def note(self, field: str, words: str) -> None:
        """Note what is wrong with a field."""
        self._wrong.append(InvalidError(words, field=field, pointer=f"/{field}"))

    def of(self, check: Callable[[], T], otherwise: T) -> T:
        """What a check of one field returns; where the field is wrong, that is noted and `otherwise` stands in."""
        try:
            return check()
        except InvalidError as error:
            self._wrong += [error, *(one for one in error.also if isinstance(one, InvalidError))]
            return otherwise

    def done(self) -> None:
        """Raise the first InvalidError that was noted, with all others in its `also`."""
        if self._wrong:
            first, *rest = self._wrong
            first.also = tuple(rest)
            raise first


class RefusedError(DomainError):
    """Preflight found errors: `findings` says which field, why, and what would help."""

    status = 422
    code = "preflight"

    def __init__(self, findings: Iterable[Finding], message: str = "") -> None:
        found = tuple(findings)
        errors = [finding for finding in found if finding.is_error]
        first = errors[0] if errors else None
        super().__init__(
            message or (first.message if first else "This cannot be deployed as it is."),
            field=first.field if first else "",
            pointer=first.pointer if first else "",
            findings=found,
        )
        self.wait = passing(found)
