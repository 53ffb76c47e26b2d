"""One config from flags, -o, YAML and presets, and what of it makes a run another run."""

from __future__ import annotations

import json
from typing import ClassVar

import fakes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maebench import files
from maebench.config.length import Budget
from maebench.config.parts import Machine, Optimiser, Schedule
from maebench.config.run import DEFAULT_EVALUATIONS, RunConfig, merge
from maebench.config.sources import from_sources
from maebench.data.augment import Augment
from maebench.data.reading import Reading
from maebench.errors import ConfigError
from maebench.masking.blocks import Block
from maebench.masking.grids import Random
from maebench.plugins import installed


@pytest.fixture(scope="module")
def names():
    return installed()


@pytest.fixture
def config(names, tmp_path):
    """Makes a config as the command line does: config(ratio="0.5", o=[...], yaml=...)."""

    def make(*, o=(), yaml=None, **flags):
        file = None
        if yaml is not None:
            file = tmp_path / "config.yaml"
            file.write_text(yaml)
        return from_sources(flags, o, file, names)

    return make


def refused(make, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        make(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message
    return message


# --- who wins


def test_flags_beat_options_beat_yaml_beat_the_preset(config):
    preset = config()
    yaml = "batch: 3\nlr: 0.3\nratio: 0.3\nseed: 3"
    assert config(yaml=yaml).batch == 3 != preset.batch
    mixed = config(yaml=yaml, o=["batch=4", "lr=0.4"], batch="5")
    assert (mixed.batch, mixed.lr, mixed.ratio, mixed.seed) == (5, 0.4, 0.3, 3)
    assert mixed.encoder == preset.encoder and mixed.budget == preset.budget


def test_what_nobody_gives_comes_from_the_data_sets_preset(config):
    found, preset = config(), config().dataset.preset()
    assert found.size == preset["image_size"] and found.encoder.name == preset["encoder"]
    assert str(found.budget) == preset["budget"] and found.lr == preset["lr"]
    assert found.augment == Augment(**preset["augment"])
    assert [e.name for e in found.evals] == list(DEFAULT_EVALUATIONS)


def test_one_option_of_the_preset_is_changed_and_the_others_stay(config):
    preset, changed = config(), config(o=["augment.flip=true", "encoder.depth=4"])
    assert changed.augment == preset.augment.model_copy(update={"flip": True})
    assert changed.encoder == preset.encoder.model_copy(update={"depth": 4})
    assert changed.encoder.name == "vit-nano"


def test_an_option_without_a_name_is_one_of_the_default_part(config):
    assert config(o=["objective.target=pixels"]).objective.target == "pixels"
    message = refused(config, o=["masking.aspect=0.5"])
    assert "masking: unknown option 'aspect': random has no options" in message


@pytest.mark.parametrize(
    "sources",
    [
        {"o": ["masking.aspect=0.5"], "masking": "block"},
        {"o": ["masking=block", "masking.aspect=0.5"]},
        {"o": ["masking.aspect=0.5", "masking=block"]},
        {"yaml": "masking: {name: block, aspect: 0.5}"},
        {"yaml": "masking: {name: block, aspect: 0.5}", "masking": "block"},
        {"yaml": "masking: block", "o": ["masking.aspect=0.5"]},
        {"yaml": "masking: {name: block, aspect: 0.1}", "o": ["masking.aspect=0.5"]},
        {"yaml": "masking: {name: grid, k: 3}", "o": ["masking.aspect=0.5"], "masking": "block"},
    ],
)
def test_name_and_options_of_one_part_come_together_from_wherever(config, sources):
    assert config(**sources).masking == Block(aspect=0.5)


@pytest.mark.parametrize("yaml", ["objective: {on: all}", "objective:\n  name: mae\n  on: all"])
def test_an_option_named_on_can_be_written_in_yaml(config, yaml):
    assert config(yaml=yaml).objective.on == "all"  # plain YAML 1.1 reads the key as true
    assert config(o=["objective.on=all"]).objective.on == "all"


def test_another_components_options_do_not_survive_a_changed_name(config):
    yaml = "masking: {name: block, aspect: 0.5}\nencoder: {name: vit-nano, depth: 9}"
    found = config(yaml=yaml, masking="grid", o=["encoder=vit-micro"])
    assert found.masking.changed() == "grid" and found.encoder.changed() == "vit-micro"
    assert merge({"m": {"name": "a", "x": 1}}, {"m": {"name": "b"}}) == {"m": {"name": "b"}}
    assert merge({"m": {"name": "a", "x": 1}}, {"m": {"name": "a", "y": 2}}) == {
        "m": {"name": "a", "x": 1, "y": 2}
    }


def test_options_of_evaluations_reach_them(config):
    found = config(o=["knn.k=1,5", "linear-probe.iterations=3"], evals="knn,linear-probe")
    assert found.evals[0].k == (1, 5) and found.evals[1].iterations == 3
    assert config(yaml="knn: {k: [1, 5]}\nlinear-probe: {iterations: 3}").evals[0].iterations == 3
    assert config(yaml="evals: [{name: knn, k: [2]}]", o=["knn.k=7"]).evals[0].k == (7,)
    assert "not among --evals" in refused(config, o=["knn.k=1"], evals="linear-probe")


def test_no_evaluations_are_none_and_not_all(config):
    assert config(evals="").evals == () == config(yaml="evals: []").evals
    assert len(config(yaml="evals:").evals) == len(DEFAULT_EVALUATIONS)


def test_objects_and_texts_and_mappings_are_the_same_config(names):
    by_object = RunConfig(names, masking=Block(aspect=0.5), budget=Budget(unit="steps", amount=7))
    by_text = RunConfig(names, masking={"name": "block", "aspect": "0.5"}, budget="steps=7")
    assert by_object == by_text and hash(by_object.masking) == hash(by_text.masking)


def test_a_config_is_read_back_from_what_it_dumps(config, names):
    found = config(
        o=["encoder.patch=2,4", "knn.k=3", "augment.scale=0.5,1", "optimiser.clip=1"],
        budget="steps=1234567",
        masking="block",
        image_size="8,16",
        limit="100",
    )
    assert RunConfig(names, **json.loads(json.dumps(found.dump()))) == found


# --- bad values


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"ratio": "0"}, ["ratio:", "greater than 0", "'0'"]),
        ({"ratio": "1"}, ["ratio:", "less than 1", "'1'"]),
        ({"ratio": "nan"}, ["ratio:", "finite", "'nan'"]),
        ({"ratio": "much"}, ["ratio:", "valid number", "'much'"]),
        ({"batch": "0"}, ["batch:", "greater than 0", "'0'"]),
        ({"batch": "1.5"}, ["batch:", "valid integer", "'1.5'"]),
        ({"lr": "-1"}, ["lr:", "greater than 0", "'-1'"]),
        ({"lr": "inf"}, ["lr:", "finite", "'inf'"]),
        ({"seed": "-1"}, ["seed:", "greater than or equal to 0", "'-1'"]),
        ({"limit": "0"}, ["limit:", "greater than 0", "'0'"]),
        ({"on_bad_image": "ignore"}, ["on_bad_image:", "'fail' or 'skip'", "'ignore'"]),
        ({"dataset": "digit"}, ["dataset:", "'digit'", "Did you mean 'digits'?"]),
        ({"encoder": "vit-nan"}, ["encoder:", "'vit-nan'", "Did you mean 'vit-nano'?", "vit-huge"]),
        ({"objective": "simmin"}, ["objective:", "'simmin'", "There is:", "mae"]),
        ({"masking": "blok"}, ["masking:", "'blok'", "Did you mean 'block'?", "centred"]),
        ({"masking": "block:3"}, ["masking:", "nothing after a colon", "'3'"]),
        ({"evals": "kn"}, ["kn", "Did you mean 'knn'?", "linear-probe"]),
        ({"budget": "3"}, ["budget:", "epochs=N, steps=N, tokens=N, flops=N, seconds=N", "'3'"]),
        ({"budget": "steps=0"}, ["budget.amount:", "greater than 0", "'0'"]),
        ({"budget": "steps=-1"}, ["budget.amount:", "greater than 0", "'-1'"]),
        ({"budget": "steps=1.5"}, ["budget:", "steps are whole", "1.5"]),
        ({"budget": "hours=1"}, ["budget:", "epochs=N, steps=N", "'hours=1'"]),
        ({"image_size": "wide"}, ["image_size", "'wide'"]),
        ({"image_size": "0"}, ["image_size", "greater than 0", "0"]),
        ({"image_size": "8,8,8"}, ["image_size", "8"]),
        ({"image_size": "8,"}, ["image_size", "8"]),
        ({"o": ["masking.aspect"]}, ["-o 'masking.aspect'", "part.key=value"]),
        ({"o": ["a.b.c=1"]}, ["-o 'a.b.c=1'", "part.key=value"]),
        ({"o": [".aspect=1"]}, ["-o '.aspect=1'", "part.key=value"]),
        ({"o": ["mask.aspect=1"]}, ["-o 'mask.aspect=1'", "Did you mean 'masking'?"]),
        ({"o": ["masking=block", "masking.aspec=1"]}, ["masking:", "Did you mean 'aspect'?"]),
        ({"o": ["masking=block", "masking.aspect=2"]}, ["masking.aspect:", "equal to 1", "'2'"]),
        ({"o": ["optimiser.beta1=1"]}, ["optimiser.beta1:", "less than 1", "'1'"]),
        ({"o": ["optimiser=sgd"]}, ["optimiser:", "'sgd'"]),
        ({"o": ["machine.precision=fp8"]}, ["machine.precision:", "'bf16'", "'fp8'"]),
        ({"o": ["machine.trackers=wandb"]}, ["machine.trackers.0:", "unknown tracker 'wandb'"]),
        ({"o": ["augment.scale=1"]}, ["augment.scale"]),
        ({"o": ["augment.scale=0.9,0.1"]}, ["scale", "smallest <= largest", "0.9, 0.1"]),
        ({"o": ["augment.flip=perhaps"]}, ["augment.flip:", "boolean", "'perhaps'"]),
        ({"o": ["knn.k=0"]}, ["k.0:", "greater than 0", "'0'"]),
        ({"o": ["knn.j=1"]}, ["unknown option 'j' in knn", "k, layer, pool"]),
        ({"o": ["budget.amount=x"]}, ["budget.amount:", "'x'"]),
        ({"yaml": "- 1"}, ["--config", "config.yaml", "mapping", "[1]"]),
        ({"yaml": ""}, ["--config", "config.yaml", "mapping", "None"]),
        ({"yaml": "a: ["}, ["--config", "config.yaml", "no YAML"]),
        ({"yaml": "!!python/object:os.system {}"}, ["--config", "no YAML"]),
        ({"yaml": "batsh: 3"}, ["unknown option 'batsh'", "Did you mean 'batch'?"]),
        ({"yaml": "1: 2"}, ["unknown option '1'"]),
        ({"yaml": "augment: {1: 2}"}, ["augment:", "unknown option '1'", "flip"]),
        ({"yaml": "masking: {aspect: 0.5, 1: 2, name: block}"}, ["masking:", "unknown option '1'"]),
        ({"yaml": "masking: [block]"}, ["masking:", "dictionary or instance of Masking", "block"]),
        ({"yaml": "masking:"}, ["masking:", "'null'"]),
        ({"yaml": "evals: 3"}, ["evals:", "list of names", "3"]),
        ({"yaml": "evals: {knn: {k: 3}}"}, ["evals:", "list of names", "knn"]),
        ({"yaml": "evals: [{k: 3}]"}, ["the evaluation has no name"]),
        ({"yaml": "evals: [3]"}, ["3", "instance of Evaluation"]),
        ({"yaml": "ratio: .nan"}, ["ratio:", "finite", "NaN"]),
        ({"yaml": "batch: 1e400"}, ["batch:", "1e400"]),
    ],
    ids=str,
)
def test_a_bad_value_is_one_line_with_place_what_was_given_and_what_is_allowed(
    config, flags, words
):
    message = refused(config, **flags)
    assert [word for word in words if word.lower() not in message.lower()] == [], message


