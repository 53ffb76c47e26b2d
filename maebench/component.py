"""What a plugin registers: a frozen class whose fields are its options.

One class gives the choice on the command line, the key in YAML, the Python object, the columns of
the table and the row in the docs.
"""

from __future__ import annotations

import json
import os
import re
import sysconfig
import traceback
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from maebench.errors import ConfigError, unknown
from maebench.files import SAFE_NAME

STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep


class Options(BaseModel):
    """A frozen group of settings that refuses what it does not know."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        polymorphic_serialization=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, value: Any) -> Any:
        """Reads what the command line gives as text: `1,5,20` for a tuple, `none` for None."""
        if not isinstance(value, dict):
            return value
        for key in value:
            if key not in cls.model_fields:
                where = cls.name if issubclass(cls, Component) else ""
                if not cls.model_fields:
                    raise ValueError(f"unknown option {key!r}: {where} has no options")
                raise ValueError(unknown("option", str(key), cls.model_fields, where))
        return {key: _from_text(cls.model_fields.get(key), item) for key, item in value.items()}


class Component(Options):
    """A part that can be chosen by name; its fields are its options, its docstring its help.

    A class to register has a `name`; `version` is raised when its numbers change. A name with a
    part after a colon, as in `folder:PATH`, gives that part to the option named by `spec`.
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    spec: ClassVar[str | None] = None
    # options of an instance small enough for the contracts of maebench.testing
    example: ClassVar[Mapping[str, Any]] = {}

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls, value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
        """Reads `"block"`, `"folder:PATH"` or `{"name": "block", ...}` by the table of names.

        The table is the validation context: {kind: {name: class}}.
        """
        if isinstance(value, Component):
            return handler(value)
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping) or ("name" not in value and cls.name):
            return handler(value)
        options = dict(value)
        if "name" not in options:
            raise ValueError(f"the {cls.kind} has no name: give one beside its options")
        name, colon, rest = str(options.pop("name")).partition(":")
        found = look_up(cls, name, info.context)
        if colon and found.spec is None:
            raise ValueError(f"{cls.kind} {name!r} takes nothing after a colon, got {rest!r}")
        if rest and found.spec is not None:
            options.setdefault(found.spec, rest)
        spec = found.spec
        if spec and spec not in options and found.model_fields[spec].is_required():
            raise ValueError(
                f"{cls.kind} {name!r} wants {found.model_fields[spec].description}: "
                f"write {name}:{spec.upper()}"
            )
        if found is cls:
            return handler(options)
        return found.model_validate(options, context=info.context)

    @model_serializer(mode="wrap")
    def _with_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Adds the name, which is no field."""
        return {"name": self.name, **handler(self)}

    @classmethod
    def wrong(cls) -> str | None:
        """Why this class cannot be registered, beyond what is asked of any; None where it can."""
        return None

    @classmethod
    def help(cls) -> str:
        """The first sentence of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    def identity(self) -> dict[str, Any]:
        """What of its options can change numbers, as JSON values; a file counts by its content."""
        return self.model_dump(mode="json")

    def changed(self) -> str:
        """The name and the options that differ from their defaults, in one short text."""
        parts = [f"{key}={value}" for key, value in self.changed_options().items()]
        return self.name + (f"({', '.join(parts)})" if parts else "")

    def changed_options(self) -> dict[str, str]:
        """The options that differ from their defaults, as short texts."""
        defaults = type(self).model_fields
        return {
            key: _short(value)
            for key, value in self
            if value != defaults[key].get_default(call_default_factory=True, validated_data={})
        }


def look_up(cls: type[Component], name: str, context: Any) -> type[Component]:
    """The class of this name in a table of names, which must be of the kind of `cls`.

    Raises:
        ValueError: there is none, or two packages claim it.
    """
    if name and name == cls.name:  # a base class has no name, and cannot be chosen by none
        return cls
    names: Mapping[str, type[Component]] = (context or {}).get(cls.kind, {})
    found = names.get(name)
    if found is None:
        conflict = (context or {}).get("conflicts", {}).get((cls.kind, name))
        if conflict:
            packages = " and ".join(conflict)
            raise ValueError(
                f"{cls.kind} {name!r} is claimed by {packages}: uninstall one of them to use it"
            )
        known = (context or {}).get("origins", {}).get(cls.kind) or names
        raise ValueError(unknown(cls.kind, name, known) + (context or {}).get("missing", ""))
    if not issubclass(found, cls):
        raise ValueError(f"{cls.kind} {name!r} does not fit here: a {cls.name} is asked for")
    return found


