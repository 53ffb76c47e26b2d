"""How long a run is, as a setting; a module that imports no torch, so flags are read by it."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pydantic import Field, PositiveFloat, model_serializer, model_validator

from maebench.component import Options

MOST = 1e30  # of any unit: all models ever trained took some 1e28 flops
Unit = Literal["epochs", "steps", "tokens", "flops", "seconds"]


class Budget(Options):
    """How long to pretrain: `epochs=N`, `steps=N`, `tokens=N`, `flops=N` or `seconds=N`.

    tokens are patches that the encoder sees; flops are those of encoder and decoder, forward and
    backward, counted with the plain attention kernel; neither is exceeded. Objectives and ratios
    compare at equal cost by flops. seconds depend on the machine: the rate follows the clock, and
    what is interrupted does not go on bit for bit.
    """

    unit: Unit = Field(default="epochs", description="what is counted")
    amount: PositiveFloat = Field(default=100, le=MOST, description="how many")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"\s*(\w+)\s*=\s*(-?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*", value)
        if not match or match[1] not in get_args(Unit):
            units = ", ".join(f"{unit}=N" for unit in get_args(Unit))
            raise ValueError(f"write one of {units}; given {value!r}")
        return {"unit": match[1], "amount": match[2]}

    def model_post_init(self, _: object) -> None:
        """Refuses a part of a step."""
        if self.unit == "steps" and not self.amount.is_integer():
            raise ValueError(f"steps are whole, given {self.amount}")

    @model_serializer
    def _write(self) -> str:
        return str(self)

    def __str__(self) -> str:
        # exactly: two lengths never have one text, and the text can be read back
        return f"{self.unit}={int(self.amount) if self.amount.is_integer() else self.amount}"

    @property
    def seconds(self) -> float | None:
        """How long by the clock; None where something else is counted."""
        return self.amount if self.unit == "seconds" else None
