"""What every contract shares: its checks, its findings, and the values that options can take."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import json
import random
import traceback
import unittest
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from maebench.component import Component, check_class, parse
from maebench.errors import ConfigError, unknown
from maebench.plugins import installed

T = TypeVar("T")
PREFIX = "test_"  # pytest's: a contract's checks are the tests of the class that inherits it


class Broken(AssertionError):
    """A component does not keep to its contract; the message speaks to its author."""


class NotChecked(unittest.SkipTest):
    """A check cannot be made of this component here; the message says why. To pytest, a skip."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: its name as a sentence.
        status: "pass", "fail" or "not checked".
        reason: why it failed or could not be made, in words for the plugin's author.
    """

    check: str
    status: str
    reason: str = ""


def expect(holds: object, message: str) -> None:
    """Fails the check unless something holds.

    Raises:
        Broken: with the message.
    """
    if not holds:
        raise Broken(message)


def expect_tensor(
    x: Any, what: str, shape: tuple[int | None, ...], dtype: torch.dtype | None = torch.float32
) -> None:
    """Fails the check unless something is a finite tensor of this shape and dtype.

    Args:
        x: what should be a tensor.
        what: its name in the message.
        shape: its sizes, None where any size will do.
        dtype: of its values; None for any float.
    """
    expect(isinstance(x, torch.Tensor), f"{what} is {type(x).__name__}, not a tensor")
    got, named = tuple(x.shape), ", ".join("any" if n is None else str(n) for n in shape)
    fits = len(got) == len(shape) and all(w in (n, None) for n, w in zip(got, shape, strict=True))
    expect(fits, f"{what} has shape {got}, must be ({named})")
    kept = x.is_floating_point() if dtype is None else x.dtype == dtype
    expect(kept, f"{what} is {x.dtype}, not {dtype or 'a float'}")
    expect(x.isfinite().all(), f"{what} holds numbers that are not finite")


class Contract:
    """Checks that a component keeps to its kind's contract; inherit it in a test class.

        class TestMine(MaskingContract):
            component = Mine

    `component` is a class, then built with its `example` options, or an object. `variants` gives
    values to try for options whose type does not list them, beside `Field(examples=[...])`.
    `expected_failures` names checks that fail for a known reason; one that passes all the same
    fails. Every method `test_...` is one check.
    """

    kind: ClassVar[str] = ""
    component: ClassVar[Component | type[Component]]
    variants: ClassVar[Mapping[str, Sequence[Any]]] = {}
    expected_failures: ClassVar[Mapping[str, str]] = {}
    _kept: ClassVar[dict[Any, Any]] = {}

    def __init_subclass__(cls, **more: Any) -> None:
        """Turns the checks that are expected to fail into pytest's expected failures."""
        super().__init_subclass__(**more)
        cls._kept = {}
        for name, reason in cls.__dict__.get("expected_failures", {}).items():
            if not callable(getattr(cls, name, None)):
                checks = [n for n in dir(cls) if n.startswith(PREFIX)]
                raise TypeError(unknown("check", name, checks, f"{cls.__name__}.expected_failures"))
            setattr(cls, name, _expected_to_fail(getattr(cls, name), reason))

    @classmethod
    def checks(cls) -> list[str]:
        """The names of the checks, in the order in which they are written."""
        found: dict[str, None] = {}
        for base in reversed(cls.__mro__):
            found |= dict.fromkeys(name for name in vars(base) if name.startswith(PREFIX))
        return list(found)

    def kept(self, what: Any, make: Callable[[], T]) -> T:
        """What `make` gives, made once for all checks of a test class."""
        if what not in self._kept:
            self._kept[what] = make()
        found: T = self._kept[what]
        return found

    def made(self, **options: Any) -> Any:
        """The component as an object, some of its options set."""
        if isinstance(self.component, Component):
            return changed(self.component, **options) if options else self.component
        cls, options_of = self.component, {**self.component.example, **options}
        if cls.spec and cls.spec not in options_of and cls.model_fields[cls.spec].is_required():
            raise NotChecked(
                f"{cls.name} wants {cls.spec} ({cls.model_fields[cls.spec].description}): give "
                f"component = {cls.__name__}({cls.spec}=...)"
            )
        try:
            return cls(**options_of)
        except ValidationError as error:
            if options:
                raise
            raise Broken(
                f"{cls.__name__} cannot be made without options: {error}; give every "
                "option a default, or example: ClassVar = {...} with what a small one needs"
            ) from error

    # ---- options

    def variations(self, option: str) -> list[Any]:
        """The component with one option changed, over the values it declares.

        Raises:
            Broken: no value but the default is known.
        """
        base = self.made()
        values = [*self.variants.get(option, ()), *declared_values(base, option)]
        kind = getattr(type(base).model_fields[option].annotation, "kind", None)
        values += [c() for c in (installed().table[kind].values() if kind else ()) if not c.spec]
        found = []
        for value in values:
            if value == getattr(base, option):
                continue
            made = self._made_with(option, value)
            named = value in self.variants.get(option, ())
            expect(made or not named, f"option {option!r} refuses {value!r} of variants")
            found += [one for one in made if one not in found]
        expect(
            found,
            f"option {option!r}: no value but {getattr(base, option)!r} is known to try; give "
            f"Field(..., examples=[...]) or variants = {{{option!r}: [...]}}",
        )
        return found

    def _made_with(self, option: str, value: Any) -> list[Any]:
        """The component with this value of an option, in each of its protocols that take it.

        One of several protocols may read options that the others refuse; so may one value of any
        other choice, which is tried where the value is refused in all protocols.
        """
        choices = self._choices(option)
        for settings in ([{}, *(c for c in choices if "protocol" in c)], choices):
            found = []
            for setting in settings:
                with contextlib.suppress(ValidationError):  # a bound that the schema does not state
                    found.append(self.made(**{option: value, **setting}))
            if found:
                return found
        return []

    def _choices(self, option: str) -> list[dict[str, str]]:
        """Each word that another option can be."""
        base = self.made()
        return [
            {other: word}
            for other in type(base).model_fields
            for word in declared_values(base, other)
            if other != option and isinstance(word, str) and word != getattr(base, other)
        ]

    def check_options(
        self, outcomes: Callable[[Any], Iterable[tuple[str, Any]]], unmoved: str
    ) -> None:
        """Each option moves, with some value that it declares, what comes of the component.

        Args:
            outcomes: what comes of a component in each setting that takes it: the setting's name,
                and something to compare.
            unmoved: what an option that does nothing changes, such as "no number".
        """
        base = self.made()
        # what a spec names, such as a path, is another component and no setting of this one
        options = [o for o in type(base).model_fields if o != base.spec or o in self.variants]
        if not options:
            raise NotChecked("it has no options")
        known: dict[Any, tuple[dict[str, Any], Iterator[tuple[str, Any]]]] = {}

        def outcome_of(made: Any, setting: str) -> Any:
            if made not in known:
                known[made] = ({}, iter(outcomes(made)))
            found, rest = known[made]
            while setting not in found and (following := next(rest, None)):
                found[following[0]] = following[1]
            return found.get(setting)

        def moves(tried: list[Any], option: str) -> Iterator[bool]:
            for choice, made in itertools.product(({}, *self._choices(option)), tried):
                # an option that one choice reads may be taken, and do nothing, under the others
                try:
                    one = changed(made, **choice)
                    start = changed(one, **{option: getattr(base, option)})
                except ValidationError:
                    continue
                for setting, outcome in outcomes(one):
                    yield not same(outcome, outcome_of(start, setting))

        for option in options:
            now, tried = getattr(base, option), _near(base, option, self.variations(option))
            values = ", ".join(repr(getattr(made, option)) for made in tried)
            variants = f"variants = {{{option!r}: [...]}}"
            moved = moves(tried, option)
            first = next(moved, None)
            expect(
                first is not None,
                f"option {option!r}: each value tried ({values}) is refused in every setting; give "
                f"Field(..., examples=[...]) or {variants}",
            )
            expect(
                first or any(moved),
                f"option {option!r} changes {unmoved}: {now!r} gives what {values} give; read it "
                f"or drop it, or name values that matter in {variants}",
            )

    # ---- the checks of every kind

    def test_it_is_documented_and_can_be_registered(self) -> None:
        """Name, docstring, and help and a default for each option."""
        base = type(self.made())
        root = next(c for c in base.__mro__ if "kind" in vars(c) and vars(c)["kind"] == self.kind)
        wrong = check_class(base, root)
        expect(wrong is None, str(wrong))

    def test_it_survives_json_and_back(self) -> None:
        """What is written into a run's config gives the same component when it is read."""
        made = self.made()
        names = installed().context()  # an option may hold a component of another kind
        names[made.kind] = {**names[made.kind], made.name: type(made)}
        options = [made]
        for option in type(made).model_fields:
            try:
                options += self.variations(option)
            except Broken:
                continue  # another check says so
        for one in options:
            text = json.dumps(one.model_dump(mode="json"))
            try:
                read = parse(type(made), json.loads(text), names, made.kind)
            except ConfigError as error:
                raise Broken(f"written as {text}, it cannot be read back: {error}") from error
            expect(read == one, f"written as {text}, it is read back as {read!r}")


