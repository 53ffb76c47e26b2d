"""The picture of hidden tokens: which texts stand in it, and where."""

from dataclasses import replace

import pytest
import tiny
import torch
from PIL import Image

from maebench.data.tokens import Tokens, trained
from maebench.evaluating.model import EvaluatedModel
from maebench_evals import token_pictures as module
from maebench_evals.hidden_tokens import examples
from maebench_evals.reconstruction import ReconstructionQuality

WORDS = (
    "the serpent was more subtil than any beast of the field",
    "and he said unto the woman",
) * 9


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
@pytest.mark.parametrize("vocabulary", [300, 60])
def test_seen_tokens_read_as_the_text_and_hidden_ones_say_what_was_guessed(kind, vocabulary):
    if kind == "bpe" and vocabulary < 300:
        pytest.skip("bytes alone are 256")
    from tokenizers import Tokenizer

    made = trained(kind, vocabulary, 16, True, WORDS)
    tokenizer, ids = Tokenizer.from_str(made), Tokens(made).ids([WORDS[0]])[0].tolist()
    seen = "".join(text for text, _ in module.pieces(tokenizer, ids, ids, [False] * len(ids)))
    assert seen.strip() == WORDS[0]
    place = len(ids) // 2
    hidden = [i == place for i in range(len(ids))]
    right = [*module.pieces(tokenizer, ids, ids, hidden)][place]
    assert (
        right[1] == "right" and right[0].strip() == f"[{module.text_of(tokenizer, ids[place])[1]}]"
    )
    other = [*ids[:place], ids[0], *ids[place + 1 :]]
    wrong = [*module.pieces(tokenizer, ids, other, hidden)][place]
    texts = [module.text_of(tokenizer, i)[1] for i in (ids[0], ids[place])]
    assert wrong == (wrong[0], "wrong") and wrong[0].strip() == f"[{'|'.join(texts)}]"


def test_lines_hold_every_piece_once_and_none_is_too_long():
    found = [(" " * (n % 2) + "x" * (1 + n % 7), "seen") for n in range(200)]
    made = [*module.lines(iter(found))]
    assert sum(map(len, made)) == len(found)
    assert max(sum(len(text) for text, _ in line) for line in made) <= module.COLUMNS
    assert not any(line[0][0].startswith(" ") for line in made)


def test_a_run_on_text_has_the_picture_and_ids_of_no_tokenizer_have_none(tmp_path):
    tiny.plan(tmp_path, **tiny.suited("bert"))
    loaded = tiny.load(tmp_path)
    model = EvaluatedModel(loaded, ReconstructionQuality(), loaded.splits, 0)
    ids = next(model.images("test").whole(4))
    mask = model.masks(torch.arange(4), ReconstructionQuality().masking, 0.15)
    examples(model, ids, mask, ids)
    path = model.artifacts / "reconstruction.png"
    with Image.open(path) as image:
        assert image.width == 10 * image.info["dpi"][0].__round__()
        assert torch.tensor(image.convert("L").getextrema()).diff() > 100
    path.unlink()
    rows = model.images("test")
    bare = replace(rows, info=replace(rows.info, kept={}))
    object.__setattr__(
        model,
        "splits",
        type("Bare", (), {"load": lambda self, split: bare, "dataset": loaded.splits.dataset})(),
    )
    examples(model, ids, mask, ids)
    assert not path.exists()
