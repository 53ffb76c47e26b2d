"""What maebench writes loads at the other side with nothing missing, and gives the same numbers."""

from __future__ import annotations

import pytest
import tiny
import torch

from maebench import MAE, Batch, ConfigError, Inputs, unpatchify
from maebench.encoders import ViTNano
from maebench.masking.mask import hide
from maebench.models.export import export, official_names
from maebench.models.load import load_foreign
from maebench.objectives import SimMIM
from maebench.rng import Draws, isolated

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
NOISE = torch.rand(2, 16, generator=torch.Generator().manual_seed(2))
MASK = hide(NOISE, 12, (4, 4))
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def built(objective, size, channels, **encoder):
    """A module of ours whose weights are all moved from where they began."""
    vit = ViTNano(**{"width": 24, "depth": 2, "heads": 3, "patch": 4, **encoder})
    with isolated(0, "test"):
        module = objective.build(
            vit.build(Inputs.of_images(channels, size)), Inputs.of_images(channels, size)
        )
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
    return module.eval()


def mae(size=(16, 16), channels=3, target="normalised-pixels", parts=None, **encoder):
    sizes = {"decoder_depth": 2, "decoder_width": 16, "decoder_heads": 2}
    return built(MAE(target=target, **sizes, **(parts or {})), size, channels, **encoder)


def simmim(channels=3):
    return built(SimMIM(), (16, 16), channels)


def write(tmp_path, to, made=None):
    module = made or mae()
    out = tmp_path / {"official": "a.pth", "timm": "a.safetensors", "hf": "folder"}[to]
    return module, out, export(module, "it", to, out, MEAN, STD)


def loss(module, images=IMAGES):
    ids = torch.arange(len(images))
    return module(Batch(images, ids, Draws(0, "objective", ids), MASK))["loss"]


@pytest.mark.parametrize("target", ["pixels", "normalised-pixels"])
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_hugging_face_loads_it_with_nothing_missing_and_the_same_numbers(
    tmp_path, target, channels
):
    from transformers import ViTMAEForPreTraining

    module, out, lines = write(tmp_path, "hf", mae(target=target, channels=channels))
    theirs, info = ViTMAEForPreTraining.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images = IMAGES[:, :channels]
    found = theirs.eval()(images, noise=NOISE)
    torch.testing.assert_close(loss(module, images), found.loss, atol=1e-5, rtol=0)
    made = module.reconstruct(images, MASK).prediction
    torch.testing.assert_close(made, found.logits, atol=1e-5, rtol=0)
    assert lines == [f"load it: transformers.ViTMAEForPreTraining.from_pretrained({str(out)!r})"]


@torch.no_grad()
def test_hugging_faces_processor_reads_the_preprocessing(tmp_path):
    from transformers import ViTImageProcessor

    _, out, _ = write(tmp_path, "hf")
    found = ViTImageProcessor.from_pretrained(out)
    assert (list(found.image_mean), list(found.image_std)) == (list(MEAN), list(STD))


@pytest.mark.parametrize("kind", ["plain", "registers", "oblong", "grey", "narrow"])
@torch.no_grad()
def test_timm_loads_it_strictly_and_gives_the_same_features(tmp_path, kind):
    import timm  # noqa: F401 - what is printed names it
    from safetensors.torch import load_file

    changes = {
        "plain": {},
        "registers": {"registers": 2},
        "oblong": {"size": (8, 16)},
        "grey": {"channels": 1},
        "narrow": {"mlp_ratio": 2},
    }[kind]
    module, out, lines = write(tmp_path, "timm", mae(**changes))
    theirs = eval(" ".join(lines).removeprefix("load it: "))  # as a user would paste it
    theirs.load_state_dict(load_file(out), strict=True)
    images = IMAGES[:, : changes.get("channels", 3), : changes.get("size", (16,))[0]]
    tokens = module.encoder(images)
    both = torch.cat([tokens.prefix, tokens.patches], 1)
    torch.testing.assert_close(both, theirs.eval().forward_features(images), atol=1e-5, rtol=0)


