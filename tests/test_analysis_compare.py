"""A comparison keeps what is done, runs what is missing, and says what it was made of."""

import json
import shutil
import warnings

import messy
import pytest

import maebench
from maebench import files
from maebench.analysis import compare as module
from maebench.analysis import workers
from maebench.analysis.cells import Data, check_test_sets, estimate
from maebench.analysis.compare import carry_out, default_name, plan_comparison, read_file
from maebench.analysis.design import read_design
from maebench.errors import ConfigError, RunError
from maebench.plugins import installed
from maebench.pretraining import runs

TINY = {"limit": 60, "budget": "steps=2", "evals": ["knn"], "device": "cpu"}
NAMES = installed()


def designed(seeds=2, **settings):
    return read_design({"masking": ["random", "block"], **TINY, **settings}, NAMES, seeds=seeds)


@pytest.fixture
def here(monkeypatch):
    """Cells are done in this process; gives the names of the tasks that were asked for."""
    asked = []

    def in_this_process(tasks, num, threads, logs, fail_fast=False):
        for task in tasks:
            said = []
            asked.append(task["name"])
            workers.serve(iter([task]), said.append)
            yield from said
            if fail_fast and said[-1]["what"] == "failed":
                return

    monkeypatch.setattr(workers, "run_tasks", in_this_process)
    return asked


def carried(results, design=None, **how):
    return carry_out(
        plan_comparison(design or designed(), results, names=NAMES), names=NAMES, **how
    )


def test_arms_that_read_files_differently_each_have_their_own_images(tmp_path):
    root = messy.clean(tmp_path / "images")
    shutil.copy(root / "train/a/0.png", root / "test/a/copy.png")
    settings = {"dataset": f"folder:{root}", "limit": None, "masking": "random"}
    design = designed(**settings, data={"on_duplicates": ["warn", "drop"]})
    found = plan_comparison(design, tmp_path, names=NAMES)
    runs_of = [cell for cell in found.cells if cell.kind == "run" and cell.seed == 0]
    assert [len(cell.plan.splits.load("train")) for cell in runs_of] == [8, 7]
    assert len({cell.name for cell in found.cells}) == len(found.cells)
    pixels = [cell.arm for cell in found.cells if cell.kind == "pixels"]
    assert pixels == list(design.names), "each votes with its own train images"


def test_the_plan_judges_by_content_and_writes_nothing(tmp_path):
    found = plan_comparison(designed(), tmp_path / "results", names=NAMES)
    assert [(c.arm, c.seed, c.kind) for c in found.cells] == [
        *(("random", 0, "run"), ("block", 0, "run"), ("random", 1, "run"), ("block", 1, "run")),
        *(("random", 0, "untrained"), ("random", 1, "untrained"), ("random", 0, "pixels")),
    ]
    assert {c.state for c in found.cells} == {"to run"}
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("what", ["workers", "threads"])
def test_no_worker_and_no_thread_is_refused_before_anything_is_written(tmp_path, what):
    with pytest.raises(ConfigError, match=f"{what}: a whole number above 0 is wanted, given 0"):
        maebench.compare(masking=["random", "block"], **TINY, results=tmp_path / "r", **{what: 0})
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_everything_is_run_once_and_found_the_next_time(tmp_path, here):
    found = carried(tmp_path)
    assert found.finished
    assert len(here) == len(set(here)) == 7
    table, seen = found.table(), list(here)
    again = carried(tmp_path)
    assert here == seen, "nothing was run again"
    assert again.table().equals(table)
    assert again.pairs().equals(found.pairs())
    assert set(table["kind"]) == {"run", "untrained", "pixels"}


@pytest.mark.slow
def test_another_comparison_finds_the_runs_that_it_shares(tmp_path, here):
    carried(tmp_path)
    before = len(here)
    more = read_design({"masking": ["random", "block", "grid"], **TINY}, NAMES, seeds=2)
    found = carried(tmp_path, more)
    assert [name for name in here[before:] if "grid" not in name] == []
    assert found.finished
    assert len(list((tmp_path / "comparisons").iterdir())) == 2


