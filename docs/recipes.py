"""Writes docs/recipes.md: what recipes are, and a table of those that ship, from their headers."""

from __future__ import annotations

import re
from pathlib import Path

from maebench.config.recipes import HEADER, header, recipe_names

PAGE = Path(__file__).with_name("recipes.md")
SAYS = """
A recipe is a file of settings that were published, or measured by us, with the source of every
value beside it: `paper`, `code`, or `ours` with the reason. It is written as `--config` takes it,
ships with maebench, and lies in [maebench/config/recipes](../maebench/config/recipes).

```sh
maebench list recipes
maebench run --recipe mae-digits
maebench run --recipe mae-cifar10 --data-dir DIR --ratio 0.6 --override
maebench pretrain --recipe mae-vit-base-imagenet-800 --data-dir DIR
```

```python
config = maebench.RunConfig(**maebench.recipe("mae-digits"))
```

Flags, `-o` and `--config` lie above the recipe, the data set's preset below. Free to give are
`--data-dir`, `--download`, `--device`, `--seed`, `--results`, `--on-bad-image`, `-o machine.*` but
the precision, and `--evals`, which evaluations to run. What else says something different from the
recipe is refused in one line, so that no run is called by a recipe that it did not follow:

```
$ maebench run --recipe mae-digits --ratio 0.5
Error: --recipe mae-digits says otherwise: ratio: recipe 0.75, given 0.5. --override runs it all \
the same and keeps a note of it
```

With `--override` it runs, prints what differs, and writes it into the run's `config.json` beside
the recipe's name and the hash of its settings; `maebench.load_records()` and `maebench table
--tidy` have the columns `recipe` and `overrides`. A run is known by its settings and not by where
they come from: the same settings without the recipe are the same run, and a run that was there
before keeps its `config.json` as it is. So do settings that `maebench.recipe` gave to Python: their
run names no recipe.
"""
COLUMNS = ("title", *(key for key in HEADER if key != "command"))  # of the table


def page() -> str:
    """The whole page."""
    rows = [
        ["recipe", "what", *COLUMNS[1:]],
        ["---"] * (1 + len(COLUMNS)),
        *([_link(name), *(header(name)[c] for c in COLUMNS)] for name in recipe_names()),
    ]
    table = "\n".join("| " + " | ".join(re.sub(r"\|", r"\\|", c) for c in r) + " |" for r in rows)
    return (
        "\n\n".join(
            [
                "# Recipes",
                "Made by `python docs/generate.py` from the recipes; a test compares them.",
                SAYS.strip(),
                "## Those that ship",
                "Top-1 in %. Hardware, hours and expected numbers are those of the sources beside "
                "them; `not measured` means that we have none of our own.",
                table,
            ]
        )
        + "\n"
    )


def _link(name: str) -> str:
    return f"[{name}](../maebench/config/recipes/{name}.yaml)"
