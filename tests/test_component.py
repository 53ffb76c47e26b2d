"""Components: one class is the choice, the options, the help and what is written down."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from maebench.component import Component, Options, check_class, explain, parse
from maebench.errors import ConfigError


class Shape(Component):
    """Something with an outline."""

    kind: ClassVar[str] = "shape"


class Square(Shape):
    """A square: all sides are equal.

    More words.
    """

    name: ClassVar[str] = "square"
    side: int = Field(2, gt=0, description="length of a side")
    colour: str | None = Field("red", description="its colour")
    tries: tuple[float, ...] = Field((0.5, 1.0), description="what to try")
    span: tuple[int, int] | None = Field(None, description="from, to")
    patch: int | tuple[int, int] = Field(4, description="a side or two")


class Rounded(Square):
    """A square without corners."""

    name: ClassVar[str] = "rounded"
    radius: float = Field(0.1, ge=0, lt=1, description="radius of a corner")


class Read(Shape):
    """A shape in a file."""

    name: ClassVar[str] = "read"
    spec: ClassVar[str | None] = "path"
    path: str = Field(description="where it lies")


class Other(Component):
    """Of another kind."""

    kind: ClassVar[str] = "other"
    name: ClassVar[str] = "other"


class Drawing(Options):
    first: Shape = Field(Square(), description="one")
    more: tuple[Shape, ...] = Field((), description="several")
    best: Shape | None = Field(None, description="perhaps one")


SHAPES = {"square": Square, "rounded": Rounded, "read": Read}
CONTEXT: dict[str, Any] = {"shape": SHAPES, "other": {"other": Other}}


def read(value, cls=Shape, context=CONTEXT):
    return parse(cls, value, context, "--shape")


def refused(value, cls=Shape, context=CONTEXT):
    with pytest.raises(ConfigError) as caught:
        read(value, cls, context)
    message = str(caught.value)
    assert message.startswith("--shape") and "\n" not in message
    # pydantic's words begin with a capital, in the middle of our line or not
    return message.replace("Input", "input").replace("Field", "field")


# --- names


def test_a_name_a_mapping_and_an_object_are_the_same_component():
    for value in ("rounded", {"name": "rounded"}, Rounded()):
        assert read(value) == Rounded() and type(read(value)) is Rounded
    assert read({"name": "rounded", "radius": "0.5", "side": 3}) == Rounded(radius=0.5, side=3)


def test_what_follows_a_colon_is_the_option_that_the_class_says():
    assert read("read:/a:b,c").path == "/a:b,c"
    assert read({"name": "read:/a"}).path == "/a"
    assert "takes nothing after a colon, got 'x'" in refused("square:x")
    assert refused("read") == "--shape: shape 'read' wants where it lies: write read:PATH"


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
    assert refused("squar") == (
        "--shape: unknown shape 'squar'. Did you mean 'square'? There is: read, rounded, square"
    )


def test_names_from_packages_are_listed_with_their_package():
    origins = {"shape": ["square", "star (stars-package)"]}
    message = refused("str", context={**CONTEXT, "origins": origins})
    assert message.endswith("There is: square, star (stars-package)")


def test_a_name_that_two_packages_claim_names_both():
    conflicts = {("shape", "star"): ("one (a)", "two (b)")}
    message = refused("star", context={**CONTEXT, "conflicts": conflicts})
    assert "claimed by one (a) and two (b)" in message


def test_a_component_of_another_kind_or_a_value_of_another_type_is_refused():
    for value in (Other(), Square, 3, None, ["square"], 1.5):
        assert "should be a valid dictionary or instance of Shape" in refused(value)
    assert "does not fit here" in refused("square", cls=Rounded)


def test_an_empty_name_is_unknown_and_not_the_base_class():
    for value in ("", {"name": ""}, ":x"):
        assert "unknown shape ''" in refused(value)


def test_options_without_a_name_are_refused_where_no_name_is_known():
    assert "the shape has no name" in refused({"side": 3})
    assert read({"side": 3}, cls=Square) == Square(side=3)


# --- options


@pytest.mark.parametrize(
    ("option", "given_value", "place"),
    [
        ("side", 0, "--shape.side"),
        ("side", "two", "--shape.side"),
        ("radius", 1, "--shape.radius"),
        ("radius", float("nan"), "--shape.radius"),
        ("radius", "inf", "--shape.radius"),
        ("tries", (0.5, float("nan")), "--shape.tries.1"),
        ("tries", "0.5,x", "--shape.tries.1"),
        ("span", "1,2,3", "--shape.span"),
        ("span", "3", "--shape.span.1"),
        ("patch", "x", "--shape.patch"),
    ],
)
def test_a_bad_value_is_named_with_its_place_and_what_was_given(option, given_value, place):
    message = refused({"name": "rounded", option: given_value})
    assert all(part.startswith("--shape." + option) for part in message.split("; "))
    assert (message.startswith(place + ":") and "given" in message) or "required" in message


@pytest.mark.parametrize("key", ["sides", 3, ("a", "b"), None])
def test_an_unknown_option_is_named_with_those_there_are(key):
    message = refused({"name": "square", key: 3})
    assert f"unknown option {str(key)!r} in square" in message
    assert message.endswith("There is: colour, patch, side, span, tries")


def test_all_mistakes_are_told_at_once():
    message = refused({"name": "rounded", "side": -1, "radius": 7})
    assert "--shape.side: input should be greater than 0, given '-1'" in message
    assert "; --shape.radius: input should be less than 1, given '7'" in message


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("tries", "1,5,20", (1.0, 5.0, 20.0)),
        ("tries", "5", (5.0,)),
        ("tries", " 1 , 2,", (1.0, 2.0)),
        ("tries", "", ()),
        ("span", "1,2", (1, 2)),
        ("span", "none", None),
        ("span", "None", None),
        ("colour", "none", None),
        ("colour", "a,b", "a,b"),
        ("patch", "8", 8),
        ("patch", "8,4", (8, 4)),
        ("side", "7", 7),
    ],
)
def test_text_from_the_command_line_is_read(option, text, value):
    assert getattr(read({"name": "square", option: text}), option) == value


def test_none_is_no_value_where_none_is_not_allowed():
    assert "--shape.side" in refused({"name": "square", "side": "none"})


def test_a_default_that_is_out_of_range_does_not_slip_through():
    class Wrong(Square):
        """Its default is no length."""

        side: int = Field(-1, gt=0, description="length of a side")

    with pytest.raises(ValidationError):
        Wrong()


def test_a_component_is_frozen_hashable_and_equal_by_value():
    one, same, other = Square(side=3), Square(side=3), Square(side=4)
    assert one == same and hash(one) == hash(same) and one != other
    assert len({one, same, other, Rounded(side=3)}) == 3
    with pytest.raises(ValidationError, match="frozen"):
        one.side = 4
    with pytest.raises(ValidationError):
        Square(sides=3)


# --- there and back

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
squares = st.builds(
    Square,
    side=st.integers(1, 10**9),
    colour=st.none() | st.text(max_size=5).filter(lambda t: t.lower() != "none"),
    tries=st.lists(numbers, max_size=3).map(tuple),
    span=st.none() | st.tuples(st.integers(), st.integers()),
    patch=st.integers(1, 99) | st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
shapes = (
    squares
    | st.builds(Rounded, radius=st.floats(0, 1, exclude_max=True))
    | st.builds(Read, path=st.text(max_size=5).filter(lambda t: t.lower() != "none"))
)


@given(
    st.builds(
        Drawing, first=shapes, more=st.lists(shapes, max_size=3).map(tuple), best=st.none() | shapes
    )
)
def test_what_is_dumped_is_read_back_as_the_same_classes_with_the_same_options(drawing):
    for mode in ("python", "json"):
        dumped = drawing.model_dump(mode=mode)
        assert dumped["first"]["name"] == drawing.first.name
        back = Drawing.model_validate(dumped, context=CONTEXT)
        assert back == drawing
        assert [type(s) for s in back.more] == [type(s) for s in drawing.more]
    assert Drawing.model_validate_json(drawing.model_dump_json(), context=CONTEXT) == drawing


def test_a_subclass_in_a_field_of_its_base_keeps_its_own_options():
    dumped = Drawing(first=Rounded(radius=0.3), more=(Read(path="x"), Square())).model_dump()
    assert dumped["first"]["radius"] == 0.3 and dumped["first"]["name"] == "rounded"
    assert [s["name"] for s in dumped["more"]] == ["read", "square"]


def test_what_differs_from_the_defaults_is_one_short_text():
    assert Square().changed() == "square"
    assert Square(side=3, span=(1, 2)).changed() == "square(side=3, span=[1, 2])"
    assert Read(path="/a").changed() == "read(path=/a)"


def test_the_help_is_the_first_line_of_the_docstring():
    assert Square.help() == "A square: all sides are equal."


# --- what may be registered


def test_a_proper_class_may_be_registered():
    assert [check_class(c, Shape) for c in (Square, Rounded, Read)] == [None] * 3


def no_class():
    return "Square"


def an_object():
    return Square()


def another_kind():
    return Other


def no_name():
    class A(Shape):
        """Help."""

    return A


def name_as_field():
    class A(Shape):
        """Help."""

        name: str = Field("a", description="a field that hides the class's name")  # type: ignore

    return A


def renamed_kind():
    class A(Shape):
        """Help."""

        kind: ClassVar[str] = "figure"
        name: ClassVar[str] = "a"

    return A


def colon_in_name():
    class A(Shape):
        """Help."""

        name: ClassVar[str] = "a:b"

    return A


def no_docstring():
    class A(Shape):
        name: ClassVar[str] = "a"

    return A


def option_without_help():
    class A(Shape):
        """Help."""

        name: ClassVar[str] = "a"
        side: int = 3

    return A


def option_without_default():
    class A(Shape):
        """Help."""

        name: ClassVar[str] = "a"
        side: int = Field(description="a side")

    return A


def option_that_is_a_list():
    class A(Shape):
        """Help."""

        name: ClassVar[str] = "a"
        sides: list[int] = Field([], description="sides")

    return A


def option_that_is_perhaps_a_dict():
    class A(Shape):
        """Help."""

        name: ClassVar[str] = "a"
        sides: dict[str, int] | None = Field(None, description="sides")

    return A


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (no_class, "'Square' is not a subclass of maebench.Shape"),
        (an_object, "is not a subclass of maebench.Shape"),
        (another_kind, "is not a subclass of maebench.Shape"),
        (no_name, "A has no name: add name: ClassVar"),
        (name_as_field, "A.name must be a ClassVar"),
        (renamed_kind, "A.kind must stay 'shape', got 'figure'"),
        (colon_in_name, "A.name 'a:b' may hold letters, digits, '.', '_' and '-' only"),
        (no_docstring, "A has no docstring"),
        (option_without_help, "option 'side' of A has no help"),
        (option_without_default, "option 'side' of A has no default"),
        (option_that_is_a_list, "option 'sides' of A must be hashable: a tuple, not a list"),
        (option_that_is_perhaps_a_dict, "option 'sides' of A must be hashable"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@pytest.mark.filterwarnings("ignore:Field name:UserWarning")
def test_a_class_that_breaks_the_contract_is_told_how(make, complaint):
    assert complaint in (check_class(make(), Shape) or "no complaint")


def test_pydantics_findings_become_one_line_without_its_own_words():
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(
            {"more": ["square", {"name": "rounded", "patch": "x"}]}, context=CONTEXT
        )
    message = str(explain(caught.value, ""))
    assert "\n" not in message and "function" not in message and "int:" not in message
    assert {part.split(":")[0] for part in message.split("; ")} == {"more.1.patch"}
