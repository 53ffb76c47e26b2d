import json
import shutil

import pytest
import timm
import torch
from click.testing import CliRunner
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertModel

from maebench import ConfigError, PyDoc, Request, RunConfig, load_model
from maebench.cli import cli
from maebench.errors import MaebenchError
from maebench.masking.mask import hide
from maebench.models.bert import to_bert
from maebench.pretraining.loop import pretrain
from maebench.rng import isolated

L, CLS, MASK = 20, 2, 4
DATA = {"dataset": {"name": "pydoc", "length": L, "vocabulary": 600}}
SIZES = {
    **{"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"intermediate_size": 96, "max_position_embeddings": 40},
}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def rows():
    return PyDoc(length=L, vocabulary=600).load(Request("test"))


def theirs(cls=BertForMaskedLM, **changes):
    """A BERT of random weights, none of which is 0."""
    with isolated(0, "test"):
        network = cls(BertConfig(**{**SIZES, **changes})).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def saved(folder, rows, network=None):
    network = network or theirs()
    network.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(rows.info.kept["tokenizer.json"], encoding="utf-8")
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    place = tmp_path_factory.mktemp("bert")
    saved(place, rows)
    return place


def with_class(ids):
    return torch.cat([torch.full((len(ids), 1), CLS), ids], 1)


def masks(ids, hidden=3):
    scores = torch.rand(len(ids), L, generator=torch.Generator().manual_seed(0))
    return hide(scores, hidden, (1, L))


@torch.no_grad()
def test_features_logits_and_loss_are_those_of_hugging_faces_bert(folder, rows, tmp_path):
    network = BertForMaskedLM.from_pretrained(folder).eval()
    ours = load_model(f"hf:{folder},length={L}", tmp_path, "cpu", data=DATA)
    ids = rows.values[:8]
    end = network.bert(with_class(ids), output_hidden_states=True)
    tokens = ours.encoder(ids, None, (1, 2))
    assert torch.allclose(tokens.patches, end.last_hidden_state[:, 1:], atol=TOLERANCE)
    assert torch.allclose(tokens.prefix, end.last_hidden_state[:, :1], atol=TOLERANCE)
    first = tokens.layers[1].patches
    assert torch.allclose(first, end.hidden_states[1][:, 1:], atol=TOLERANCE)
    mask = masks(ids)
    seen = with_class(torch.where(mask.hidden, MASK, ids))
    wanted = with_class(torch.where(mask.hidden, ids, -100))
    wanted[:, 0] = -100
    found, made = network(seen, labels=wanted), ours.module.reconstruct(ids, mask)
    assert torch.allclose(made.prediction, found.logits[:, 1:], atol=TOLERANCE)
    assert made.errors()[mask.hidden].mean().item() == pytest.approx(found.loss.item(), abs=1e-5)
    assert str(ours.verdict).startswith("complete: 42 weights of hf:")


@torch.no_grad()
def test_an_encoder_alone_has_features_and_no_decoder(rows, tmp_path):
    network = saved(tmp_path, rows, theirs(BertModel))
    ours = load_model(f"file:{tmp_path},length={L}", tmp_path, "cpu", data=DATA)
    wanted = network(with_class(rows.values[:4])).last_hidden_state[:, 1:]
    assert torch.allclose(ours.encoder(rows.values[:4]).patches, wanted, atol=TOLERANCE)
    assert ours.no_decoder == "its weights have no head that predicts tokens"
    assert ours.verdict.text == "decoder missing"


def test_text_is_cut_by_the_tokenizer_of_the_weights(folder, tmp_path):
    data = {"dataset": {"name": "pydoc", "length": 7, "vocabulary": 900}}
    ours = load_model(f"hf:{folder},length=12", tmp_path, "cpu", data=data)
    inputs = ours.splits.load("train").info.inputs
    assert (inputs.shape, inputs.vocabulary, inputs.mask_id) == ((12,), 600, MASK)


@pytest.mark.slow
def test_it_is_evaluated_beside_a_run(folder, tmp_path):
    how = ["--dataset", "pydoc", "--results", str(tmp_path)]
    ran = CliRunner().invoke(cli, ["eval", "reconstruction", f"hf:{folder},length={L}", *how])
    assert ran.exit_code == 0, ran.output
    assert "reconstruction r2" in ran.output and "complete: 42 weights" in ran.output


def trained(tmp_path, **settings):
    dataset = {"name": "pydoc", "length": 16, "vocabulary": 600}
    config = RunConfig(dataset=dataset, budget="steps=3", limit=200, **settings)
    list(pretrain(config, tmp_path))
    return load_model("", tmp_path, "cpu")


POST = {"name": "text-nano", "norm": "post", "width": 32, "depth": 2}


@pytest.mark.slow
@torch.no_grad()
def test_a_runs_weights_are_hugging_faces_bert_tokenizer_and_all(tmp_path):
    ours = trained(tmp_path / "results", encoder=POST)
    out = tmp_path / "out"
    how = ["export", "--to", "hf", "--out", str(out), "--results", str(tmp_path / "results")]
    ran = CliRunner().invoke(cli, how)
    assert ran.exit_code == 0, ran.output
    assert f"transformers.BertForMaskedLM.from_pretrained('{out}')" in ran.output
    network, tokenizer = (
        BertForMaskedLM.from_pretrained(out).eval(),
        AutoTokenizer.from_pretrained(out),
    )
    ids = ours.splits.load("test").values[:6]
    tokens = ours.encoder(ids)
    found = network(with_class(ids), output_hidden_states=True)
    assert torch.allclose(found.hidden_states[-1][:, 1:], tokens.patches, atol=TOLERANCE)
    assert torch.allclose(found.logits[:, 1:], ours.module.predict(tokens.patches), atol=TOLERANCE)
    assert tokenizer.mask_token_id == MASK and tokenizer.cls_token_id == CLS
    back = load_model(f"hf:{out},length=16", tmp_path / "results", "cpu")
    assert torch.equal(back.encode(ids), ours.encode(ids))
    assert CliRunner().invoke(cli, how).exit_code == 1  # there already
    assert CliRunner().invoke(cli, [*how, "--force"]).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "its norms stand before its branches, and BERT's after; pretrain with -o encoder"),
        ({"objective": "mae", "encoder": POST}, "holds a text encoder with the head of objective"),
    ],
)
def test_what_bert_cannot_hold_is_refused_with_the_reason(settings, message, tmp_path):
    ours = trained(tmp_path, **settings)
    with pytest.raises(ConfigError, match=message):
        to_bert(ours.module, ours.name, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_text_is_exported_to_hugging_face_alone(tmp_path):
    trained(tmp_path, encoder=POST)
    ran = CliRunner().invoke(cli, ["export", "--to", "timm", "--results", str(tmp_path)])
    assert ran.exit_code == 1
    assert "is fed text, which only --to hf can be" in str(ran.exception)


def changed(folder, tmp_path, **config):
    place = shutil.copytree(folder, tmp_path / "changed")
    path = place / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return place


WRONG = {
    "another activation": (
        {"hidden_act": "relu"},
        "its hidden_act is 'relu', and 'gelu' is wanted",
    ),
    "a decoder": ({"is_decoder": True}, "its is_decoder is True, and False is wanted"),
    "more blocks": (
        {"num_hidden_layers": 3},
        "the encoder is incomplete: missing encoder.layer.2.",
    ),
    "a billion blocks": (
        {"num_hidden_layers": 10**9},
        r"its config.json states 1,000,000,000 blocks, and its \d+ weights cannot fill them",
    ),
    "a huge MLP": (
        {"intermediate_size": 3200},
        r"intermediate.dense.weight is \(96, 32\), and \(3200, 32\) is wanted",
    ),
    "an absurd MLP": ({"intermediate_size": 10**12}, "its encoder.mlp_ratio: .*less than"),
    "no number": ({"intermediate_size": "x"}, "intermediate_size of its config.json is 'x'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_folder_is_refused_for(what, folder, tmp_path):
    config, message = WRONG[what]
    with pytest.raises(MaebenchError, match=message):
        load_model(f"hf:{changed(folder, tmp_path, **config)}", tmp_path, "cpu", data=DATA)


def test_a_tokenizer_of_absurd_size_is_not_read(folder, tmp_path):
    place = changed(folder, tmp_path)
    with (place / "tokenizer.json").open("ab") as file:
        file.truncate(10**11)
    with pytest.raises(MaebenchError, match=r"has 100,000,000,000 bytes, and 67,108,864 are the"):
        load_model(f"hf:{place}", tmp_path, "cpu", data=DATA)


def test_windows_longer_than_its_positions_and_a_missing_tokenizer_are_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="length: it has positions for windows of 39 tokens$"):
        load_model(f"hf:{folder},length=40", tmp_path, "cpu", data=DATA)
    place = changed(folder, tmp_path)
    (place / "tokenizer.json").unlink()
    with pytest.raises(MaebenchError, match=r"tokenizer.json is wanted beside its weights"):
        load_model(f"hf:{place}", tmp_path, "cpu", data=DATA)


def test_options_of_images_are_refused_of_text_and_those_of_text_of_images(folder, tmp_path):
    for spec in (f"file:{folder},image-size=64", f"hf:{folder},length={L},mean=0.5,std=0.5"):
        with pytest.raises(ConfigError, match="of images, and these weights take text$"):
            load_model(spec, tmp_path, "cpu", data=DATA)
    images = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0)
    torch.save(images.state_dict(), tmp_path / "images.pth")
    with pytest.raises(ConfigError, match="length: of text, and these weights take images$"):
        load_model(f"file:{tmp_path / 'images.pth'},length=7", tmp_path, "cpu")


def test_images_are_refused_by_a_model_of_text(folder, tmp_path):
    how = ["--dataset", "digits", "--results", str(tmp_path)]
    ran = CliRunner().invoke(cli, ["eval", "knn", f"hf:{folder}", *how])
    assert ran.exit_code == 1
    assert str(ran.exception).endswith("was built for text, these are images")
