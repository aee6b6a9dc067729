"""Classes of a vLLM wheel as its source defines them: what each descends from, and which interfaces that gives it.

The source is read, never run, as it would run on NVIDIA GPUs. What it does not settle is told as unknown.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

MODELS = "vllm.model_executor.models"
INTERFACES = f"{MODELS}.interfaces"
# Functions that give a class of the same ancestors, with a pooler.
WRAPPERS = frozenset({"as_embedding_model", "as_seq_cls_model", "as_reward_model"})
# Ancestors outside of vLLM that say nothing of a forward pass; nn.Module has one that takes no keywords.
PLAIN = frozenset({"typing.Protocol", "typing.Generic", "typing_extensions.Protocol", "abc.ABC", "object"})
MODULE = "torch.nn.Module"
HERE, ELSEWHERE = frozenset({"is_cuda", "is_cuda_alike"}), frozenset({"is_rocm", "is_xpu", "is_cpu", "is_tpu"})


class Support(StrEnum):
    """Whether a class has an interface."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class UnreadableError(Exception):
    """The source does not say what a name stands for."""


@dataclass(frozen=True)
class Imported:
    """A name that another module brings; `name` is empty for the module itself."""

    module: str
    name: str = ""


Bound = ast.ClassDef | ast.expr | Imported


@dataclass
class Module:
    """What the names at the top of a module stand for; several things where conditions decide that are not known."""

    name: str
    package: str
    names: dict[str, list[Bound]] = field(default_factory=dict)
    # Names that are told to type checkers alone; they hold where the module looks its names up when they are asked for.
    told: dict[str, list[Bound]] = field(default_factory=dict)
    lazy: bool = False


@dataclass(frozen=True)
class Class:
    """A class with its ancestors in the order in which Python looks through them; of those outside only the name."""

    name: str
    node: ast.ClassDef | None
    bases: tuple[Class, ...] = ()
    complete: bool = True

    @cached_property
    def order(self) -> tuple[Class, ...]:
        """The class and its ancestors (C3)."""
        lines = [*(list(base.order) for base in self.bases), list(self.bases)]
        return (self, *_merged(lines))

    @property
    def whole(self) -> bool:
        """True where every ancestor is known."""
        return all(each.complete for each in self.order)

    def body(self, name: str) -> ast.stmt | None:
        """The statement of its own body that gives it an attribute of that name a value; the last one counts."""
        found = None
        for statement in self.node.body if self.node is not None else ():
            if name in _assigned(statement):
                found = statement
        return found