def test_the_official_file_has_the_official_names_and_shapes(tmp_path):
    module, out, lines = write(tmp_path, "official")
    content = torch.load(out, weights_only=True)
    tensors = content["model"]
    assert len(tensors) == 6 + 12 * 2 + 8 + 12 * 2  # as in the official code, of depth 2 and 2
    assert tensors["decoder_pos_embed"].shape == (1, 17, 16)
    assert not tensors["decoder_pos_embed"][:, 0].any()
    assert tensors["pos_embed"].shape == (1, 17, 24)
    assert tensors["mask_token"].shape == (1, 1, 16)
    text = " ".join(lines)
    for part in ("embed_dim=24", "decoder_num_heads=2", "norm_pix_loss=True", "mlp_ratio=4"):
        assert part in text
    del module


@pytest.mark.parametrize("to", ["official", "timm", "hf"])
@pytest.mark.parametrize("target", ["pixels", "normalised-pixels"])
@torch.no_grad()
def test_what_is_written_is_read_back_the_same_without_an_option(tmp_path, to, target):
    module, out, _ = write(tmp_path, to, mae(target=target))
    found = load_foreign("file", str(out), {})
    assert (tuple(found.preprocess.mean), tuple(found.preprocess.std)) == (MEAN, STD)
    assert found.preprocess.crop == 1
    assert torch.equal(found.module.encoder(IMAGES).patches, module.encoder(IMAGES).patches)
    if to == "timm":
        assert found.verdict.text == "decoder missing"
        return
    assert found.verdict.text == "complete"
    assert torch.equal(loss(found.module), loss(module))


@pytest.mark.parametrize(
    ("to", "changes", "reason"),
    [
        ("official", {"registers": 1}, "1 register tokens, which the official MAE code"),
        ("hf", {"registers": 2}, "2 register tokens, which transformers' ViTMAE"),
        ("official", {"size": (8, 16)}, "grid is 2x4 of 4x4 pixels.*square ones alone"),
        ("hf", {"size": (8, 16)}, "grid is 2x4"),
        ("official", {"size": (8, 16), "patch": (2, 4)}, "grid is 4x4 of 2x4 pixels"),
        ("official", {"channels": 1}, "1 channels; .* cuts patches of 3"),
        ("official", {"mlp_ratio": 2}, "MLPs are 2 times as wide"),
    ],
)
def test_what_the_other_side_cannot_hold_is_refused_with_the_reason(tmp_path, to, changes, reason):
    with pytest.raises(ConfigError, match=f"it cannot be exported to {to}: .*{reason}"):
        write(tmp_path, to, mae(**changes))
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_is_no_vision_transformer_is_refused(tmp_path):
    from fakes import Dense

    module = mae()
    module.encoder = Dense().build(Inputs.of_images(3, (16, 16)))
    for to in ("official", "timm", "hf"):
        with pytest.raises(ConfigError, match="its encoder is a DenseModule"):
            export(module, "it", to, tmp_path / "a", MEAN, STD)


def test_an_unknown_side_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown format 'tim' in --to.*Did you mean 'timm'"):
        export(*(mae(), "it", "tim", tmp_path / "a", MEAN, STD))


def test_an_objective_without_a_decoder_of_ours_exports_its_encoder(tmp_path):
    from fakes import LabelledModule

    module = LabelledModule(mae().encoder, 10)
    export(module, "it", "hf", tmp_path / "folder", MEAN, STD)
    found = load_foreign("hf", str(tmp_path / "folder"), {})
    assert found.verdict.text == "decoder missing"


# ---- SimMIM


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_simmim_goes_to_hugging_face_whole(tmp_path, channels):
    from transformers import ViTForMaskedImageModeling

    module, out, lines = write(tmp_path, "hf", simmim(channels))
    theirs, info = ViTForMaskedImageModeling.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images = IMAGES[:, :channels]
    found = theirs.eval()(images, bool_masked_pos=MASK.hidden)
    torch.testing.assert_close(loss(module, images), found.loss, atol=1e-5, rtol=0)
    pixels = unpatchify(module.reconstruct(images, MASK).pixels, (4, 4), (4, 4))
    torch.testing.assert_close(pixels, found.reconstruction, atol=1e-5, rtol=0)
    load = f"load it: transformers.ViTForMaskedImageModeling.from_pretrained({str(out)!r})"
    assert lines == [load]


