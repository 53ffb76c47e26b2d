"""`maebench eval` of weights from elsewhere, and `maebench export`, as a user types them."""

from __future__ import annotations

import json
import os
import warnings

import pytest
import tiny
import torch

from maebench.analysis.records import load_records
from maebench.cli import main

EVAL = ("-o", "k=1", "--device", "cpu", "--limit", "60")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    tiny.plan(folder)
    return folder


def call(capsys, results, *arguments):
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:  # main() shows them its way
        main([*arguments, "--results", str(results)])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.fixture
def exported(results, tmp_path, capsys):
    """The run's weights as a file of timm's."""
    path = tmp_path / "vit.safetensors"
    code, _, err = call(capsys, results, "export", "--to", "timm", "--out", str(path))
    assert (code, err) == (0, "")
    return path


@pytest.mark.slow
def test_one_table_of_a_run_its_floor_pixels_and_two_foreign_models(results, exported, capsys):
    models = ("", "untrained:", "pixels:", f"file:{exported}", "timm:resnet10t,image-size=32")
    code, out, err = call(capsys, results, "eval", "knn", *models, *EVAL)
    assert code == 0, err
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert len(lines) == len(models)
    assert "timm:resnet10t,image-size=32 (random weights)" in out
    table = load_records(results)
    main_rows = table[(table["evaluation"] == "knn") & table["main"].astype(bool)]
    by_kind = dict(zip(main_rows["model_kind"], main_rows["value"], strict=True))
    assert by_kind["file"] == by_kind["run"]  # the same weights, through a file
    assert set(by_kind) == {"run", "untrained", "pixels", "file", "timm"}


def test_the_verdict_is_printed_and_stored(results, exported, capsys):
    code, _, err = call(capsys, results, "eval", "knn", f"file:{exported}", *EVAL)
    assert code == 0
    assert "weights: decoder missing: 30 weights of" in err
    table = load_records(results)
    row = table[table["model"] == f"file:{exported}"].iloc[0]
    assert row["weights"].startswith("decoder missing: 30 weights of")
    folder = os.path.dirname(os.path.dirname(row["file"]))  # noqa: PTH120
    with open(f"{folder}/model.json") as file:  # noqa: PTH123
        stored = json.load(file)
    assert (stored["verdict"], stored["used"], stored["missing"]) == ("decoder missing", 30, [])
    assert stored["preprocessing"]["size"] == [8, 8]


def test_reconstruction_of_an_encoder_alone_is_not_applicable(results, exported, capsys):
    code, _, err = call(
        capsys, results, "eval", "reconstruction", f"file:{exported}", "--limit", "60"
    )
    assert code == 1
    assert "not applicable: the weights hold no decoder" in err


@pytest.mark.slow
def test_reconstruction_of_a_full_file_equals_the_runs(results, tmp_path, capsys):
    out = tmp_path / "folder"
    assert call(capsys, results, "export", "--to", "hf", "--out", str(out))[0] == 0
    code, _, err = call(capsys, results, "eval", "reconstruction", "", f"hf:{out}", "--limit", "60")
    assert code == 0, err
    table = load_records(results)
    rows = table[(table["evaluation"] == "reconstruction") & table["main"].astype(bool)]
    assert len(rows) >= 2
    assert rows["value"].nunique() == 1


def test_a_key_map_is_taken_from_a_file(results, exported, tmp_path, capsys):
    from safetensors.torch import load_file

    renamed = {name.replace("blocks.", "layers."): t for name, t in load_file(exported).items()}
    torch.save(renamed, tmp_path / "theirs.pth")
    (tmp_path / "map.yaml").write_text("'^layers\\.': 'blocks.'\n")
    options = "heads=2,mean=0.3,std=0.4"
    spec = f"file:{tmp_path / 'theirs.pth'},{options}"
    code, _, err = call(capsys, results, "eval", "knn", spec, *EVAL)
    assert code == 1
    assert "encoder is incomplete" in err
    assert "--key-map FILE.yaml" in err
    mapped = ("--key-map", str(tmp_path / "map.yaml"))
    code, out, err = call(capsys, results, "eval", "knn", spec, *mapped, *EVAL)
    assert code == 0, err
    assert "│ file:" in out


def test_a_path_with_commas_and_equals_signs_is_a_path(results, exported, tmp_path, capsys):
    folder = tmp_path / "lr=1e-3,wd=0.05"
    folder.mkdir()
    path = exported.rename(folder / "vit,heads=9.safetensors")
    code, _, err = call(capsys, results, "eval", "knn", f"file:{path},heads=2", *EVAL)
    assert code == 0, err
    assert f"{path}" in err


