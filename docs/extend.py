"""Writes docs/extend/KIND.md: a page per extension point, from the code and from SAYS."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from maebench.encoders.encoder import EncoderModule, Tokens
from maebench.evaluation import Metric, Model, Result
from maebench.masking.mask import Mask, View
from maebench.objectives.objective import Batch, Inputs, Reconstruction
from maebench.outputs import OpenTracker
from maebench.plugins import HOOKS
from maebench.testing.packages import COMMANDS, contract_for

FOLDER = Path(__file__).with_name("extend")

# what a reader has to know before the code; the rest is read off the code
SAYS: Mapping[str, str] = {
    "masking": """
A strategy gives one score per patch, and the core hides the highest: an exact count, equal for all
images, whatever the scores. Random numbers come from `view.draws`, which depend on seed, epoch and
image alone, so that a mask is the same in any batch, on any device and after a resume.

A strategy that learns from the model names what it asks in `needs`: `view.attention()`,
`view.patch_loss()` or `view.features()`, each of this very crop. Who answers is
`answered_by`: an EMA teacher, a moving average of what is trained, which pretraining keeps and
checkpoints, or the model as it is. Two lines of the class say so,
`needs: ClassVar[frozenset[str]] = frozenset({"patch_loss"})` and, where it is not the teacher,
`answered_by: ClassVar[str] = "encoder"`. One that hides larger squares overrides `unit`; one that
cannot do some grid or count refuses it in `check` by a ConfigError; one that never hides, or never
shows, some positions declares `covers = False`. `view.progress` goes from 0 to 1, for what grows
harder; scores that read neither it nor images nor a model may say `ahead = True`, and are drawn on
the CPU, the same whatever trains, for several steps together.
""",
    "encoder": """
An encoder makes tokens of images, and of a masked image only of what is seen: the gradient with
respect to hidden pixels is exactly 0. It may drop hidden patches (then `Tokens.seen` says which
tokens are there) or keep all positions (then `seen` is None); it may end on a coarser grid than
masks are drawn on. `tokens.on_grid(fill)` serves decoders for both kinds. `build` runs inside
`rng.isolated`, so that layers may initialise themselves; `mask=None` sees everything and is how
evaluations use it.
""",
    "objective": """
An objective is what pretraining minimises: a module around an encoder whose `forward(batch)` gives
a scalar `loss`. `hides = False` gets no mask and takes no masking; `needs_labels = True` wants a
labelled data set. `after_step(progress)`, where there is one, runs after each update;
`reconstruct(images, mask)`, where there is one, feeds the reconstruction evaluation and learned
maskings. `loss_on` says whether the loss looks at hidden patches only.
""",
    "dataset": """
A data set loads its splits train and test as uint8 images with integer labels or none, and says
which settings suit it. `maebench.from_arrays` and `maebench.from_files` make an `Images` of
arrays and of files, with the fingerprint that changes when the content does; files are read as
`-o data.*` says where `reading=request.reading` is passed on.
""",
    "evaluation": """
An evaluation is a generator of results. Its metrics say unit, range and direction;
`Metric.accuracy()` is the usual one, a share of right answers. A value is one number per test image
wherever the metric is a mean: the core makes means, intervals and paired tests of them, an author
writes no statistics. Choose on train (`model.folds()`; `choose(scores)` is the best entry of a
grid), report on test, yield the whole grid and mark the headline by `where={"chosen": True}`. What
a model cannot do raises NotApplicable before the first result and becomes a row that says so.
""",
    "tracker": """
A tracker gets the numbers of each step beside log.jsonl. `open` starts one run and gives an object
with `log(step, values)` and `close()`; one that raises is dropped with a warning and the run goes
on. A run that resumes opens it again in the same folder.
""",
    "report": """