@pytest.mark.parametrize("to", ["official", "timm", "hf"])
@torch.no_grad()
def test_the_encoder_of_simmim_is_read_back_the_same(tmp_path, to):
    module, out, lines = write(tmp_path, to, simmim())
    for kind in ("file", "hf") if to == "hf" else ("file",):
        found = load_foreign(kind, str(out), {})
        tokens = found.module.encoder(IMAGES)
        torch.testing.assert_close(tokens.patches, module.encoder(IMAGES).patches)
        assert found.no_decoder
    left = [line for line in lines if line.startswith("left out: ")]
    names = {"official": "the official MAE code", "timm": "timm"}
    assert left == (
        []
        if to == "hf"
        else [
            "left out: the token for hidden patches and the head that predicts pixels, for which "
            f"{names[to]} has no place"
        ]
    )


@torch.no_grad()
def test_timm_loads_the_encoder_of_simmim_strictly(tmp_path):
    import timm
    from safetensors.torch import load_file

    module, out, lines = write(tmp_path, "timm", simmim())
    load = " ".join(lines[:-1]).removeprefix("load it: ")
    theirs = eval(load, {"timm": timm})  # as a user would paste it
    theirs.load_state_dict(load_file(out), strict=True)
    tokens = module.encoder(IMAGES)
    both = torch.cat([tokens.prefix, tokens.patches], 1)
    torch.testing.assert_close(both, theirs.eval().forward_features(IMAGES), atol=1e-5, rtol=0)


def test_a_token_of_another_objective_is_said_to_be_left_out(tmp_path):
    from fakes import LabelledModule

    encoder = simmim().encoder
    lines = export(LabelledModule(encoder, 10), "it", "hf", tmp_path / "a", MEAN, STD)
    assert lines[-1] == (
        "left out: decoder or head of this objective and the token for hidden patches, for which "
        "transformers' ViTMAE has no place"
    )
    assert load_foreign("hf", str(tmp_path / "a"), {}).verdict.text == "decoder missing"


# ---- what stays as it is


def test_exporting_changes_nothing_of_the_model():
    module = mae()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    official_names(module)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_a_run_on_digits_goes_to_timm_and_back_with_equal_features(tmp_path):
    plan = tiny.plan(tmp_path)
    run = tiny.load(tmp_path)
    out = tmp_path / "run.safetensors"
    feed = run.preprocess
    export(run.module, run.name, "timm", out, feed.mean, feed.std)
    back = tiny.load(tmp_path, f"file:{out}")
    images = plan.config.splits().load("test").pick(range(5))
    assert torch.equal(back.encode(images), run.encode(images))
    own = run.encoder.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in back.encoder.state_dict().items())


UNKNOWN = [
    ("target=hog", "hog", {}),
    ("target=low-pass", "low-pass", {}),
    ("target=features", "features", {}),
    ("decoder=cross-attention", "pixels", {"decoder": "cross-attention"}),
    ("on=all", "normalised-pixels", {"on": "all"}),
]


@pytest.mark.parametrize(("unknown", "target", "parts"), UNKNOWN, ids=[one[0] for one in UNKNOWN])
@torch.no_grad()
def test_of_what_others_have_no_decoder_for_the_encoder_is_written_and_that_is_said(
    tmp_path, unknown, target, parts
):
    from transformers import ViTMAEModel

    made = mae(target=target, parts=parts)
    module, out, lines = write(tmp_path, "hf", made)
    assert lines == [
        f"load it: transformers.ViTMAEModel.from_pretrained({str(out)!r})",
        f"the decoder is left out: transformers' ViTMAE does not know {unknown}",
    ]
    _, info = ViTMAEModel.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))

    _, out, lines = write(tmp_path, "official", made)
    assert lines[-1] == f"the decoder is left out: the official MAE code does not know {unknown}"
    weights = torch.load(out, weights_only=True)["model"]
    assert weights.keys() == module.encoder.state_dict().keys()
    found = load_foreign("file", str(out), {})
    assert torch.equal(found.module.encoder(IMAGES).patches, module.encoder(IMAGES).patches)

    _, _, lines = write(tmp_path, "timm", made)  # which has no decoder of any kind
    assert not any("left out" in line for line in lines)


def test_another_loss_is_no_reason_to_leave_the_decoder_out(tmp_path):
    _, out, lines = write(tmp_path, "official", mae(parts={"loss": "l1"}))
    assert not any("left out" in line for line in lines)
    assert "decoder_pred.weight" in torch.load(out, weights_only=True)["model"]
