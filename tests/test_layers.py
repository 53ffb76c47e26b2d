"""Who may import whom, seed, write, or make a tensor on no device: read off the source."""

from __future__ import annotations

import ast
import graphlib
import importlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import maebench

ROOT = Path(__file__).parent.parent
CORE = ROOT / "maebench"
# Each only from those before it. A new module has to find its place here.
ORDER = [
    *("errors", "files", "rng", "state", "component", "masking", "encoders", "objectives", "data"),
    *("evaluation", "outputs", "hookspecs", "plugins", "config", "pretraining", "models"),
    *("evaluating", "analysis", "report", "testing", "cli", "__main__"),
]
# Seconds each, and of use to few: imported where they are used.
HEAVY = {"timm", "torchvision", "sklearn", "scipy", "faiss", "matplotlib", "transformers"}
HEAVY |= {"statsmodels", "networkx"}
MOST_ENTRIES = 24  # at the top level: what a reader holds in his head
SEEDERS = {
    *("torch.manual_seed", "torch.random.manual_seed", "torch.seed", "torch.cuda.manual_seed"),
    *("torch.cuda.manual_seed_all", "np.random.seed", "numpy.random.seed", "random.seed"),
    *("torch.set_rng_state", "np.random.set_state", "random.setstate"),
}


