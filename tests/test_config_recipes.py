"""Recipes: every value has its source, and what is changed beside one is refused or kept."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
import tiny
import yaml

import maebench
from maebench import Block, ConfigError, RunConfig, files, load_records
from maebench.cli.settings import read
from maebench.config import recipes
from maebench.config.parts import Optimiser
from maebench.config.recipes import FOLDER, HEADER, from_recipe, header, recipe, recipe_names
from maebench.data.augment import Augment
from maebench.plugins import installed
from maebench.pretraining.budget import num_steps
from maebench.pretraining.optimiser import learning_rate

NAMES = recipe_names()
IMAGENET = [name for name in NAMES if "imagenet-" in name]
SMALL = ("cifar10", "cifar100", "digits", "fashion-mnist", "imagenette", "stl10")
IMAGES = 1_281_167  # of ImageNet-1k's train
WHERE_FROM = re.compile(r"# (paper|code|ours)(: \S.*)?$")


@pytest.fixture(scope="module")
def names():
    return installed()


@pytest.fixture
def config(names, tmp_path):
    """A config of the digits recipe: config(ratio="0.5", o=[...], yaml=..., override=True)."""

    def make(*, name="mae-digits", o=(), yaml=None, override=False, **flags):
        file = None
        if yaml is not None:
            file = tmp_path / "config.yaml"
            file.write_text(yaml)
        return from_recipe(name, flags, o, file, names, override)

    return make


def refused(make, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        make(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the files


def test_these_recipes_ship():
    sizes = [f"vit-{s}-imagenet-{e}" for s in ("base", "huge", "large") for e in (800, 1600)]
    assert [f"mae-{name}" for name in (*SMALL, *sizes)] == NAMES
    assert {f"{name}.yaml" for name in NAMES} == {f.name for f in FOLDER.iterdir()} - {
        *("__init__.py", "__pycache__")
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_value_says_where_it_comes_from(name):
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if line and not line.startswith("#")]
    leaves = [line for line in values if not line.split("  #")[0].rstrip().endswith(":")]
    assert len(leaves) > 20
    for line in leaves:
        found = WHERE_FROM.search(line)
        assert found, line
        assert found[1] != "ours" or found[2], f"ours needs a reason: {line}"
    parts = set(values) - set(leaves)
    assert all(re.fullmatch(r"[a-z]+:", line) for line in parts), parts


@pytest.mark.parametrize("name", NAMES)
def test_a_header_says_what_it_is_and_five_things(name):
    found = header(name)
    assert list(found) == ["title", *HEADER] and all(found.values())
    assert found["command"].startswith(f"maebench run --recipe {name}")
    needs_folder = recipe(name)["dataset"] != "digits"
    assert ("--data-dir DIR" in found["command"]) == needs_folder
    # a number has its source beside it
    for key in ("hours", "expected"):
        assert "not measured" in found[key] or re.search(r"\(.+\)|twice", found[key]), found[key]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_reads_into_the_config_it_is(name, names):
    said = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    found = RunConfig(names, **recipe(name))
    assert said == recipe(name)
    dumped = found.dump()
    for key, value in said.items():
        for option, wanted in value.items() if isinstance(value, dict) else [(None, value)]:
            mine = dumped[key] if option is None else dumped[key][option]
            mine = mine["name"] if isinstance(mine, dict) else mine
            if key == "image_size":
                wanted = [wanted, wanted]
            assert mine == (float(wanted) if isinstance(mine, float) else wanted), (key, option)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_all_that_counts_so_that_no_preset_can_move_it(name):
    said = recipe(name)
    # which part of the images and how the ratio moves: all of them, and it does not
    assert set(RunConfig.IDENTITY) - said.keys() == {"seed", "limit", "schedule"}
    assert said["augment"].keys() == Augment.model_fields.keys()
    assert said["optimiser"].keys() == Optimiser.model_fields.keys()
    assert said["machine"].keys() == {"precision"}
    assert said["encoder"].keys() >= {"name", "patch"}
    assert said["objective"].keys() == {
        *("name", "target", "decoder_depth", "decoder_width", "decoder_heads")
    }


def test_a_recipes_masking_is_not_held_against_an_objective_that_hides_nothing():
    found = from_recipe("mae-digits", {"objective": "autoencoder"}, override=True)
    assert found.objective.name == "autoencoder"
    assert set(found.recipe.overrides) == {"objective"}
    with pytest.raises(ConfigError, match="masking: objective 'autoencoder' hides no patch"):
        from_recipe("mae-digits", {"objective": "autoencoder", "masking": "block"}, override=True)


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_recipes_are_the_official_pretraining(name, names):
    """MAE's PRETRAIN.md, main_pretrain.py and table 8 of arXiv 2111.06377."""
    found = RunConfig(names, **recipe(name))
    size, epochs = re.fullmatch(r"mae-vit-(\w+)-imagenet-(\d+)", name).groups()
    width, depth, heads, patch = {
        "base": (768, 12, 12, 16),
        "large": (1024, 24, 16, 16),
        "huge": (1280, 32, 16, 14),
    }[size]
    encoder = found.encoder
    assert (encoder.width, encoder.depth, encoder.heads) == (width, depth, heads)
    assert encoder.patch_size(found.size) == (patch, patch) and found.size == (224, 224)
    assert found.objective.decoder_size(width, depth) == (8, 512, 16)
    assert found.objective.target == "normalised-pixels"
    assert (found.masking.name, found.ratio) == ("random", 0.75)
    assert found.batch == 4096 and found.batch // found.optimiser.accumulate == 64
    assert found.lr * found.batch / 256 == pytest.approx(2.4e-3)
    assert found.augment == Augment(scale=(0.2, 1), aspect=(3 / 4, 4 / 3), shift=0, flip=True)

    # 40 epochs of linear warm-up, then half a cosine to 0
    steps = num_steps(found.budget, IMAGES, found.batch, [])
    assert steps == -(-int(epochs) * IMAGES // 4096)
    warm = next(
        i
        for i in range(steps)
        if learning_rate(i, steps, found.lr, found.optimiser.warmup) == found.lr
    )
    assert warm * 4096 / IMAGES == pytest.approx(40, abs=0.01)
    assert Fraction(str(found.optimiser.warmup)) == Fraction(40, int(epochs))
    assert learning_rate(steps - 1, steps, found.lr, found.optimiser.warmup) < 1e-9 * found.lr
    assert found.optimiser.clip is None and found.optimiser.min_lr == 0
    assert (found.optimiser.beta1, found.optimiser.beta2) == (0.9, 0.95)
    assert found.optimiser.weight_decay == 0.05 and found.machine.precision == "bf16"


@pytest.mark.parametrize("name", [f"mae-{data}" for data in ("digits", "fashion-mnist")])
def test_a_recipe_that_was_measured_with_the_preset_is_the_same_run(name, names):
    found = RunConfig(names, **recipe(name))
    plain = RunConfig(names, dataset=found.dataset)
    assert found.identity("f", "fp32") == plain.identity("f", "fp32")
    assert found.machine.precision == "fp32"  # what auto takes for this width on a CPU


def test_recipes_of_other_small_data_are_as_the_presets_but_cifar(names):
    for data in ("stl10", "imagenette"):
        found, plain = RunConfig(names, **recipe(f"mae-{data}")), RunConfig(names, dataset=data)
        for field in ("image_size", "budget", "batch", "lr", "augment", "optimiser", "ratio"):
            assert getattr(found, field) == getattr(plain, field), (data, field)
        width, depth = found.encoder.width, found.encoder.depth
        assert (width, depth) == (plain.encoder.width, plain.encoder.depth)
        assert found.encoder.patch_size(found.size) == plain.encoder.patch_size(plain.size)
        assert found.objective.decoder_size(width, depth) == plain.objective.decoder_size(
            width, depth
        )
    for data in ("cifar10", "cifar100"):  # solo-learn's scripts/pretrain/cifar/mae.yaml
        found = RunConfig(names, **recipe(f"mae-{data}"))
        assert (found.encoder.name, found.encoder.heads, found.encoder.patch) == (
            "vit-small",
            12,
            4,
        )
        assert (str(found.budget), found.batch, found.lr) == ("epochs=1000", 256, 2e-4)
        assert found.augment.scale == (0.08, 1) and found.optimiser.warmup == 10 / 1000


# --- what is given beside a recipe


def test_flags_beat_options_beat_yaml_beat_the_recipe_beats_the_preset(config):
    plain = config()
    assert plain.batch == recipe("mae-digits")["batch"]
    mixed = config(
        yaml="batch: 3\nlr: 0.3\nratio: 0.3", o=["batch=4", "lr=0.4"], batch="5", override=True
    )
    assert (mixed.batch, mixed.lr, mixed.ratio) == (5, 0.4, 0.3)
    assert mixed.budget == plain.budget and mixed.augment == plain.augment
    cifar = config(name="mae-cifar10")
    assert (cifar.encoder.name, cifar.encoder.patch) == ("vit-small", 4)
    assert RunConfig(dataset="cifar10").encoder.name == "vit-nano"


@pytest.mark.parametrize(
    "free",
    [
        {"data_dir": "/somewhere", "download": True, "device": "cpu", "seed": "3"},
        {"on_bad_image": "skip"},
        {"o": ["machine.memory_gb=1", "machine.checkpoint_seconds=1"]},
        {"evals": "knn"},
        {"evals": ""},
        {"ratio": "0.75", "lr": "8e-3", "o": ["augment.shift=1", "masking=random"]},  # the same
        {"yaml": "seed: 4\nbudget: steps=3600\nencoder: vit-nano"},
        {"yaml": "recipe: null\nseed: 1"},
    ],
    ids=str,
)
def test_what_does_not_change_the_recipe_is_free(config, free):
    found = config(**free)
    assert found.recipe.overrides == {}
    assert found.recipe.name == "mae-digits"
    assert found.recipe.hash == files.short_hash(recipe("mae-digits"))


@pytest.mark.parametrize(
    ("given", "setting", "said", "got"),
    [
        ({"ratio": "0.5"}, "ratio", 0.75, 0.5),
        ({"dataset": "mnist"}, "dataset", "digits", "mnist"),
        ({"image_size": "16"}, "image_size", [8, 8], [16, 16]),
        ({"encoder": "vit-micro"}, "encoder", "vit-nano", "vit-micro"),
        ({"o": ["encoder.depth=4"]}, "encoder.depth", 3, 4),
        ({"o": ["objective.target=pixels"]}, "objective.target", "normalised-pixels", "pixels"),
        ({"masking": "block"}, "masking", "random", "block"),
        ({"budget": "epochs=3"}, "budget", "steps=3600", "epochs=3"),
        ({"batch": "32"}, "batch", 64, 32),
        ({"lr": "1e-3"}, "lr", 8e-3, 1e-3),
        ({"limit": "100"}, "limit", None, 100),
        ({"o": ["schedule.ratio=0.9"]}, "schedule.ratio", None, 0.9),
        ({"o": ["augment.scale=0.5,1"]}, "augment.scale", [1.0, 1.0], [0.5, 1.0]),
        ({"yaml": "optimiser: {warmup: 0.1}"}, "optimiser.warmup", 0.05, 0.1),
        ({"o": ["machine.precision=bf16"]}, "machine.precision", "fp32", "bf16"),
        ({"o": ["knn.k=3"], "evals": "knn"}, "knn.k", None, [3]),
    ],
    ids=str,
)
def test_what_differs_is_refused_by_name_and_kept_with_override(config, given, setting, said, got):
    message = refused(config, **given)
    shown = recipes.differing({setting: (said, got)})[0]
    assert shown in message and "--override" in message and "mae-digits" in message
    found = config(**given, override=True)
    assert {k: list(v) for k, v in found.recipe.overrides.items()} == {setting: [said, got]}


def test_every_field_of_the_identity_is_compared(config):
    """A field that is added to what changes numbers is compared from the first day."""
    assert set(recipes.COMPARED) == set(RunConfig.IDENTITY) - {"seed"}
    both = refused(config, ratio="0.5", batch="32")
    assert "ratio: recipe 0.75, given 0.5; batch: recipe 64, given 32" in both


def test_options_of_an_evaluation_come_from_the_recipe_where_it_runs(config, monkeypatch):
    said = {**recipe("mae-digits"), "evals": [{"name": "knn", "k": [3]}, "reconstruction"]}
    monkeypatch.setattr(recipes, "recipe", lambda name: said)
    assert [e.name for e in config().evals] == ["knn", "reconstruction"]
    assert config(evals="linear-probe,knn").evals[1].k == (3,)
    assert config(yaml="evals: [{name: knn, k: [3]}]").evals[0].k == (3,)
    assert "knn.k: recipe 3, given 1,5" in refused(config, o=["knn.k=1,5"])
    # of evaluations that it does not name a recipe says nothing
    assert config(evals="linear-probe", o=["linear-probe.iterations=3"]).evals[0].iterations == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mae-digit", ["unknown recipe 'mae-digit'", "Did you mean 'mae-digits'?", *NAMES]),
        ("", ["unknown recipe ''", *NAMES]),
        ("./mae-digits.yaml", ["--config", *NAMES]),
        ("mae-digits.yaml", ["--config", *NAMES]),
        ("folder/mine", ["--config", *NAMES]),
        ("../recipes/mae-digits", ["--config", *NAMES]),
    ],
)
def test_another_name_is_one_line_with_all_there_is(config, name, words):
    message = refused(config, name=name)
    assert [word for word in words if word not in message] == []
    assert refused(recipe, name) == message