@pytest.mark.slow
def test_an_evaluation_that_is_missing_is_run_and_no_other(tmp_path, here):
    found = carried(tmp_path)
    lost = next(c for c in found.cells if c.arm == "block" and c.seed == 1)
    lost.records[0].unlink()
    planned = plan_comparison(designed(), tmp_path, names=NAMES)
    cell = next(c for c in planned.cells if c.name == lost.name)
    assert (cell.state, cell.reason) == ("goes on", "1 of 1 evaluations missing")
    before = len(here)
    carried(tmp_path)
    assert here[before:] == [lost.name]


@pytest.mark.slow
def test_a_failed_cell_is_kept_with_its_reason_and_tried_again(tmp_path, here):
    bad = read_design({"lr": [1e-3, 1e30], **TINY, "budget": "steps=3"}, NAMES, seeds=1)
    found = carried(tmp_path, bad)
    (failed,) = (c for c in found.cells if c.state == "failed before" and c.kind == "run")
    assert "the loss is" in failed.reason
    assert not found.finished
    assert found.table().set_index("arm").loc["lr=0.001", "num_seeds"].max() == 1
    planned = plan_comparison(bad, tmp_path, names=NAMES)
    assert [c.state for c in planned.cells if c.name == failed.name] == ["failed before"]
    before = len(here)
    carried(tmp_path, bad)
    assert failed.name in here[before:]


def test_the_first_failure_stops_where_that_is_asked(tmp_path, here):
    bad = read_design({"lr": [1e30, 1e-3], **TINY, "budget": "steps=3"}, NAMES, seeds=1)
    carried(tmp_path, bad, fail_fast=True)
    assert len(here) == 1


@pytest.mark.slow
def test_what_was_extended_after_p_values_were_seen_says_so_for_good(tmp_path, here):
    assert not any("extended" in note for note in carried(tmp_path, designed(2)).notes)
    for first in (2, 3):  # the second time three seeds have been seen
        (note,) = (n for n in carried(tmp_path, designed(3)).notes if "extended" in n)
        assert "from 2 to 3 seeds after p values had been seen" in note
        assert f"--seeds {first}-{first + 2}" in note
    fresh = carried(tmp_path, designed("3-4"))
    assert not any("extended" in note for note in fresh.notes), "the seen seeds are left out"
    overlapping = plan_comparison(designed("1-4"), tmp_path, names=NAMES)
    assert any("extended" in note for note in overlapping.notes), "before it is run"


@pytest.mark.slow
def test_one_seed_is_no_look_at_a_p_value(tmp_path, here):
    carried(tmp_path, designed(1))
    assert not any("extended" in note for note in carried(tmp_path, designed(2)).notes)


def test_the_name_covers_what_is_compared_and_not_the_seeds():
    name = default_name(designed())
    assert name.startswith("digits-masking-")
    assert default_name(designed(5)) == name
    assert default_name(designed(evals=["logistic"])) != name
    assert default_name(designed(batch=32)) != name
    assert default_name(designed(data_dir="elsewhere")) == name


@pytest.mark.slow
def test_device_precision_and_threads_are_kept_and_given_to_every_cell(tmp_path, here):
    found = carried(tmp_path)
    assert found.machine["device"] == "cpu"
    assert found.machine["threads"] == 1
    assert set(found.machine["precision"]) == {"random", "block"}
    for cell in found.cells:
        assert cell.plan.config.machine.precision == found.machine["precision"][cell.arm]
    with pytest.raises(ConfigError, match="begun with 1 threads per worker, given 2"):
        plan_comparison(designed(), tmp_path, names=NAMES, threads=2)


@pytest.mark.slow
def test_another_machine_is_named_and_another_device_refused(tmp_path, here):
    folder = carried(tmp_path).folder
    state = files.read_sealed(folder / module.STATE, folder.name)
    state["machine"] |= {"processor": "another"}
    files.write_sealed(folder / module.STATE, state, folder.name)
    notes = plan_comparison(designed(), tmp_path, names=NAMES).notes
    assert any("begun on another machine: processor another became" in note for note in notes)
    state["machine"] |= {"device": "cuda"}
    files.write_sealed(folder / module.STATE, state, folder.name)
    with pytest.raises(ConfigError, match="begun on cuda and would go on on cpu"):
        plan_comparison(designed(), tmp_path, names=NAMES)