def sources(folder: Path = CORE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    """maebench/masking/block.py is maebench.masking.block, an __init__.py is its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sources()}


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: blocks under `if TYPE_CHECKING` do not."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.orelse:
            yield from walk(child)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk(child)


def imported(path: Path, everywhere: bool = True) -> set[str]:
    """The modules that a file imports, at the top and inside functions, by whatever spelling."""
    found: set[str] = set()
    nodes = walk(tree(path)) if everywhere else ast.walk(tree(path))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folder = [*path.parent.relative_to(ROOT).parts][: -node.level + 1 or None]
                base = ".".join([*folder, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                public = maebench._PUBLIC.get(alias.name) if base == "maebench" else None
                found.add(inner if inner in MODULES else public or base)
        elif (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "maebench"
            and node.attr in maebench._PUBLIC
        ):
            found.add(maebench._PUBLIC[node.attr])
    return found


def layer(module: str) -> str:
    return module.split(".")[1]


def ours(path: Path) -> set[str]:
    return {m for m in imported(path) if m.startswith("maebench.")}


# --- imports


def test_every_module_has_its_place_in_the_order():
    layers = {layer(m) for m in MODULES if m != "maebench"}
    assert layers == set(ORDER)


def test_the_reader_of_imports_sees_every_spelling(tmp_path, monkeypatch):
    file = CORE / "masking" / "invented.py"
    text = """
from typing import TYPE_CHECKING
from maebench import files as f, Random
from . import mask
from ..errors import unknown
import maebench
if TYPE_CHECKING:
    from maebench import RunConfig
else:
    import maebench.analysis.stats
def g():
    from maebench.data import images
    maebench.evaluate
"""
    monkeypatch.setattr(sys.modules[__name__], "tree", lambda path: ast.parse(text))
    assert imported(file) == {
        *("typing", "maebench", "maebench.files", "maebench.masking.grids"),
        *(
            "maebench.masking.mask",
            "maebench.errors",
            "maebench.analysis.stats",
            "maebench.data.images",
        ),
        "maebench.evaluating.suite",  # by the attribute
    }


@pytest.mark.parametrize("module", [m for m in MODULES if m != "maebench"])
def test_a_module_imports_only_from_those_before_it(module):
    own = ORDER.index(layer(module))
    wrong = [
        target
        for target in sorted(ours(MODULES[module]))
        if layer(target) != layer(module) and ORDER.index(layer(target)) >= own
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "path", sources(CORE / "testing" / "templates"), ids=lambda path: path.stem
)
def test_a_template_uses_public_names_only(path):
    assert ours(path) <= {*maebench._PUBLIC.values(), "maebench"}


@pytest.mark.parametrize("folder", sorted(p.name for p in CORE.iterdir() if list(p.glob("*.py"))))
def test_the_files_of_a_folder_import_in_one_direction(folder):
    graph = {
        m: {t for t in ours(path) if layer(t) == folder and t != m}
        for m, path in MODULES.items()
        if m != "maebench" and layer(m) == folder
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the cycle


def test_the_public_face_imports_nothing_until_it_is_asked():
    assert ours(CORE / "__init__.py") == set()
    assert set(maebench.__all__) == {"__version__", *maebench._PUBLIC}
    for name, module in maebench._PUBLIC.items():
        top = {getattr(n, "name", None) for n in tree(MODULES[module]).body} | {
            t.id
            for n in tree(MODULES[module]).body
            if isinstance(n, ast.Assign)
            for t in n.targets
            if isinstance(t, ast.Name)
        }
        assert name in top, f"maebench.{name} is not made in {module}"


def test_type_checkers_see_the_public_face_that_is_imported():
    """The imports under TYPE_CHECKING and the table of lazy ones say the same."""
    (block,) = (n for n in tree(CORE / "__init__.py").body if isinstance(n, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == maebench._PUBLIC
    assert all(alias.name == alias.asname for node in block.body for alias in node.names)
    assert (CORE / "py.typed").exists()


@pytest.mark.parametrize("room", ["masking", "encoders", "objectives", "data"])
def test_every_built_in_part_is_public(room):
    built_in = importlib.import_module(f"maebench.{room}").BUILT_IN
    assert [cls.__name__ for cls in built_in if getattr(maebench, cls.__name__, 0) is not cls] == []


def test_nobody_imports_the_command_line():
    assert [
        module
        for module, path in MODULES.items()
        if layer(module + ".") not in ("cli", "__main__")
        and any(layer(t) == "cli" for t in ours(path))
    ] == []


def test_plugins_import_public_names_and_nothing_else():
    packages = [p for p in (ROOT / "plugins").iterdir() if p.is_dir()]
    files = [p for package in packages for p in package.rglob("*.py") if "tests" not in p.parts]
    assert files
    for path in files:
        for node in ast.walk(tree(path)):  # also under TYPE_CHECKING: a type is a contract
            if isinstance(node, ast.Import):
                assert [a.name for a in node.names if a.name.split(".")[0] == "maebench"] == []
            elif (
                isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "maebench"
            ):
                assert node.module == "maebench", f"{path}:{node.lineno}"
                private = {a.name for a in node.names} - set(maebench.__all__)
                assert private == set(), f"{path}:{node.lineno}"


def test_the_top_level_can_be_held_in_the_head():
    entries = [p for p in CORE.iterdir() if p.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(p.name for p in entries)


@pytest.mark.parametrize("module", MODULES)
def test_what_takes_seconds_to_import_is_imported_where_it_is_used(module):
    top = [
        node for node in tree(MODULES[module]).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = [a.name for n in top if isinstance(n, ast.Import) for a in n.names]
    names += [n.module or "" for n in top if isinstance(n, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} & HEAVY == set()


# torch stands at the top; what costs nothing else must not cost it either
LIGHT = {"numpy", "torch", "pydantic", "maebench"}


@pytest.mark.parametrize(
    "module", [m for m in MODULES if layer(m + ".x") not in ("cli", "__main__") and m != "maebench"]
)
def test_torch_and_our_own_modules_are_imported_at_the_top(module):
    inside = {
        name.split(".")[0]
        for node in walk(tree(MODULES[module]))
        if isinstance(node, ast.FunctionDef)
        for child in ast.walk(node)
        if isinstance(child, ast.Import | ast.ImportFrom)
        for name in (
            [a.name for a in child.names] if isinstance(child, ast.Import) else [child.module or ""]
        )
    }
    assert inside & LIGHT == set()


# --- randomness


def test_nothing_but_rng_touches_the_global_random_state():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}"
        for path in [*sources(), *sources(ROOT / "plugins")]
        if path != CORE / "rng.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in SEEDERS
    ]
    assert found == []


# --- writing

ON_PATHS = {"write_text", "write_bytes", "touch", "symlink_to", "hardlink_to"}
FIRST = {
    *("savefig", "save", "savez", "savez_compressed", "savetxt", "tofile", "imsave", "urlretrieve"),
    *("to_csv", "to_parquet", "to_json", "to_excel", "to_pickle", "to_feather", "to_hdf"),
}
SECOND = {"torch.save", "save_file", "json.dump", "pickle.dump", "yaml.dump", "yaml.safe_dump"}


def target(call: ast.Call) -> ast.expr | None:
    """What a call writes to, or None where it does not write."""
    function, arguments = call.func, call.args
    name = ast.unparse(function)
    last = name.rsplit(".", 1)[-1]
    if name.startswith(("files.", "checkpoints.")):  # the one place that may, and what asks it
        return None
    if last == "open":
        is_method = isinstance(function, ast.Attribute) and name not in ("os.open", "io.open")
        place, at = (function.value, 0) if is_method else (arguments[0], 1)
        if name == "os.open":
            return place if "O_RDONLY" not in ast.unparse(call) else None
        if name in ("Image.open", "PIL.Image.open", "gzip.open", "zipfile.open", "tarfile.open"):
            place, at = arguments[0], 1
        modes = [k.value for k in call.keywords if k.arg == "mode"] or arguments[at : at + 1]
        if modes and not isinstance(modes[0], ast.Constant):
            return None if is_method else place  # tracker.open(folder); open(path, mode)
        mode = str(modes[0].value) if modes else "r"
        return place if set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") else None
    if last in ON_PATHS and isinstance(function, ast.Attribute):
        return function.value
    if name in SECOND or last in SECOND:
        return arguments[1] if len(arguments) > 1 else None
    if last in FIRST:
        return arguments[0] if arguments else None
    return None


def functions(node: ast.AST) -> dict[ast.AST, list[ast.FunctionDef]]:
    """Each node's functions around it, the nearest last."""
    found: dict[ast.AST, list[ast.FunctionDef]] = {}

    def visit(node: ast.AST, around: list[ast.FunctionDef]) -> None:
        found[node] = around
        inner = [*around, node] if isinstance(node, ast.FunctionDef) else around
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    visit(node, [])
    return found


def is_beside(place: ast.expr, around: list[ast.FunctionDef], module: ast.Module) -> bool:
    """Whether a place is the `beside` of a `files.write` callback, a file in memory, or either's."""
    while isinstance(place, ast.BinOp):  # beside / "name"
        place = place.left
    if not isinstance(place, ast.Name):
        return False
    if place.id == "beside":
        return True
    for node in ast.walk(around[-1]) if around else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == place.id:
            return ast.unparse(node.value) == "io.BytesIO()"
        if isinstance(node, ast.withitem) and node.optional_vars is not None:
            opened = node.context_expr
            if ast.unparse(node.optional_vars) == place.id and isinstance(opened, ast.Call):
                written = target(opened)
                return written is not None and is_beside(written, around, module)
    # a function's parameter: every call of the function gives `beside` for it
    names = [a.arg for a in around[-1].args.args] if around else []
    if place.id not in names:
        return False
    at = names.index(place.id)
    calls = [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == around[-1].name
    ]
    return bool(calls) and all(
        len(c.args) > at and ast.unparse(c.args[at]).startswith("beside") for c in calls
    )


def writes(path: Path, everything: ast.Module) -> list[str]:
    """The places of a file that write elsewhere than beside."""
    around = functions(tree(path))
    return [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and (place := target(node)) is not None
        and not is_beside(place, around[node], everything)
    ]


def test_nothing_but_files_writes_except_beside():
    paths = [p for p in [*sources(), *sources(ROOT / "plugins")] if "tests" not in p.parts]
    paths = [p for p in paths if p.parent != CORE / "files"]
    # what a new package begins with is its author's: he knows public names only
    paths = [p for p in paths if p.parent != CORE / "testing" / "templates"]
    everything = ast.Module([node for p in paths for node in tree(p).body], [])
    assert [found for path in paths for found in writes(path, everything)] == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("path.write_text('x')", 1),
        ("open(path, 'wb')", 1),
        ("files.write_text(path, 'x')", 0),
        ("open(path)", 0),
        ("path.open('a+')", 1),
        ("path.open('rb')", 0),
        ("path.open(mode='x')", 1),
        ("open(path, mode)", 1),
        ("tracker.open(folder, config)", 0),
        ("np.savez(path, a=1)", 1),
        ("torch.save(a, path)", 1),
        ("save_file(a, path)", 1),
        ("table.to_csv(index=False)", 0),
        ("table.to_csv(path)", 1),
        ("def f(beside):\n  beside.write_text('x')\n  save_file(a, beside / 'b')", 0),
        ("def f(beside):\n  with beside.open('wb') as g:\n    np.savez(g)", 0),
        ("def f(path):\n  with path.open('wb') as g:\n    np.savez(g)", 2),
        ("def f():\n  g = io.BytesIO()\n  np.savez(g)", 0),
        ("def f(a, p):\n  p.touch()\nlambda beside: f(1, beside)", 0),
        ("def f(a, p):\n  p.touch()\nf(1, beside)\nf(1, path)", 1),
    ],
)
def test_the_reader_of_writes_sees_them(monkeypatch, text, number):
    module = ast.parse(text)
    monkeypatch.setattr(sys.modules[__name__], "tree", lambda path: module)
    assert len(writes(Path("x.py"), module)) == number