def test_a_yaml_file_that_cannot_be_read_is_named(names, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        message = refused(from_sources, {}, (), path, names)
        assert message.startswith(f"--config {path}")


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["name", "k", "scale"]) | st.integers(), inner, max_size=3),
    max_leaves=6,
), st.sampled_from([*RunConfig.model_fields, "knn", "linear-probe", "other"]))  # fmt: skip
def test_whatever_a_yaml_file_holds_it_is_a_config_or_one_line(tmp_path_factory, value, key):
    import yaml

    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump({key: value}), encoding="utf-8")
    try:
        assert isinstance(from_sources({}, (), path, ANY_NAMES), RunConfig)
    except ConfigError as error:
        assert "\n" not in str(error).replace(str(value), "")


ANY_NAMES = installed()


# --- budget and image size


@given(st.sampled_from(["epochs", "tokens", "flops"]), st.floats(0, 1e12, exclude_min=True))
def test_a_budget_is_read_back_exactly_from_its_text(unit, amount):
    budget = Budget(unit=unit, amount=amount)
    assert Budget.model_validate(str(budget)) == budget
    assert Budget.model_validate(budget.model_dump()) == budget


def test_a_large_budget_may_be_written_with_an_exponent():
    assert Budget.model_validate("flops=1e15") == Budget.model_validate("flops=1E+15")


