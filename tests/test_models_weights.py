"""Facts beside weights, and the verdict on how weights fit."""

from __future__ import annotations

from maebench.models.weights import Verdict, incomplete


def test_a_verdict_names_the_first_six_weights_and_counts_the_others():
    names = tuple(f"w{i}" for i in range(8))
    verdict = Verdict("complete", "a.pth", 3, missing=names[:1], unused=names, notes=("a note",))
    assert str(verdict) == (
        "complete: 3 weights of a.pth; missing w0; "
        "not used w0, w1, w2, w3, w4, w5 and 2 more; a note"
    )
    assert verdict.dump()["unused"] == list(names)


def test_an_incomplete_encoder_is_one_line_with_the_nearest_names_and_how_many_more():
    missing = {f"blocks.{i}.norm1.weight" for i in range(7)}
    message = str(incomplete("a.pth", missing, {"blocks.0.norml.weight"}, ["norm.bias"]))
    assert message.startswith("a.pth: the encoder is incomplete: missing blocks.0.norm1.weight (is")
    assert "it blocks.0.norml.weight?)" in message and " and 1 more; left over " in message
    assert "other shape norm.bias. --key-map FILE.yaml" in message and "\n" not in message