# What is computed on a GPU where there is one; a tensor made without a device lies on the CPU, which
# is an error at best, and else a copy that the GPU waits for.
ON_DEVICE = [
    *(CORE / room for room in ("masking", "encoders", "objectives")),
    *(CORE / "data" / name for name in ("augment.py", "resizing.py", "preprocess.py")),
    *(CORE / "pretraining" / name for name in ("teacher.py", "optimiser.py")),
    *(ROOT / "plugins" / "maebench_evals" / f"{name}.py" for name in ("inpainting", "nearest")),
]
MADE = {
    *("arange", "zeros", "ones", "empty", "full", "tensor", "as_tensor", "rand", "randn", "eye"),
    *("randint", "randperm", "linspace", "logspace", "scalar_tensor", "from_numpy", "fftfreq"),
    *("rfftfreq", "tril_indices", "triu_indices", "hann_window"),
}
ON_CPU = {
    "__init__": "parameters, that are moved with the module",
    "drop_paths": "rates, when a module is built",
    "sincos_positions": "a parameter",
    "sincos_line": "a parameter",
    "prefers_fused": "the size of a number",
    "_of": "maps from a file, moved as soon as they are read",
    "_all_maps": "maps from a file, moved as soon as they are read",
    "describe": "statistics of masks that have come from the device",
    "_moved": "the way of a CPU",
    "by_faiss": "the way of a CPU",
}


