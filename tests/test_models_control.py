import numpy as np
import pytest
import tiny
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from maebench import ConfigError, NotApplicable, load_model
from maebench.models import control
from maebench.models.control import DIMENSIONS, control_kind

TEXT = {"dataset": {"name": "pydoc", "length": 16, "vocabulary": 600}}


def loaded(tmp_path, spec=""):
    tiny.plan(tmp_path, **{**tiny.suited("bert"), **TEXT})
    return load_model(spec, tmp_path, "cpu")


def test_each_kind_of_inputs_has_a_control_by_its_name():
    assert [control_kind(kind) for kind in ("images", "text", "signals")] == [
        *("pixels", "tf-idf", "raw")
    ]


@pytest.mark.slow
def test_tf_idf_is_scikit_learns_of_train_and_its_strongest_directions(tmp_path):
    model = loaded(tmp_path, "tf-idf:")
    train, test = (model.splits.load(split).values.numpy() for split in ("train", "test"))
    counts = [np.stack([np.bincount(row, minlength=600) for row in ids]) for ids in (train, test)]
    fitted = TfidfTransformer().fit(counts[0])
    both = [fitted.transform(part) for part in counts]
    least = min(DIMENSIONS, len(train) - 1)
    svd = TruncatedSVD(least, algorithm="arpack", random_state=0).fit(both[0])
    found = model.encode(torch.from_numpy(test[:20]), pool="flat")
    assert found.shape == (20, least) and found.dtype == torch.float32
    # the last directions are as strong as others, which may take their place
    wanted = svd.transform(both[1])[:20]
    np.testing.assert_allclose(found[:, :30].numpy(), wanted[:, :30], atol=1e-4)
    # as similar as all numbers say, but for what is cut off
    whole = both[1].toarray()[:20]
    assert np.corrcoef((found @ found.T).numpy().ravel(), (whole @ whole.T).ravel())[0, 1] > 0.8


def test_a_control_has_neither_encoder_nor_decoder(tmp_path):
    model = loaded(tmp_path, "tf-idf:")
    assert model.pools() == ("flat",) and model.encoder is None
    with pytest.raises(NotApplicable, match="^TF-IDF has no decoder$"):
        model.decoder()


@pytest.mark.parametrize(
    ("wrong", "right"), [("pixels:", "tf-idf:pydoc"), ("raw:", "tf-idf:pydoc")]
)
def test_the_control_of_another_kind_is_refused_with_the_right_one(wrong, right, tmp_path):
    with pytest.raises(ConfigError, match=f"yields text, whose control is {right}$"):
        loaded(tmp_path, wrong)


@pytest.mark.slow
def test_the_control_of_pixels_is_known_by_its_settings_and_of_text_by_its_train(tmp_path):
    text = loaded(tmp_path, "tf-idf:")
    other = control.control_of(text.config.model_copy(update={"limit": 90}), None, tmp_path, "cpu")
    assert other.weights != text.weights and other.name == text.name == "tf-idf:pydoc"