def raised_by(error: BaseException) -> list[type[Component]]:
    """The components whose code raised an error itself; none where other code did.

    Only the innermost frame outside of Python's own library counts: an exit that a handler of
    signals or a test runner raises while a component is at work is not the component's.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    while frames and _is_pythons(frames[-1].f_code.co_filename):
        frames.pop()
    module = str(frames[-1].f_globals.get("__name__", "")) if frames else ""
    package = module.split(".")[0]
    near = [cls for cls in _below(Component) if cls.__module__.split(".")[0] == package]
    for frame in reversed(frames):  # the method that led there, where it is one of a component
        own = frame.f_locals.get("self")
        if isinstance(own, Component) and type(own) in near:
            return [type(own)]
    return [cls for cls in near if cls.__module__ == module] or near


def _is_pythons(file: str) -> bool:
    """Whether a file is of Python's own library."""
    return file.startswith(("<frozen", STANDARD_LIBRARY)) and "site-packages" not in file


def _below(cls: type[Component]) -> list[type[Component]]:
    """All classes that inherit from this one and can be chosen by a name."""
    found = [c for sub in cls.__subclasses__() for c in (sub, *_below(sub))]
    return [c for c in dict.fromkeys(found) if c.name]


def check_class(cls: object, base: type[Component]) -> str | None:
    """Why a class cannot be registered as a `base`, in words for its author; None where it can."""
    if not (isinstance(cls, type) and issubclass(cls, base)):
        return f"{cls!r} is not a subclass of maebench.{base.__name__}"
    if "name" in cls.model_fields:
        return f"{cls.__name__}.name must be a ClassVar: name: ClassVar[str] = ..."
    if cls.kind != base.kind:
        return f"{cls.__name__}.kind must stay {base.kind!r}, got {cls.kind!r}"
    if not cls.name:
        return f"{cls.__name__} has no name: add name: ClassVar[str] = ..."
    if not SAFE_NAME.fullmatch(cls.name):  # it becomes a part of folders' and files' names
        return (
            f"{cls.__name__}.name {cls.name!r} may hold letters, digits, '.', '_' and '-' only, "
            "first a letter or digit"
        )
    if not cls.help():
        return f"{cls.__name__} has no docstring: its first line is its help"
    for key, field in cls.model_fields.items():
        if not field.description:
            return f"option {key!r} of {cls.__name__} has no help: Field(..., description=...)"
        if field.default is PydanticUndefined and field.default_factory is None and key != cls.spec:
            return f"option {key!r} of {cls.__name__} has no default"
        if _unhashable(field):
            return f"option {key!r} of {cls.__name__} must be hashable: a tuple, not a list"
    return cls.wrong()


def explain(error: ValidationError, where: str) -> ConfigError:
    """Pydantic's findings as one line: what, where, what was given, what is allowed."""
    found: dict[str, list[str]] = {}
    inputs: dict[str, str] = {}
    for item in error.errors(include_url=False):
        place = ".".join([where, *(str(p) for p in item["loc"] if not _is_tag(p))]).strip(".")
        message = item["msg"].removeprefix("Value error, ")
        found.setdefault(place, []).append(message)
        if item["type"] != "value_error" and not isinstance(item["input"], dict | Component):
            inputs[place] = f", given {_short(item['input'])!r}"
    # several messages for one place are the members of a union: any of them would do
    texts = [f"{p or 'config'}: {' or '.join(m)}{inputs.get(p, '')}" for p, m in found.items()]
    return ConfigError("; ".join(texts))


def _is_tag(part: object) -> bool:
    """Pydantic puts the names of types and validators into a place; a user never wrote them."""
    return isinstance(part, str) and bool(
        re.search(r"^(constrained-|function-)|\[|^(int|float)$", part)
    )


def _short(value: object) -> str:
    return json.dumps(value, default=str).strip('"') if not isinstance(value, str) else value


def _unhashable(field: FieldInfo) -> bool:
    kinds = {typing.get_origin(t) or t for t in _members(field.annotation)}
    return bool(kinds & {list, dict, set})


def _members(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [m for part in typing.get_args(annotation) for m in _members(part)]
    return [annotation]


def _from_text(field: FieldInfo | None, value: Any) -> Any:
    if field is None or not isinstance(value, str):
        return value
    members = _members(field.annotation)
    if type(None) in members and value.lower() == "none":
        return None
    wants_tuple = takes_several(field)
    # "16" for `int | tuple` is an int: only a comma makes it a tuple there
    if wants_tuple and ("," in value or len([m for m in members if m is not type(None)]) == 1):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def takes_several(field: FieldInfo) -> bool:
    """Whether a value of this option is, or may be, several values in a tuple."""
    return any((typing.get_origin(m) or m) is tuple for m in _members(field.annotation))


def parse(cls: type[Component], value: Any, context: Mapping[str, Any], where: str) -> Any:
    """A component from a name, a mapping or an object, with errors in one line.

    Raises:
        ConfigError: unknown name or option, or a value out of range.
    """
    try:
        return cls.model_validate(value, context=context)
    except ValidationError as error:
        raise explain(error, where) from error


__all__ = [
    "Component",
    "Options",
    "Self",
    "check_class",
    "explain",
    "look_up",
    "parse",
    "raised_by",
]