def made_anywhere(text: str) -> list[str]:
    """The calls that make a tensor without saying where, outside of the functions of ON_CPU."""
    found = []

    def look(node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
                place, name = ast.unparse(child.func.value), child.func.attr
                says = any(keyword.arg == "device" for keyword in child.keywords)
                torch_s = place in ("torch", "torch.fft") and name in MADE
                if torch_s and not says and inside not in ON_CPU:
                    found.append(f"{child.lineno} {ast.unparse(child)}")
            look(child, child.name if named else inside)

    look(ast.parse(text), "")
    return found


def test_every_tensor_of_what_a_gpu_computes_is_made_on_its_device():
    files = [f for place in ON_DEVICE for f in ([place] if place.suffix else sources(place))]
    assert len(files) > 20
    found = {f.name: made_anywhere(f.read_text(encoding="utf-8")) for f in files}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("def f(x):\n    return x + torch.arange(3)", 1),
        ("def f(x):\n    return x + torch.arange(3, device=x.device)", 0),
        ("def f(x):\n    def g():\n        return torch.fft.fftfreq(3)\n    return g()", 1),
        ("class A:\n    def __init__(self):\n        self.x = torch.zeros(3)", 0),
        ("def f(x):\n    return x.new_zeros(3) + torch.zeros_like(x) + torch.stack([x])", 0),
    ],
)
def test_a_tensor_that_is_made_anywhere_is_found(text, number):
    assert len(made_anywhere(text)) == number