A report renders the table of results as text, for `maebench table --format NAME`. The table has a
row per model and a column per evaluation; what is not applicable says so in its cell.
""",
}
# written with the README and these pages alone
EXAMPLES: Mapping[str, str] = {"masking": "spiral_arms.py", "evaluation": "cluster_vote.py"}
# what else an author meets, with its documentation
BESIDE: Mapping[str, tuple[type, ...]] = {
    "masking": (View, Mask),
    "encoder": (EncoderModule, Tokens),
    "objective": (Batch, Inputs, Reconstruction),
    "evaluation": (Metric, Result, Model),
    "tracker": (OpenTracker,),
}


def pages() -> dict[Path, str]:
    """Every page."""
    return {FOLDER / f"{base.kind}.md": page(hook) for hook, base in HOOKS.items()}


def page(hook: str) -> str:
    """One page: what it is for, a whole example, what else there is, what is checked."""
    base = HOOKS[hook]
    kind = base.kind
    templates = resources.files("maebench.testing.templates")
    example = templates.joinpath(f"{kind}.py").read_text("utf-8")
    contract = contract_for(base)
    parts = [
        f"# Write {'an' if kind[0] in 'aeiou' else 'a'} {kind}",
        "Made by `python docs/generate.py` from the code; a test compares and runs the example.",
        SAYS[kind].strip(),
        "## A whole one",
        f"`maebench plugins new NAME --kind {kind}` writes this module as a package with its test, "
        "ready to install and to run. The hook at its end is what maebench asks; the package names "
        "the module under the entry-point group `maebench`.",
        f"```python\n{example.strip()}\n```",
        f"```sh\n{_used(kind)}\n```",
        *_another(kind),
        f"## {base.__name__}",
        _documented(base),
        *_methods(base),
    ]
    for cls in BESIDE.get(kind, ()):
        parts += [f"## {cls.__name__}", _documented(cls), *_methods(cls)]
    parts += [
        "## What is checked",
        "Three lines are a test of all of it; `maebench plugins check` does the same without one.",
        f"```python\nfrom maebench.testing import {contract.__base__.__name__}\n\n\n"
        f"class TestMine({contract.__base__.__name__}):\n    component = Mine\n```",
        "\n".join(
            f"- {name.removeprefix('test_').replace('_', ' ')}: {_first(getattr(contract, name))}"
            for name in contract.checks()
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _another(kind: str) -> list[str]:
    if kind not in EXAMPLES:
        return []
    source = FOLDER.with_name("examples").joinpath(EXAMPLES[kind]).read_text(encoding="utf-8")
    return ["## Another one", f"```python\n{source.strip()}\n```"]


def _used(kind: str) -> str:
    found = f"maebench plugins new mine --kind {kind}\npip install -e './maebench-mine[dev]'\n"
    return found + COMMANDS[kind].replace("NAME", "mine") + "\nmaebench plugins check mine"


def _documented(cls: type) -> str:
    """A docstring whose arguments are a list."""
    lines: list[str] = []
    inside = False
    for line in inspect.cleandoc(cls.__doc__ or "").splitlines():
        inside = line == "Args:" or (inside and (not line or line.startswith(" ")))
        if line == "Args:" or not inside:
            lines.append("" if line == "Args:" else line)
        elif line.startswith("     "):
            lines[-1] += " " + line.strip()
        elif line:
            name, _, text = line.strip().partition(": ")
            lines.append(f"- `{name}`: {text}")
    return "\n".join(lines).replace("\n\n\n", "\n\n").strip()


def _methods(cls: type) -> list[str]:
    """The public members that a class documents itself, in their order."""
    found = []
    for name, member in vars(cls).items():
        text = inspect.getdoc(member.fget if isinstance(member, property) else member)
        if name.startswith("_") or name in ("model_post_init", "model_config") or not text:
            continue
        if isinstance(member, property):
            found.append(f"- `{name}`: {text.splitlines()[0]}")
        elif inspect.isfunction(member):
            call = str(inspect.signature(member)).replace("(self, ", "(").replace("(self)", "()")
            call = call.replace("'", "")  # annotations are texts
            found.append(f"- `{name}{call}`: {text.splitlines()[0]}")
    return ["\n".join(found)] if found else []


def _first(function: object) -> str:
    return (inspect.getdoc(function) or "").splitlines()[0]
