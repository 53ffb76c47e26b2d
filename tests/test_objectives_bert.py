import math

import pytest
import torch
from pydantic import ValidationError

from maebench import MAE, Bert, ConfigError, Draws, Inputs, TextNano, ViTNano
from maebench.masking.mask import hide
from maebench.objectives.objective import Batch
from maebench.pretraining.optimiser import parameter_groups
from maebench.rng import isolated
from maebench.testing import ObjectiveContract

B, L, V = 64, 20, 50
INPUTS = Inputs("text", (L,), torch.int64, vocabulary=V, mask_id=4, class_id=2)
OPTIONS = {"width": 32, "depth": 2, "heads": 4}


class TestContract(ObjectiveContract):
    component = Bert


def built(objective=None, seed=0):
    with isolated(seed, "test"):
        return (objective or Bert()).build(TextNano(**OPTIONS).build(INPUTS), INPUTS)


def batch(hidden=10, seed=0, epoch=0):
    ids = torch.arange(B)
    tokens = torch.randint(5, V, (B, L), generator=torch.Generator().manual_seed(seed))
    scores = Draws(0, "masking", ids, epoch).uniform(L)
    mask = hide(scores, hidden, (1, L))
    return Batch(tokens, ids, Draws(0, "objective", ids, epoch), mask)


def test_of_the_chosen_tokens_eight_in_ten_are_masked_one_random_one_as_it_is():
    module, found = built(), batch()
    seen = module.corrupt(found.images, found.mask.places, found)
    chosen, before = found.mask.hidden, found.images
    assert torch.equal(seen[~chosen], before[~chosen])
    masked = (seen == 4)[chosen].float().mean().item()
    same = (seen == before)[chosen].float().mean().item()
    count = B * 10
    for share, wanted in ((masked, 0.8 + 0.1 / V), (same, 0.1 + 0.1 / V)):
        assert share == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / count))


@pytest.mark.parametrize(
    ("options", "masked", "same"),
    [({"masked": 1, "random": 0}, 1.0, 0.0), ({"masked": 0.5, "random": 0}, 0.5, 0.5)],
)
def test_the_shares_are_options(options, masked, same):
    module, found = built(Bert(**options)), batch()
    seen = module.corrupt(found.images, found.mask.places, found)
    chosen = found.mask.hidden
    assert (seen == 4)[chosen].float().mean().item() == pytest.approx(masked, abs=0.08)
    assert (seen == found.images)[chosen].float().mean().item() == pytest.approx(same, abs=0.08)


def test_the_loss_is_the_cross_entropy_of_chosen_tokens_alone():
    module, found = built().eval(), batch()
    seen = module.corrupt(found.images, found.mask.places, found)
    fresh = batch()
    logits = module.predict(module.encoder(seen).patches)
    each = -logits.log_softmax(2).gather(2, found.images[..., None])[..., 0]
    assert module(fresh)["loss"].item() == pytest.approx(each[found.mask.hidden].mean().item())


def test_the_output_is_tied_to_the_embedding():
    module = built()
    names = {name for name, _ in module.named_parameters() if not name.startswith("encoder.")}
    assert names == {"bias", "dense.weight", "dense.bias", "norm.weight", "norm.bias"}
    tokens = torch.zeros(1, 1, 32)
    before = module.predict(tokens)[0, 0, 9]
    with torch.no_grad():
        module.encoder.token_embed.weight[9] += 1
        module.norm.bias += 1
    assert module.predict(tokens)[0, 0, 9] != before


def test_a_reconstruction_sees_no_hidden_token_and_its_errors_are_nats():
    module, found = built().eval(), batch()
    made = module.reconstruct(found.images, found.mask)
    other = torch.where(found.mask.hidden, 9, found.images)
    assert torch.equal(module.reconstruct(other, found.mask).prediction, made.prediction)
    assert made.space == "tokens" and made.prediction.shape == (B, L, V)
    by_hand = -made.prediction.log_softmax(2).gather(2, found.images[..., None])[..., 0]
    assert torch.allclose(made.errors(), by_hand, atol=1e-6)


def trained(objective):
    """Loss before and after it has learnt sixty-four windows, under other masks."""
    module = built(objective)
    groups, _ = parameter_groups(module, weight_decay=0.0)
    adam = torch.optim.AdamW(groups, lr=3e-3)
    before = module(batch(epoch=99))["loss"].item()
    for step in range(150):
        adam.zero_grad()
        module(batch(epoch=step))["loss"].backward()
        adam.step()
    return before, module(batch(epoch=99))["loss"].item()


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Bert(), MAE(), MAE(decoder="cross-attention")])
def test_it_learns_windows_by_heart(objective):
    before, after = trained(objective)
    assert before == pytest.approx(math.log(V), rel=0.15)
    assert after < 0.9 * before


def test_encoders_without_an_embedding_to_tie_are_refused():
    images = Inputs.of_images(1, (8, 8))
    with pytest.raises(ConfigError, match="ties its output to the encoder's token_embed, which V"):
        Bert().build(ViTNano(width=16, depth=1, heads=2).build(images), images)


def test_shares_of_more_than_all_are_refused():
    with pytest.raises(ValidationError, match=r"masked \+ random: above 0 and up to 1"):
        Bert(masked=0.9, random=0.2)
    with pytest.raises(ValidationError, match=r"masked \+ random: above 0"):
        Bert(masked=0, random=0)


# ---- the masked autoencoder on text


def test_mae_predicts_hidden_tokens_from_the_seen_ones_by_their_cross_entropy():
    module, found = built(MAE()).eval(), batch()
    made = module.reconstruct(found.images, found.mask)
    assert made.prediction.shape == (B, L, V) and torch.equal(made.target, found.images)
    wanted = made.errors()[found.mask.hidden].mean().item()
    assert module(found)["loss"].item() == pytest.approx(wanted, abs=1e-5)
    other = torch.where(found.mask.hidden, 9, found.images)
    assert torch.equal(module.reconstruct(other, found.mask).prediction, made.prediction)


def test_mae_on_all_scores_seen_tokens_too():
    module, found = built(MAE(on="all")).eval(), batch()
    wanted = module.reconstruct(found.images, found.mask).errors().mean().item()
    assert module(found)["loss"].item() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("options", [{"target": "pixels"}, {"loss": "l1"}])
def test_options_of_pixels_are_refused_on_text(options):
    with pytest.raises(ConfigError, match="is of images; of text tokens are predicted, by their"):
        built(MAE(**options))