class Wheel:
    """The classes of an unpacked wheel."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules: dict[str, Module] = {}
        self._classes: dict[tuple[str, int], Class] = {}

    def classes(self, module: str, name: str, seen: tuple[tuple[str, str], ...] = ()) -> list[Class]:
        """What a name of a module may stand for; UnreadableError where the source does not say."""
        if not module.startswith("vllm"):
            return [Class(f"{module}.{name}", None)]
        if (module, name) in seen:
            raise UnreadableError(name)
        if self._file(f"{module}.{name}") is not None:
            raise UnreadableError(name)  # a module
        found = self._module(module)
        bound = found.names.get(name) or (found.told.get(name) if found.lazy else None)
        if not bound:
            raise UnreadableError(name)
        return [each for one in bound for each in self._of(found, one, (*seen, (module, name)))]

    def _of(self, module: Module, bound: Bound, seen: tuple[tuple[str, str], ...]) -> list[Class]:
        match bound:
            case Imported(module=other, name=str(name)) if name:
                return self.classes(other, name, seen)
            case ast.ClassDef():
                return [self._class(module, bound, seen)]
            case ast.Name(id=name):
                if name not in module.names and name == "object":
                    return [Class("object", None)]
                return self.classes(module.name, name, seen)
            case ast.Attribute():
                return self.classes(*self._dotted(module, bound), seen)
            case ast.Subscript(value=value):
                return self._of(module, value, seen)
            case ast.Call(func=ast.Name(id=name), args=[inner]) if name in WRAPPERS:
                return self._of(module, inner, seen)
        raise UnreadableError(ast.dump(bound) if isinstance(bound, ast.AST) else str(bound))

    def _class(self, module: Module, node: ast.ClassDef, seen: tuple[tuple[str, str], ...]) -> Class:
        key = (module.name, node.lineno)
        if key not in self._classes:
            bases, complete = [], True
            for base in node.bases:
                try:
                    found = self._of(module, base, seen)
                except (UnreadableError, OSError):
                    found = []
                complete &= len(found) == 1
                bases.extend(found[:1])
            self._classes[key] = Class(f"{module.name}.{node.name}", node, tuple(bases), complete)
        return self._classes[key]

    def _dotted(self, module: Module, value: ast.Attribute) -> tuple[str, str]:
        """Module and name of “nn.Module”, however the module came here."""
        match value.value:
            case ast.Name(id=first):
                bound = module.names.get(first, [])
            case ast.Attribute() as inner:
                outer, name = self._dotted(module, inner)
                bound = [Imported(f"{outer}.{name}")]
            case _:
                bound = []
        if len(bound) != 1 or not isinstance(bound[0], Imported):
            raise UnreadableError(value.attr)
        one = bound[0]
        return (f"{one.module}.{one.name}" if one.name else one.module), value.attr

    def _file(self, module: str) -> Path | None:
        path = self._folder.joinpath(*module.split("."))
        return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)

    def _module(self, name: str) -> Module:
        if name not in self._modules:
            file = self._file(name)
            if file is None:
                raise UnreadableError(name)
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            module = self._modules[name] = Module(name, package)
            _bind(module, ast.parse(file.read_text(encoding="utf-8")).body, module.names, sure=True)
        return self._modules[name]


def pipeline(found: Class) -> Support:
    """Whether vLLM lets layers of a class be cut into stages (`supports_pp` of its interfaces)."""
    if not _descends(found, f"{INTERFACES}.SupportsPP"):
        said = all(_has(found, name) for name in ("supports_pp", "make_empty_intermediate_tensors", "forward"))
        if not said:
            return Support.NO if found.whole else Support.UNKNOWN
    for each in found.order:
        if each.name == MODULE:
            return Support.NO
        if not each.complete or (each.node is None and each.name not in PLAIN):
            own = each.body("forward")
            return _takes(own) if own is not None else Support.UNKNOWN
        if (own := each.body("forward")) is not None:
            return _takes(own)
    return Support.NO


def adapters(found: Class) -> Support:
    """Whether vLLM loads LoRA adapters for a class, which it asks of the object that the class makes."""
    # One that makes objects of another class.
    if any(_makes_others(each.body("__new__")) for each in found.order):
        return Support.UNKNOWN
    if _descends(found, f"{INTERFACES}.SupportsLoRA"):
        return Support.YES
    return Support.UNKNOWN if _has(found, "supports_lora") or not found.whole else Support.NO


def _makes_others(new: ast.stmt | None) -> bool:
    """True for a `__new__` that may give an object of another class: one that asks no ancestor for it."""
    return new is not None and not any(
        isinstance(each, ast.Attribute) and each.attr == "__new__" for each in ast.walk(new)
    )


def _takes(forward: ast.stmt) -> Support:
    if not isinstance(forward, ast.FunctionDef):
        return Support.UNKNOWN
    given = forward.args
    named = {each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)}
    return Support.YES if "intermediate_tensors" in named or given.kwarg is not None else Support.NO


def _descends(found: Class, name: str) -> bool:
    return any(each.name == name for each in found.order)


def _has(found: Class, name: str) -> bool:
    return any(each.body(name) is not None for each in found.order)


def _assigned(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement gives a value; those in branches, too."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (each.id for each in targets if isinstance(each, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            yield name
        case ast.If(body=body, orelse=other) | ast.Try(body=body, orelse=other):
            yield from (name for inner in (*body, *other) for name in _assigned(inner))


def _bind(module: Module, body: Sequence[ast.stmt], into: dict[str, list[Bound]], *, sure: bool) -> None:
    """Note what names stand for; where it is not `sure` that a statement runs, beside what they stood for."""

    def put(name: str, bound: Bound) -> None:
        into[name] = [bound] if sure else [*into.get(name, []), bound]

    for statement in body:
        match statement:
            case ast.ClassDef(name=name):
                put(name, statement)
            case ast.FunctionDef(name="__getattr__"):
                module.lazy = True
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                put(name, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                put(name, value)
            case ast.Import(names=names):
                for each in names:
                    put(each.asname or each.name.partition(".")[0], Imported(_imported(each)))
            case ast.ImportFrom(names=names):
                for each in names:
                    put(each.asname or each.name, Imported(_from(module, statement), each.name))
            case ast.If():
                _branch(module, statement, into, sure=sure)
            case ast.Try(body=inner, handlers=handlers, orelse=other, finalbody=last):
                _bind(module, [*inner, *other, *last], into, sure=sure)
                for handler in handlers:
                    _bind(module, handler.body, into, sure=False)


def _branch(module: Module, statement: ast.If, into: dict[str, list[Bound]], *, sure: bool) -> None:
    if isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING":
        _bind(module, statement.body, module.told, sure=True)
    holds = _holds(statement.test)
    if holds is not False:
        _bind(module, statement.body, into, sure=sure and holds is True)
    if holds is not True:
        _bind(module, statement.orelse, into, sure=sure and holds is False)


def _holds(test: ast.expr) -> bool | None:
    """Whether a condition holds where the engine runs on NVIDIA GPUs; None for one that is about something else."""
    match test:
        case ast.Name(id="TYPE_CHECKING"):
            return False
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            said = _holds(inner)
            return None if said is None else not said
        case ast.BoolOp(op=operator, values=values):
            told = [_holds(each) for each in values]
            decides = isinstance(operator, ast.Or)
            if decides in told:
                return decides
            return None if None in told else not decides
        case ast.Call(func=ast.Attribute(value=ast.Name(id="current_platform"), attr=name)):
            return True if name in HERE else False if name in ELSEWHERE else None
        case ast.Compare(
            left=ast.Attribute(value=ast.Name(id="current_platform"), attr="device_type"),
            ops=[ast.Eq()],
            comparators=[ast.Constant(value=device)],
        ):
            return bool(device == "cuda")
    return None


def _imported(name: ast.alias) -> str:
    return name.name if name.asname else name.name.partition(".")[0]


def _from(module: Module, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    parts = module.package.split(".")
    package = parts[: len(parts) - statement.level + 1]
    return ".".join([*package, *([statement.module] if statement.module else [])])


def _merged(lines: list[list[Class]]) -> Iterator[Class]:
    """The order of ancestors, of the orders that each parent has and that of the parents."""
    left = [line for line in lines if line]
    while left:
        head = next((line[0] for line in left if not any(line[0] in other[1:] for other in left)), left[0][0])
        yield head
        left = [rest for line in left if (rest := [each for each in line if each != head])]