def declared_values(made: Component, option: str) -> list[Any]:
    """Values of an option that its type, bounds and examples declare, near the present first."""
    schema = _schema(type(made))
    field = schema["properties"].get(option, {})
    field = {**schema.get("$defs", {}).get(str(field.get("$ref", "")).split("/")[-1], {}), **field}
    now = getattr(made, option)
    found = list(field.get("examples", []))
    for kind in field.get("anyOf", [field]):
        found += kind.get("enum", [])
        found += [kind["const"]] if "const" in kind else []
        if kind.get("type") == "boolean":
            found += [True, False]
        if kind.get("type") == "null":
            found.append(None)
        if kind.get("type") in ("integer", "number"):
            found += _numbers(kind, now if isinstance(now, int | float) else None)
    return found


@functools.lru_cache(maxsize=8)  # it takes ten milliseconds, and is asked for by the hundred
def _schema(cls: type[Component]) -> dict[str, Any]:
    return cls.model_json_schema()


def _numbers(schema: Mapping[str, Any], now: float | None) -> list[float]:
    """Some numbers between the bounds of a schema: around the present, the ends, the middle."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    step = schema.get("multipleOf", 1)
    start = now if now is not None else low if low is not None else 1
    high = None if (high or 0) > 32 * max(abs(start), 8) else high  # far off: a machine's limit
    found = [start * 2, start / 2, start + step, start - step]
    found += [end for end in (low, high) if end is not None]
    if low is not None and high is not None:
        found += [(low + high) / 2, low + (high - low) / 8, high - (high - low) / 8]
    if schema["type"] == "integer":
        return list(dict.fromkeys(int(value // step * step) for value in found))
    return list(dict.fromkeys(float(value) for value in found))


def _near(base: Component, option: str, tried: list[Any]) -> list[Any]:
    """Components with one option changed, numbers near the base's first: large ones are slow."""
    start = getattr(base, option)

    def far(one: Any) -> float:
        value = getattr(one, option)
        numbers = all(isinstance(n, int | float) for n in (start, value))
        return abs(value - start) if numbers else 0.0

    return sorted(tried, key=far)