@pytest.mark.slow
def test_a_name_is_not_given_twice_to_different_arms(tmp_path, here):
    design = designed()
    carry_out(plan_comparison(design, tmp_path, "mine", NAMES), names=NAMES)
    state = (tmp_path / "comparisons" / "mine" / module.STATE).read_text()
    for other in (designed(masking=["random", "grid"]), designed(batch=32)):
        with pytest.raises(ConfigError, match=r"mine has other arms or settings \(random; block\)"):
            plan_comparison(other, tmp_path, "mine", NAMES)
    assert (tmp_path / "comparisons" / "mine" / module.STATE).read_text() == state
    plan_comparison(designed(4), tmp_path, "mine", NAMES)


@pytest.mark.slow
def test_a_damaged_record_or_run_is_made_again_with_the_same_numbers(tmp_path, here):
    found = carried(tmp_path)
    first, second = found.cells[:2]
    record = first.records[0]
    record.write_text("")
    config = second.plan.run.folder / "config.json"
    config.write_text("{")
    for path in second.records:
        path.with_suffix(".npz").write_bytes(b"PK")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = carried(tmp_path)
    texts = "; ".join(str(one.message) for one in said)
    assert "config.json cannot be read" in texts and f"{record} cannot be read" in texts
    assert {cell.state for cell in again.cells} == {"done"}
    assert again.scores()["value"].tolist() == found.scores()["value"].tolist()
    assert (config.parent / "damaged-config.json").read_text() == "{"


@pytest.mark.slow
def test_a_state_of_another_version_or_none_is_refused(tmp_path, here):
    folder = carried(tmp_path).folder
    for content, words in (
        ('{"format": 99}', "newer maebench"),
        ("{}", "no comparison's state"),
        ('{"format": 1, "arms": {"a": 1}}', r"comparison.json is damaged \(arms, machine\)"),
        ('{"format": 1, "arms": {}, "looks": [3], "machine": []}', r"\(looks, machine\)"),
    ):
        (folder / module.STATE).write_text(content)
        with pytest.raises(ConfigError, match=words):
            plan_comparison(designed(), tmp_path, names=NAMES)
    for content in ("", "{", "[]"):
        (folder / module.STATE).write_text(content)
        with pytest.raises(RunError, match="comparison.json cannot be read"):
            plan_comparison(designed(), tmp_path, names=NAMES)
        # to another comparison it is a warning
        with pytest.warns(UserWarning, match="left out: .*comparison.json cannot be read"):
            plan_comparison(designed(), tmp_path, "another", names=NAMES)


@pytest.mark.slow
def test_arms_of_one_seed_share_weights_and_batches(tmp_path, here):
    found = carried(tmp_path)
    by_seed = {}
    for cell in found.cells:
        if cell.kind == "run":
            by_seed.setdefault(cell.seed, []).append(runs.read_hashes(cell.plan.run))
    for first, second in by_seed.values():
        assert first == second
        assert set(first) == {"encoder", "module", "first_batch", "last_batch"}
    assert by_seed[0][0] != by_seed[1][0]


@pytest.mark.slow
def test_a_run_that_began_otherwise_is_refused(tmp_path, here):
    found = carried(tmp_path)
    cell = next(c for c in found.cells if c.arm == "block" and c.kind == "run")
    runs.note_hashes(cell.plan.run, first_batch="0" * 20)
    with pytest.raises(RunError, match="the first batch differ between arms"):
        carried(tmp_path)


def test_arms_that_would_be_tested_on_other_images_are_refused():
    cells = plan_comparison(designed(1), "nowhere", names=NAMES).cells[:2]
    other = cells[1].plan.splits.dataset
    assert other.name == "digits"
    check_test_sets(cells)
    with pytest.raises(ConfigError, match="have different test images"):
        plan_comparison(
            read_design({"image_size": [[8, 8], [16, 16]], **TINY}, NAMES), "nowhere", names=NAMES
        )


def test_images_are_loaded_once_for_all_cells():
    data = Data()
    found = plan_comparison(designed(3), "nowhere", names=NAMES, data=data)
    assert len(data.loaded) == 1
    assert len({id(cell.plan.splits) for cell in found.cells}) == 1