def test_raw_and_averaged_weights_are_two_rows_and_the_raw_ones_say_so(
    results, exported, tmp_path, capsys
):
    from safetensors.torch import load_file

    raw = load_file(exported)
    mean = {name: tensor * 0.5 for name, tensor in raw.items()}
    mean["pos_embed"] = raw["pos_embed"]
    torch.save({"state_dict": raw, "state_dict_ema": mean}, tmp_path / "both.pth.tar")
    spec = f"file:{tmp_path / 'both.pth.tar'},heads=2,mean=0.3,std=0.4"
    ema = f"{spec},key=state_dict_ema"
    code, _, err = call(capsys, results, "eval", "knn", spec, ema, *EVAL)
    assert code == 0, err
    assert err.count("the raw weights of key state_dict were taken") == 1
    table = load_records(results)
    rows = table[table["model"].isin([spec, ema]) & table["main"].astype(bool)]
    assert rows["weights_hash"].nunique() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eval", "knn", "file:none.pth"), "there is no such file"),
        (("eval", "knn", "file:"), "names nothing: write file:PATH"),
        (("eval", "knn", "fil:x.pth"), "unknown kind of model 'fil'"),
        (("eval", "knn", "timm:resnet10"), "unknown model of timm 'resnet10'"),
        (("eval", "knn", "hf:nobody/nothing"), "nothing was downloaded: --download asks the hub"),
        (("eval", "knn", "timm:resnet10t,size=3"), "unknown option 'size'"),
        (("masks", "--model", "timm:resnet10t"), "only a run of maebench can be asked"),
        (("export", "--to", "tim"), "Did you mean 'timm'"),
        (("export", "--to", "official"), "1 channels"),
        (("export", "pixels:", "--to", "hf"), "is no run"),
        (("export", "nothing", "--to", "hf"), "unknown run 'nothing'"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_1(results, capsys, arguments, message):
    code, out, err = call(capsys, results, *arguments)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


def test_export_without_a_side_is_exit_code_2(results, capsys):
    assert call(capsys, results, "export")[0] == 2


def test_export_does_not_replace_what_is_there_unasked(results, exported, capsys):
    before = exported.read_bytes()
    arguments = ("export", "untrained:", "--to", "timm", "--out", str(exported))
    code, _, err = call(capsys, results, *arguments)
    assert code == 1
    assert "is there already: give another one, or --force" in err
    assert exported.read_bytes() == before
    assert call(capsys, results, *arguments, "--force")[0] == 0
    assert exported.read_bytes() != before


@pytest.mark.slow
def test_without_a_run_a_foreign_model_wants_a_data_set(tmp_path, capsys):
    spec = "timm:resnet10t,image-size=32"
    code, _, err = call(capsys, tmp_path, "eval", "knn", spec, *EVAL)
    assert code == 1
    assert "there is no run: give --dataset" in err
    code, out, err = call(capsys, tmp_path, "eval", "knn", spec, "--dataset", "digits", *EVAL)
    assert code == 0, err
    assert "random weights" in out


def test_features_of_a_foreign_model_are_written(results, exported, tmp_path, capsys):
    import numpy as np

    both = {}
    for name, spec in (("run", ""), ("file", f"file:{exported}")):
        out = tmp_path / f"{name}.npz"
        code, _, err = call(capsys, results, "features", spec, "--out", str(out), "--device", "cpu")
        assert code == 0, err
        both[name] = np.load(out)["features"]
    assert np.array_equal(both["run"], both["file"])


def test_a_malicious_file_is_refused_and_does_nothing(results, tmp_path, capsys):
    mark = tmp_path / "ran"

    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    torch.save({"model": Runs()}, tmp_path / "bad.pth")
    code, _, err = call(capsys, results, "eval", "knn", f"file:{tmp_path / 'bad.pth'}", *EVAL)
    assert code == 1
    assert "posix.system would have to be run" in err
    assert not mark.exists()


def test_export_never_replaces_a_folder_that_holds_other_files(results, tmp_path, capsys):
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    (tmp_path / "mine" / "thesis.txt").write_text("important")
    for to in ("hf", "timm"):
        out = str(tmp_path / "mine")
        code, _, err = call(capsys, results, "export", "--to", to, "--out", out, "--force")
        assert code == 1
        assert "holds other files" in err or "ends in .safetensors" in err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "important"
    out = str(tmp_path / "theirs")
    assert call(capsys, results, "export", "--to", "hf", "--out", out)[0] == 0
    assert call(capsys, results, "export", "untrained:", "--to", "hf", "--out", out)[0] == 1
    assert (
        call(capsys, results, "export", "untrained:", "--to", "hf", "--out", out, "--force")[0] == 0
    )


def test_a_name_with_another_ending_is_refused(results, tmp_path, capsys):
    code, _, err = call(capsys, results, "export", "--to", "timm", "--out", str(tmp_path / "x.pth"))
    assert code == 1
    assert "ends in .safetensors is wanted for timm" in err


def test_a_run_of_another_results_folder_is_shown_too(results, tmp_path, capsys):
    (run,) = (results / "runs").iterdir()
    code, out, err = call(capsys, tmp_path, "eval", "knn", str(run), *EVAL[:4])
    assert code == 0, err
    assert "knn" in out and run.name[:20] in out


def test_numbers_are_made_anew_when_what_stands_beside_the_weights_changes(
    results, tmp_path, capsys
):
    out = tmp_path / "folder"
    assert call(capsys, results, "export", "--to", "hf", "--out", str(out))[0] == 0
    features = []
    for eps in (1e-6, 0.5):
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, "layer_norm_eps": eps}))
        model = tiny.load(results, f"hf:{out}")
        features.append((model.folder, model.weights))
    assert features[0][0] != features[1][0]
    assert features[0][1] != features[1][1]


def test_a_key_map_without_use_is_refused(results, exported, tmp_path, capsys):
    (tmp_path / "map.yaml").write_text("'^net': ''\n")
    mapped = ("--key-map", str(tmp_path / "map.yaml"))
    code, _, err = call(capsys, results, "eval", "knn", "timm:resnet10t", *mapped)
    assert (code, "a key map is for ,weights=FILE" in err) == (1, True)
    code, _, err = call(capsys, results, "eval", "knn", "hf:x/y", *mapped)
    assert (code, "has names that are known" in err) == (1, True)