@pytest.mark.parametrize("given", [{"o": ["recipe=mae-digits"]}, {"yaml": "recipe: mae-digits"}])
def test_a_recipe_is_no_setting_among_others(config, given):
    assert "--recipe NAME" in refused(config, **given)
    with pytest.raises(ConfigError, match=r"maebench.recipe\(NAME\)"):
        RunConfig(recipe="mae-digits")


def test_override_without_a_recipe_is_an_error():
    message = refused(read, override=True)
    assert message.startswith("--override") and "--recipe NAME" in message


def test_what_is_overridden_is_printed(capsys):
    read(("knn.k=3",), recipe="mae-digits", override=True, ratio="0.5", lr=None)
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.splitlines() == [
        "override: ratio: recipe 0.75, given 0.5",
        "override: knn.k: recipe none, given 3",
    ]


def test_python_gets_the_settings():
    assert maebench.recipe("mae-digits") == recipe("mae-digits")
    found = RunConfig(**{**maebench.recipe("mae-digits"), "masking": Block(aspect=0.5)})
    assert found.masking == Block(aspect=0.5) and found.recipe is None


# --- what is kept


def quick(recipe_name, **changes):
    """Three steps of a tiny encoder on sixty digits, by a recipe."""
    small = {"encoder": {"name": "vit-nano", "width": 16, "depth": 2, "heads": 2}, "limit": "60"}
    flags = {**small, "batch": "16", "budget": "steps=3", "device": "cpu", **changes}
    return from_recipe(recipe_name, flags, override=True)


