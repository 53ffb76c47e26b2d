"""No code comes from data, and no file's name is made of a name that could leave its folder."""

from __future__ import annotations

import ast

import pytest
from hostile import NAMES
from test_cli import call, refused
from test_layers import ROOT, sources, tree

# What runs or builds whatever a text or a file says. compile() of text is for exec.
RUNS = {
    *("eval", "exec", "compile", "execfile", "__import__"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cPickle.load", "cPickle.loads"),
    *("marshal.load", "marshal.loads", "shelve.open", "dill.load", "dill.loads", "joblib.load"),
    *("cloudpickle.load", "cloudpickle.loads", "pd.read_pickle", "pandas.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load"),
    *("yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "os.system", "os.popen"),
    *("torch.jit.load", "torch.hub.load", "shutil.unpack_archive"),
}
BARE = {"load", "loads", "Unpickler", "unsafe_load", "system", "popen"}  # imported by their names
FROM = {"pickle", "marshal", "yaml", "os", "dill", "joblib", "shelve", "torch.hub"}
MUST_BE = {"allow_pickle": False, "trust_remote_code": False, "shell": False, "weights_only": True}


def dotted(node: ast.expr) -> str:
    """What is called, by its name: `torch.load`; unparsing all calls would take seconds."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangerous(module: ast.Module) -> list[str]:
    """The calls of a module that would let data run code."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module in FROM:
            found += [f"{node.lineno} {a.name}" for a in node.names if a.name in BARE]
        if not isinstance(node, ast.Call):
            continue
        name, said = dotted(node.func), {k.arg: k.value for k in node.keywords}
        wrong = name in RUNS or name.endswith(".extractall")
        wrong |= name == "torch.load" and "weights_only" not in said
        for key, wanted in MUST_BE.items():
            value = said.get(key)
            wrong |= key in said and not (isinstance(value, ast.Constant) and value.value is wanted)
        if wrong:
            found.append(f"{node.lineno} {ast.unparse(node)}")
    return found


def test_nothing_of_ours_runs_what_data_say():
    paths = [p for p in [*sources(), *sources(ROOT / "plugins")] if "tests" not in p.parts]
    assert len(paths) > 150
    found = {p.relative_to(ROOT).as_posix(): dangerous(tree(p)) for p in paths}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("eval('1')", 1),
        ("model.eval()", 0),
        ("exec(compile(text, 'x', 'exec'))", 2),
        ("re.compile('x')", 0),
        ("pickle.load(file)", 1),
        ("from pickle import loads\nloads(b)", 1),
        ("pickle.dumps(x)", 0),
        ("torch.load(file)", 1),
        ("torch.load(file, weights_only=False)", 1),
        ("torch.load(file, weights_only=safe)", 1),
        ("torch.load(file, weights_only=True)", 0),
        ("np.load(file, allow_pickle=True)", 1),
        ("np.load(file)", 0),
        ("yaml.load(text, yaml.SafeLoader)", 1),
        ("yaml.safe_load(text)", 0),
        ("subprocess.run('ls', shell=True)", 1),
        ("subprocess.run(['ls'])", 0),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", 1),
        ("archive.extractall(folder)", 1),
    ],
)
def test_the_reader_of_dangerous_calls_sees_them(text, number):
    assert len(dangerous(ast.parse(text))) == number


# --- names of files

OUTSIDE = ["..", "../x", "a/../../x", "/etc/x", "a/b", "a\x00b", ".hidden", "-x y", "", "n" * 300]


@pytest.mark.parametrize("name", [*OUTSIDE[:-2], "n" * 300, *NAMES])
def test_a_name_of_a_comparison_that_could_leave_its_folder_is_refused(name, tmp_path):
    compare = ("compare", "--masking", "random,block", "--dry-run", f"--name={name}")
    error = refused(*compare, "--results", tmp_path / "results")
    assert "cannot be a file name" in error
    assert error.isascii() or error.removeprefix("Error: ").rstrip("\n").isprintable()
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("name", [*OUTSIDE[:-2], "n" * 300, *NAMES])
def test_a_run_of_such_a_name_is_not_there_in_one_line(name, tmp_path):
    ran = call("eval", "knn", "--results", tmp_path, "--", name)
    assert ran.code == 1 and ran.err.count("\n") == 1
    assert ran.err.rstrip("\n").isprintable()