@pytest.mark.slow
def test_from_python_lists_make_arms(tmp_path, here):
    found = maebench.compare(
        masking=["random", maebench.Block(aspect=0.5)],
        seeds=1,
        baseline="block",
        results=tmp_path,
        **TINY,
    )
    assert isinstance(found, maebench.Comparison)
    assert found.design.names == ["random", "block(aspect=0.5)"]
    assert found.design.baseline == "block(aspect=0.5)"
    assert set(found.plot()) == {"arms", "differences"}
    with pytest.raises(ConfigError, match="no arm"):
        maebench.compare(masking=["random", "block"], baseline="grid", results=tmp_path)


def test_a_yaml_file_has_evaluations_by_their_names_and_settings_by_their_flags(tmp_path):
    file = tmp_path / "compare.yaml"
    file.write_text(
        "linear-probe: {iterations: 7}\ndata-dir: here\nprobe-seeds: 2\nevals: [linear-probe]\n"
    )
    settings, own = read_file(file)
    assert own == {"probe_seeds": 2}
    assert settings["data_dir"] == "here"
    design = read_design({**settings, "ratio": [0.5, 0.75]}, NAMES, **own)
    assert design.arms[0].config.evals[0].iterations == 7


@pytest.mark.slow
def test_another_baseline_after_p_values_were_seen_is_said(tmp_path, here):
    carried(tmp_path)
    other = read_design({"masking": ["random", "block"], **TINY}, NAMES, seeds=2, baseline="block")
    notes = plan_comparison(other, tmp_path, names=NAMES).notes
    assert any("had been seen against another baseline (random)" in note for note in notes)
    assert not any("baseline" in n for n in plan_comparison(designed(), tmp_path).notes)


@pytest.mark.slow
def test_arms_whose_p_values_were_seen_elsewhere_are_said(tmp_path, here):
    first = carried(tmp_path)
    more = read_design({"masking": ["random", "block", "grid"], **TINY}, NAMES, seeds=2)
    notes = plan_comparison(more, tmp_path, names=NAMES).notes
    assert any(f"had been seen in {first.name}" in note for note in notes)
    fresh = read_design({"masking": ["random", "block", "grid"], **TINY}, NAMES, seeds="2-3")
    assert not any("seen" in n for n in plan_comparison(fresh, tmp_path, names=NAMES).notes)


@pytest.mark.slow
def test_of_several_looks_the_fresh_seeds_are_beyond_the_last(tmp_path, here):
    for seeds in (2, 3):
        carried(tmp_path, designed(seeds))
    (note,) = (n for n in plan_comparison(designed(4), tmp_path).notes if "extended" in n)
    assert "such as --seeds 3-6" in note


@pytest.mark.slow
def test_nothing_seen_is_no_look(tmp_path, here):
    bad = read_design({"lr": [1e-3, 1e30], **TINY, "budget": "steps=3"}, NAMES, seeds=2)
    found = carried(tmp_path, bad)
    state = json.loads((found.folder / module.STATE).read_text())
    assert state["looks"] == [], "one arm has no number"


def test_whatever_goes_wrong_in_the_measurement_is_left_to_the_cell(tmp_path, monkeypatch):
    def broken(plan):
        raise ValueError("a plugin's own mistake")
        yield

    monkeypatch.setattr("maebench.analysis.cells.pretrain", broken)
    found = plan_comparison(designed(1), tmp_path / "results", names=NAMES)
    assert estimate(found.cells, 1).step_seconds == {"random": 0, "block": 0}


def test_an_arm_of_other_images_or_another_objective_has_floors_of_its_own():
    arms = [{"limit": 60}, {"limit": 80}, {"limit": 80, "objective": "simmim"}]
    settings = {name: value for name, value in TINY.items() if name != "limit"}
    design = read_design(settings, NAMES, arms=arms, seeds=1)
    found = plan_comparison(design, "nowhere", names=NAMES)
    floors = [(c.kind, c.arm) for c in found.cells if c.kind != "run"]
    names = design.names
    assert floors == [
        *(("untrained", name) for name in names),
        *(("pixels", name) for name in names[:2]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", [{"objective": ["mae", "simmim"]}, {"ratio": [0.5, 0.75], "budget": "seconds=0.5"}]
)
def test_arms_that_differ_by_what_is_compared_are_no_refusal(tmp_path, here, what):
    design = read_design({**TINY, **what}, NAMES, seeds=1)
    assert carried(tmp_path, design).finished
