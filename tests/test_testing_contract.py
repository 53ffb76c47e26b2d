"""What every contract shares: values to try of an option, and whether it changes anything."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from pydantic import Field

from maebench import testing
from maebench.component import Component
from maebench.testing.contract import Broken, Contract, NotChecked, expect_tensor, same


class Part(Component):
    """Something with options."""

    kind: ClassVar[str] = "part"
    name: ClassVar[str] = "part"
    mode: Literal["plain", "scaled"] = Field("plain", description="what is done")
    scale: float = Field(1.0, gt=0, le=4, description="of scaled: a factor")


def contract(component, **more):
    return type("Made", (Contract,), {"kind": "part", "component": component, **more})()


def outcomes(part):
    yield "always", {"mode": part.mode}
    if part.mode == "scaled":
        yield "scaled", torch.tensor([part.scale])


def test_an_option_that_another_choice_reads_is_looked_for_under_it():
    contract(Part).check_options(outcomes, "nothing")


def test_an_option_that_nothing_reads_is_named_with_what_was_tried():
    def blind(part):
        yield "always", {"mode": part.mode}

    with pytest.raises(Broken, match="'scale' changes nothing: 1.0 gives what 0.5, 2.0, .* give"):
        contract(Part).check_options(blind, "nothing")


def test_an_option_that_is_refused_everywhere_wants_values():
    def strict(part):
        if part.scale == 1:
            yield "always", {"mode": part.mode}

    with pytest.raises(Broken, match="'scale': each value tried .* is refused in every setting"):
        contract(Part).check_options(strict, "nothing")


def test_a_part_without_options_is_not_checked():
    class Bare(Component):
        """Nothing to choose."""

        kind: ClassVar[str] = "part"
        name: ClassVar[str] = "bare"

    with pytest.raises(NotChecked, match="no options"):
        contract(Bare).check_options(outcomes, "nothing")


def test_what_is_compared_is_made_once_for_each_component():
    made = []

    def counted(part):
        made.append(part)
        return outcomes(part)

    contract(Part).check_options(counted, "nothing")
    assert made.count(Part()) == 1


def test_what_is_kept_belongs_to_one_test_class():
    one, other = contract(Part), contract(Part)
    assert [one.kept("x", lambda: 1), one.kept("x", lambda: 2), other.kept("x", lambda: 3)] == [
        *(1, 1, 3)
    ]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.zeros(2), False),
        (torch.ones(2), None, False),
        ({"a": torch.ones(1)}, {"a": torch.ones(1)}, True),
        ({"a": torch.ones(1)}, {"b": torch.ones(1)}, False),
        (1, True, False),
        ((1, 2), (1, 2), True),
    ],
)
def test_tensors_are_compared_by_their_values(one, other, equal):
    assert same(one, other) == equal


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([0.0], "it is list, not a tensor"),
        (torch.ones(2, 3), r"it has shape \(2, 3\), must be \(2, any, 4\)"),
        (torch.ones(2, 3, 5), r"it has shape \(2, 3, 5\)"),
        (torch.ones(2, 3, 4, dtype=torch.float64), "it is torch.float64, not torch.float32"),
        (torch.full((2, 3, 4), torch.nan), "not finite"),
    ],
)
def test_a_tensor_of_another_kind_is_described(x, words):
    with pytest.raises(Broken, match=words):
        expect_tensor(x, "it", (2, None, 4))
    expect_tensor(torch.ones(2, 3, 4), "it", (2, None, 4))
    expect_tensor(torch.ones(2, 3, 4, dtype=torch.bfloat16), "it", (2, None, 4), None)


def test_a_type_checker_sees_the_public_names_that_are_there():
    tree = ast.parse(Path(testing.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert {node.names[0].asname: node.module for node in block.body} == {
        name: f"maebench.testing.{module}" for name, module in testing._PUBLIC.items()
    }
