import pytest

from maebench import ConfigError, Inputs
from maebench.plugins import installed

TABLE = installed().table["encoder"]
SIZES = ("nano", "micro", "tiny", "small", "base")
IMAGES = Inputs.of_images(1, (16, 16))


@pytest.mark.parametrize("size", SIZES)
def test_transformers_of_words_are_as_large_as_those_of_patches(size):
    words, patches = TABLE[f"text-{size}"](), TABLE[f"vit-{size}"]()
    for what in ("width", "depth", "heads", "mlp_ratio"):
        assert getattr(words, what) == getattr(patches, what)


def test_the_sizes_are_those_of_the_papers():
    found = {
        name: (cls().width, cls().depth, cls().heads)
        for name, cls in TABLE.items()
        if name.startswith("vit-")
    }
    assert found == {
        **{"vit-nano": (64, 3, 4), "vit-micro": (128, 4, 4), "vit-tiny": (192, 12, 3)},
        **{"vit-small": (384, 12, 6), "vit-base": (768, 12, 12), "vit-large": (1024, 24, 16)},
        "vit-huge": (1280, 32, 16),
    }


@pytest.mark.parametrize(("width", "heads"), [(18, 3), (20, 3), (16, 5)])
def test_a_width_that_heads_or_positions_do_not_divide_is_refused(width, heads):
    with pytest.raises(
        ConfigError, match=f"encoder.width: {width} must be a multiple of 4 .*{heads}"
    ):
        TABLE["vit-nano"](width=width, heads=heads).build(IMAGES)
