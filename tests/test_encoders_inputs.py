import pytest
import torch

from maebench import ANY_KIND, ConfigError, Draws, Inputs, Supervised, ViTNano
from maebench.encoders.inputs import takes

TEXT = Inputs("text", (6,), torch.int64, 3, vocabulary=9, mask_id=4, class_id=2)


def test_images_have_channels_and_a_size_and_others_have_not():
    images = Inputs.of_images(3, (4, 8), 10)
    assert (images.kind, images.shape, images.dtype) == ("images", (3, 4, 8), torch.uint8)
    assert (images.channels, images.image_size, images.num_classes) == (3, (4, 8), 10)
    assert images.numbers == 96 and TEXT.numbers == 6
    for what in ("channels", "image_size"):
        with pytest.raises(ConfigError, match="these are no images: text have no channels"):
            getattr(TEXT, what)


def test_an_encoder_gets_bytes_as_floats_and_others_as_they_are():
    assert Inputs.of_images(1, (2, 2)).zeros(3).dtype == torch.float32
    assert TEXT.zeros(3).dtype == torch.int64 and TEXT.zeros(3).shape == (3, 6)
    assert Inputs("signals", (2, 5), torch.float32).zeros(1).dtype == torch.float32


def test_made_up_ones_are_normal_numbers_or_ids_of_the_vocabulary():
    ids = torch.arange(200)
    numbers = Inputs.of_images(1, (4, 4)).made_up(Draws(0, "test", ids))
    assert numbers.shape == (200, 1, 4, 4) and numbers.std() == pytest.approx(1, abs=0.05)
    tokens = TEXT.made_up(Draws(0, "test", ids))
    assert tokens.shape == (200, 6) and set(tokens.flatten().tolist()) == set(range(9))


@pytest.mark.parametrize("inputs", [TEXT, Inputs("signals", (2, 5), torch.float32, 3)])
def test_what_a_run_keeps_of_them_brings_them_back(inputs):
    assert Inputs.load(inputs.dump(), 3) == inputs


def test_another_shape_is_refused_with_both():
    TEXT.check((6,), "it")
    with pytest.raises(ConfigError, match=r"^it was built for text of 6, got 7$"):
        TEXT.check((7,), "it")
    with pytest.raises(ConfigError, match=r"of 1x4x4 \(channels x rows x columns\), got 3x4x4$"):
        Inputs.of_images(1, (4, 4)).check((3, 4, 4), "it")


def test_a_component_takes_the_kinds_that_it_names_or_any():
    assert takes(ViTNano(), "images") and not takes(ViTNano(), "text")
    assert Supervised.takes == ANY_KIND and takes(Supervised(), "anything")
