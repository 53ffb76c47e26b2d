"""How results are printed: as a table for Emacs' org-mode."""

from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field

from maebench import Report, hookimpl


class OrgTable(Report):
    """A table for org-mode, with a rule below its head."""

    name: ClassVar[str] = "org-table"
    heading: Literal["none", "results"] = Field(
        default="none", description="heading above the table"
    )

    def render(self, table: pd.DataFrame) -> str:
        """The text of a table, whatever its columns: --by and --tidy change them."""
        if table.empty:
            return "no results"
        head = [cell(name) for name in table.columns]
        rows = [[cell(value) for value in row] for row in table.itertuples(index=False)]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        rule = "|-" + "-+-".join("-" * width for width in widths) + "-|"
        lines = [
            "| "
            + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
            + " |"
            for row in [head, *rows]
        ]
        above = ["* Results"] if self.heading == "results" else []
        return "\n".join([*above, lines[0], rule, *lines[1:]])


def cell(value: object) -> str:
    """A cell in one line; a bar would begin another cell."""
    return " ".join(str(value).split()).replace("|", "\\vert{}")


@hookimpl
def register_reports() -> list[type[Report]]:
    """What this package brings; maebench asks when it starts."""
    return [OrgTable]