def test_two_long_budgets_have_two_texts():
    texts = {str(Budget(unit="steps", amount=n)) for n in (1234567, 1234568, 1_000_000)}
    assert texts == {"steps=1234567", "steps=1234568", "steps=1000000"}


def test_a_budget_is_changed_in_one_part_or_whole(config):
    assert str(config(o=["budget.amount=3"]).budget) == "steps=3"  # digits' preset counts steps
    assert str(config(yaml="budget: {unit: steps, amount: 3}").budget) == "steps=3"
    assert (
        str(config(yaml="budget: {unit: steps, amount: 3}", budget="epochs=2").budget) == "epochs=2"
    )


@pytest.mark.parametrize(
    ("given_size", "size"),
    [
        ("16", (16, 16)),
        (16, (16, 16)),
        ("16,32", (16, 32)),
        ("16x32", (16, 32)),
        (" 16 , 32 ", (16, 32)),
        ([16, 32], (16, 32)),
        ((16, 32), (16, 32)),
    ],
)
def test_an_image_size_is_one_side_or_rows_and_columns(names, given_size, size):
    assert RunConfig(names, image_size=given_size).size == size
    assert RunConfig(names, image_size=given_size).dump()["image_size"] == list(size)


# --- the flags


def test_the_flags_of_run_are_exactly_these():
    """One more flag is one more thing to learn for everybody: everything else is reached by -o."""
    from maebench.cli.run import pretrain_command, run_command

    for command in (run_command, pretrain_command):
        assert [o for p in command.params for o in p.opts] == [
            *("--dataset", "--data-dir", "--download", "--on-bad-image", "--image-size"),
            *("--encoder", "--objective", "--masking", "--ratio", "--budget", "--batch", "--lr"),
            *("--seed", "--device", "--limit", "--evals", "--results", "--config"),
            *("--recipe", "--override", "-o"),
        ]