def changed(component: Any, **options: Any) -> Any:
    """A component with some of its options set, the others as they are."""
    now = {key: getattr(component, key) for key in type(component).model_fields}
    return type(component)(**{**now, **options})


def same(one: Any, other: Any) -> bool:
    """Whether two things are equal, tensors in them by all of their values."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(x, other[key]) for key, x in one.items())
    return type(one) is type(other) and bool(one == other)


def global_state() -> dict[str, bytes]:
    """The global random state of torch, numpy and Python, to compare."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": repr((kind, np.asarray(keys).tobytes(), rest)).encode(),
        "random": repr(random.getstate()).encode(),
    }


def _expected_to_fail(check: Any, reason: str) -> Any:
    @functools.wraps(check)
    def expected(self: Contract) -> None:
        try:
            check(self)
        except Exception:
            pytest.xfail(reason)
        raise Broken(f"it passes: take {check.__name__!r} out of expected_failures")

    return expected


def examine(contract: type[Contract]) -> Iterator[Finding]:
    """Makes every check of a contract without pytest, one finding after the other."""
    for name in contract.checks():
        sentence = name.removeprefix(PREFIX).replace("_", " ")
        try:
            getattr(contract(), name)()
        except NotChecked as error:
            yield Finding(sentence, "not checked", str(error))
        except Broken as error:
            yield Finding(sentence, "fail", " ".join(str(error).split()))
        except KeyboardInterrupt:
            raise
        # not only an Exception: a plugin that ends the interpreter must not end the report
        except BaseException as error:
            yield Finding(sentence, "fail", described(error, contract.component))
        else:
            yield Finding(sentence, "pass")


def described(error: BaseException, component: Any) -> str:
    """An exception in one line, with the place in the plugin's own file where it arose."""
    cls = component if isinstance(component, type) else type(component)
    home = None
    with contextlib.suppress(TypeError, OSError):  # a class that no file holds
        home = inspect.getsourcefile(cls)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if home and Path(frame.filename) == Path(home)]
    at = (own or frames)[-1]
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message} ({Path(at.filename).name}:{at.lineno})"
