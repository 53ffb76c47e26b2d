import pytest
import torch
from torch import nn

from maebench import ConfigError, Inputs, TextBase, TextMicro, TextNano, TextSmall, TextTiny
from maebench.encoders import BUILT_IN
from maebench.encoders.blocks import sincos_line
from maebench.encoders.text import TextTransformer
from maebench.masking.mask import hide
from maebench.rng import isolated
from maebench.testing import EncoderContract

B, L = 5, 12
INPUTS = Inputs("text", (L,), torch.int64, vocabulary=40, mask_id=4, class_id=2)
SMALL = {"width": 32, "depth": 3, "heads": 4}


class TestContract(EncoderContract):
    component = TextNano


class PostNorm(TextNano):
    """BERT's blocks."""

    name = "post-norm"
    norm: str = "post"


@pytest.mark.slow
class TestContractOfBertsBlocks(EncoderContract):
    component = TextNano(norm="post", **SMALL)


def built(norm="pre", seed=0):
    with isolated(seed, "test"):
        return TextNano(norm=norm, **SMALL).build(INPUTS).eval()


def ids(seed=0, count=B):
    return torch.randint(5, 40, (count, L), generator=torch.Generator().manual_seed(seed))


def mask(hidden=4):
    return hide(torch.rand(B, L, generator=torch.Generator().manual_seed(1)), hidden, (1, L))


def test_there_is_one_of_each_size_of_the_small_vision_transformers():
    sizes = {TextNano, TextMicro, TextTiny, TextSmall, TextBase}
    assert {cls for cls in BUILT_IN if issubclass(cls, TextTransformer)} == sizes


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_hidden_tokens_are_dropped_until_it_is_asked_to_replace_them(norm):
    module, tokens = built(norm), ids()
    dropped = module(tokens, mask())
    assert dropped.patches.shape == (B, L - 4, 32) and torch.equal(dropped.seen, mask().seen)
    alone = torch.where(mask().hidden, 7, tokens)
    assert torch.equal(module(alone, mask()).patches, dropped.patches)
    module.keep_positions()
    replaced = module(tokens, mask())
    assert replaced.seen is None and replaced.patches.shape == (B, L, 32)
    by_hand = module(torch.where(mask().hidden, INPUTS.mask_id, tokens))
    assert torch.equal(replaced.patches, by_hand.patches)


def test_the_class_token_is_the_embedding_of_its_id():
    module = built()
    with torch.no_grad():
        module.token_embed.weight[2] += 1
    changed = module(ids()).prefix
    assert not torch.equal(changed, built()(ids()).prefix)
    with torch.no_grad():
        module.token_embed.weight[3] += 1  # of no token there
    assert torch.equal(module(ids()).prefix, changed)


def test_the_same_tokens_in_another_order_are_another_window():
    module, tokens = built(), ids()
    assert not torch.allclose(module(tokens).prefix, module(tokens.flip(1)).prefix, atol=1e-4)


def test_norms_before_branches_are_the_vision_transformers_blocks():
    module = built()
    x = module.token_embed(ids()) * 32**0.5 + sincos_line(L, 32)
    first = module.token_embed.weight[2] * 32**0.5
    x = torch.cat([first.expand(B, 1, -1), x], 1)
    for block in module.blocks:
        x = x + block.attn(block.norm1(x))
        x = x + block.mlp(block.norm2(x))
    assert torch.allclose(module(ids()).patches, module.norm(x)[:, 1:], atol=1e-5)


def test_norms_after_sums_are_torchs_post_norm_layer():
    module = built("post")
    x = torch.cat([torch.full((B, 1), 2), ids()], 1)
    x = module.embed_norm(module.token_embed(x) + module.pos_embed)
    for block in module.blocks:
        layer = nn.TransformerEncoderLayer(32, 4, 128, 0.0, "gelu", 1e-12, batch_first=True).eval()
        state = {
            "self_attn.in_proj_weight": block.attn.qkv.weight,
            "self_attn.in_proj_bias": block.attn.qkv.bias,
            "self_attn.out_proj.weight": block.attn.proj.weight,
            "self_attn.out_proj.bias": block.attn.proj.bias,
            **{f"linear1.{k}": v for k, v in block.mlp.fc1.state_dict().items()},
            **{f"linear2.{k}": v for k, v in block.mlp.fc2.state_dict().items()},
            **{f"norm1.{k}": v for k, v in block.norm1.state_dict().items()},
            **{f"norm2.{k}": v for k, v in block.norm2.state_dict().items()},
        }
        layer.load_state_dict(state)
        x = layer(x)
    found = module(ids())
    assert torch.allclose(torch.cat([found.prefix, found.patches], 1), x, atol=1e-5)


def test_positions_are_learned_with_norms_after_sums_and_fixed_else():
    assert built("post").pos_embed.requires_grad and not built().pos_embed.requires_grad
    assert torch.equal(built().pos_embed[0, 1:], sincos_line(L, 32))


def test_positions_on_a_line_are_those_of_the_paper():
    found = sincos_line(50, 8)
    for place in (0, 1, 17, 49):
        for i in range(4):
            angle = torch.tensor(place / 10000 ** (2 * i / 8), dtype=torch.float64)
            assert found[place, i] == pytest.approx(angle.sin().item(), abs=1e-6)
            assert found[place, 4 + i] == pytest.approx(angle.cos().item(), abs=1e-6)


def test_the_feed_forward_width_is_an_option():
    narrow, wide = (TextNano(mlp_ratio=r, **SMALL).build(INPUTS) for r in (1.0, 6.0))
    assert narrow.blocks[0].mlp.fc1.out_features == 32
    assert wide.blocks[0].mlp.fc1.out_features == 192


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"^encoder.width: 30 must be a multiple of 4"):
        TextNano(width=30, heads=3).build(INPUTS)
    with pytest.raises(ConfigError, match=r"^the encoder was built for text of 12, got 9$"):
        built()(ids()[:, :9])