def test_every_setting_has_help():
    for cls in (RunConfig, Budget, Optimiser, Machine, Augment, Schedule):
        assert all(f.description for f in cls.model_fields.values()), cls


# --- identity: what makes a run another run

# Another valid value for every field. A new field fails here until somebody decides about it.
OTHER = {
    "dataset": "other-digits",
    "data_dir": "/somewhere/else",
    "download": True,
    "on_bad_image": "skip",
    "image_size": (16, 16),
    "encoder": "vit-micro",
    "objective": {"name": "mae", "target": "pixels"},
    "masking": "block",
    "schedule": {"ratio": 0.5},
    "ratio": 0.5,
    "budget": "steps=7",
    "batch": 32,
    "lr": 0.5,
    "seed": 1,
    "device": "cpu",
    "limit": 100,
    "evals": ["knn"],
    "augment": {"flip": True},
    # what it changes is in the fingerprint of the images
    "data": {
        "background": "black",
        "exif": "ignore",
        "on_duplicates": "drop",
        "reduced_jpeg": True,
    },
    "optimiser": {"beta2": 0.9},
    "machine": {"precision": "fp32", "memory_gb": 1, "checkpoint_seconds": 1},
    "recipe": {"name": "mae-digits", "hash": "0", "overrides": {"ratio": (0.75, 0.5)}},
}
COUNTS = {
    *("dataset", "image_size", "encoder", "objective", "masking", "ratio", "budget", "batch"),
    *("lr", "seed", "limit", "augment", "optimiser", "schedule"),
}


