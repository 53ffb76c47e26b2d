"""What a type checker sees of the public names, as it does in an author's package."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import maebench

ROOT = Path(__file__).parent.parent
# How names are used, and the type that has to come of it.
USES = {
    "maebench.run(RunConfig(masking=Block(aspect=0.5), ratio=0.6))": "DataFrame",
    "maebench.load_records()": "DataFrame",
    "maebench.load_model('')": "LoadedModel",
    "maebench.load_model('').encode(images)": "Tensor",
    "RunConfig().ratio": "float",
    "RunConfig().masking": "Masking",
    "ViTNano().build(Inputs.of_images(1, (8, 8)))(images, mask).patches": "Tensor",
    "MAE(loss='l1').build(encoder, Inputs.of_images(1, (8, 8)))": "Module",
    "Metric.accuracy()": "Metric",
    "choose([0.1, 0.2]).where(1)": "dict[str, bool]",
    "mask.hidden": "Tensor",
    "view.draws.uniform(2)": "Tensor",
    "model.features('test')": "Tensor",
}
AUTHOR = """
from __future__ import annotations
from torch import Tensor
import maebench
from maebench import MAE, Block, EncoderModule, Inputs, Mask, Metric, Model, RunConfig, ViTNano, View
from maebench import choose
def author(
    images: Tensor, mask: Mask, view: View, model: Model, encoder: EncoderModule
) -> None:
"""


def readme(pattern):
    """The block of Python in the README that has this in it."""
    found = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    (block,) = [text for text in found if pattern in text]
    return block


@pytest.mark.slow
def test_no_public_name_is_any_and_what_authors_write_is_typed(tmp_path):
    names = [name for name in maebench.__all__ if name != "__version__"]
    shown = [f"maebench.{name}" for name in names] + list(USES)
    lines = "".join(f"    reveal_type({text})\n" for text in shown)
    (tmp_path / "author.py").write_text(AUTHOR + lines, encoding="utf-8")
    example = "from torch import Tensor\nimages: Tensor\n" + readme("maebench.run(")
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    (tmp_path / "diagonals.py").write_text(readme("@hookimpl"), encoding="utf-8")
    ran = subprocess.run(
        # a folder and a configuration of its own: maebench is a package that is installed
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--config-file", os.devnull),
            *("--cache-dir", str(ROOT / ".mypy_cache" / "author"), "--allow-untyped-calls"),
            *("author.py", "example.py", "diagonals.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    revealed = re.findall(r'author\.py:\d+: note: Revealed type is "(.*)"', ran.stdout)
    rest = [line for line in ran.stdout.splitlines() if "note: Revealed" not in line]
    assert (rest[:-1], ran.returncode) == ([], 0), ran.stdout
    found = dict(zip(shown, revealed, strict=True))
    assert [name for name, kind in found.items() if kind.rpartition("-> ")[2] in ("Any", "")] == []
    short = {text: re.sub(r"[\w.]+\.(\w+)", r"\1", found[text]) for text in USES}
    assert {text: kind.removeprefix("builtins.") for text, kind in short.items()} == USES


@pytest.mark.parametrize("folder", ["maebench", "plugins", "docs/examples", "tests/packages"])
def test_a_default_stands_by_its_keyword_as_type_checkers_want_it(folder):
    found = [
        f"{path}:{node.lineno}"
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Field" and node.args
    ]
    assert found == []