def test_a_run_keeps_the_recipe_and_what_differs_and_is_the_same_run_without(tmp_path):
    from maebench.evaluating import suite
    from maebench.pretraining import runs
    from maebench.pretraining.loop import pretrain
    from maebench.pretraining.plan import config_of, prepare

    mine = quick("mae-digits", evals="knn")
    plan = prepare(mine, tmp_path)
    list(pretrain(plan))
    (evaluation,) = mine.evals
    suite.evaluate(tiny.load(tmp_path), evaluation)
    kept = runs.find_run(tmp_path, "").content["config"]["recipe"]
    assert kept["name"] == "mae-digits" and kept["hash"] == files.short_hash(recipe("mae-digits"))
    assert kept["overrides"] == {
        "encoder.width": [64, 16],
        "encoder.depth": [3, 2],
        "encoder.heads": [4, 2],
        "budget": ["steps=3600", "steps=3"],
        "batch": [64, 16],
        "limit": [None, 60],
    }
    assert config_of(plan.run).recipe == mine.recipe, "it is read back"
    table = load_records(tmp_path)
    assert set(table["recipe"]) == {"mae-digits"}
    (text,) = set(table["overrides"])
    assert text.endswith("batch: recipe 64, given 16; limit: recipe none, given 60")

    before = (plan.run.folder / "config.json").read_bytes()
    same = prepare(mine.model_copy(update={"recipe": None}), tmp_path)
    assert same.run.folder == plan.run.folder and same.finished
    assert (plan.run.folder / "config.json").read_bytes() == before


def test_a_run_that_is_older_than_recipes_is_read(tmp_path):
    from maebench import files

    plan = tiny.plan(tmp_path, evals=["knn"])
    path = plan.run.folder / "config.json"
    content = files.read_sealed(path, plan.run.name)
    assert content["config"].pop("recipe") is None
    files.write_sealed(path, content, plan.run.name)
    from maebench.evaluating import suite

    suite.evaluate(tiny.load(tmp_path), plan.config.evals[0])
    table = load_records(tmp_path)
    assert len(table) and table["recipe"].isna().all() and table["overrides"].isna().all()