class OtherDigits(type(RunConfig(ANY_NAMES).dataset)):
    """The same images under another name."""

    name: ClassVar[str] = "other-digits"


class OtherData:
    from maebench import hookimpl

    @hookimpl
    def register_datasets(self):
        return [OtherDigits]


@pytest.fixture(scope="module")
def more_names():
    return fakes.names(fakes.Fakes(), OtherData())


def identity_hash(names, settings, **given_to_identity):
    facts = {"fingerprint": "f", "precision": "fp32", **given_to_identity}
    return files.short_hash(RunConfig(names, **settings).identity(**facts))


@pytest.mark.parametrize("field", RunConfig.model_fields)
def test_a_field_changes_the_hash_exactly_if_it_can_change_the_numbers(more_names, field):
    changed = identity_hash(more_names, {field: OTHER[field]})
    assert RunConfig(more_names, **{field: OTHER[field]}) != RunConfig(more_names)
    assert (changed != identity_hash(more_names, {})) == (field in COUNTS)
    assert (field in RunConfig.IDENTITY) == (field in COUNTS)


INNER = {
    ("augment", "scale"): (0.5, 1),
    ("augment", "aspect"): (0.5, 2),
    ("augment", "shift"): 3,
    ("augment", "flip"): True,
    ("optimiser", "weight_decay"): 0.1,
    ("optimiser", "beta1"): 0.8,
    ("optimiser", "beta2"): 0.9,
    ("optimiser", "warmup"): 0.2,
    ("optimiser", "min_lr"): 0.1,
    ("optimiser", "clip"): 1.0,
    ("optimiser", "accumulate"): 2,
    ("schedule", "ratio"): 0.5,
    ("schedule", "stages"): 3,
}


def test_every_option_of_augment_and_optimiser_is_among_those_tested():
    fields = [("augment", f) for f in Augment.model_fields]
    fields += [("schedule", f) for f in Schedule.model_fields]
    assert set(INNER) == {*fields, *(("optimiser", f) for f in Optimiser.model_fields)}


@pytest.mark.parametrize(("part", "option"), INNER)
def test_every_option_of_augment_and_optimiser_counts(names, part, option):
    base = {part: {"ratio": 0.9}} if part == "schedule" else {}  # without one nothing moves
    changed = merge(base, {part: {option: INNER[part, option]}})
    assert identity_hash(names, changed) != identity_hash(names, base)


def test_data_precision_options_and_versions_count(names, monkeypatch):
    base = identity_hash(names, {})
    assert identity_hash(names, {}, fingerprint="g") != base
    assert identity_hash(names, {}, precision="bf16") != base
    assert identity_hash(names, {"encoder": {"name": "vit-nano", "registers": 1}}) != base
    monkeypatch.setattr(Random, "version", Random.version + 1)
    assert identity_hash(names, {}) != base


def test_masking_and_ratio_do_not_count_where_nothing_is_hidden(more_names):
    labelled = {"objective": "labelled"}
    base = identity_hash(more_names, labelled)
    assert base != identity_hash(more_names, {})
    assert identity_hash(more_names, {**labelled, "seed": 1}) != base


@pytest.mark.parametrize(
    "setting", [{"masking": "random"}, {"ratio": 0.75}, {"schedule": {"ratio": 0.5}}], ids=str
)
def test_a_masking_is_refused_where_nothing_is_hidden(more_names, setting):
    with pytest.raises(ConfigError) as error:
        RunConfig(more_names, objective="labelled", **setting)
    key = next(iter(setting))
    assert str(error.value).startswith(f"{key}: objective 'labelled' hides no patch; masking, ")
    assert "mae" in str(error.value) and "\n" not in str(error.value)


def test_the_same_settings_have_the_same_hash_however_they_are_written(config, names):
    def mark(found):
        return files.short_hash(found.identity("f", "fp32"))

    written = config(yaml="masking: {name: block, aspect: 0.50}", lr="1e-3", image_size="16")
    same = RunConfig(names, masking=Block(aspect=0.5), lr=0.001, image_size=(16, 16))
    assert mark(written) == mark(same)
    assert mark(config(o=["masking=block", "masking.aspect=0.3"])) == mark(config(masking="block"))


# ---- nothing is allocated, or looped by, without a bound

# What is compared with what there is before it is used: images of train and test, patches of the
# grid, blocks of the encoder.
COMPARED = {
    *("k", "layer", "patches", "samples", "size", "hog_cell", "teacher_layers"),
    *("limit", "seed"),
}


def unbounded(schema, key):
    """The whole numbers of an option that have no upper bound, by JSON schema."""
    if schema.get("type") == "integer" and not {"maximum", "exclusiveMaximum"} & schema.keys():
        yield key
    inner = [*schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    for each in [*inner, *([schema["items"]] if isinstance(schema.get("items"), dict) else [])]:
        yield from unbounded(each, key)


def test_every_whole_number_that_can_be_set_has_a_bound():
    groups = (RunConfig, Optimiser, Machine, Schedule, Augment, Reading)
    classes = [cls for some in installed().table.values() for cls in some.values()]
    found = {
        (cls.__name__, key)
        for cls in (*groups, *classes)
        if cls.__module__.startswith("maebench")
        for option, schema in cls.model_json_schema()["properties"].items()
        for key in unbounded(schema, option)
    }
    assert {(cls, key) for cls, key in found if key not in COMPARED} == set()


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder": {"depth": 10**9}},
        {"encoder": {"width": 10**9}},
        {"encoder": {"mlp_ratio": 1e300}},
        {"encoder": {"registers": 10**9}},
        {"objective": {"decoder_depth": 10**9}},
        {"image_size": 10**6},
        {"batch": 10**12},
        {"budget": "epochs=1e308"},
        {"optimiser": {"accumulate": 10**12}},
        {"machine": {"memory_gb": 1e308}},
        {"data": {"cache_gb": 1e308}},
        {"augment": {"shift": 10**9}},
    ],
)
def test_an_absurd_size_is_refused_with_what_is_allowed(settings):
    with pytest.raises(ConfigError, match=r"less than or equal to .*, given") as caught:
        RunConfig(**settings)
    assert "\n" not in str(caught.value)
