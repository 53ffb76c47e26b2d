"""The attentive probe against attention as torch writes it, and AdamW as torch steps it."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import maebench_evals.attentive_probe as module
from maebench import NotApplicable
from maebench.evaluating import records, suite
from maebench_evals.attentive_probe import (
    PROTOCOLS,
    AttentiveProbe,
    Grid,
    Probes,
    head_count,
    initial,
    on_edge,
    rate,
    rounds_together,
    train,
)


class Plain(nn.Module):
    """One probe as CAPI's paper says it: a query, keys, values, attention, a linear map."""

    def __init__(self, probes: Probes, number: int, dtype: torch.dtype) -> None:
        super().__init__()
        query, key, value, value_bias, weight, bias = (part[number].to(dtype) for part in probes)
        self.heads, _, width = key.shape
        self.query = nn.Parameter(query.flatten())
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.head = nn.Linear(width, len(bias))
        self.to(dtype)
        for mine, theirs in (
            *((self.key.weight, key.flatten(0, 1)), (self.key.bias, torch.zeros(width))),
            *((self.value.weight, value.flatten(0, 1)), (self.value.bias, value_bias.flatten())),
            *((self.head.weight, weight), (self.head.bias, bias)),
        ):
            mine.data = theirs.clone().to(dtype)

    def forward(self, x_BND):
        B, _, D = x_BND.shape

        def split(x):
            return x.view(B, -1, self.heads, D // self.heads).transpose(1, 2)

        query = self.query.expand(B, 1, D)
        out = F.scaled_dot_product_attention(
            *map(split, (query, self.key(x_BND), self.value(x_BND)))
        )
        return self.head(out.transpose(1, 2).reshape(B, D))

    def parts(self):
        """Parameters in the order of Probes; the key's bias, which it has not, at the end."""
        return [
            *(self.query, self.key.weight, self.value.weight, self.value.bias),
            *(self.head.weight, self.head.bias, self.key.bias),
        ]


def probes(num=3, width=192, classes=5, dtype=torch.float32, scale=10.0):
    """Probes that differ, their attention far from uniform."""
    made = initial(num, width, classes)
    return Probes(*((part + 0.02 * torch.randn(part.shape)).to(dtype) * scale for part in made))


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("width", [192, 40, 128])
def test_values_and_gradients_are_those_of_plain_attention(width):
    mine = probes(width=width, dtype=torch.float64, scale=5.0 if width > 64 else 10.0)
    x, y = torch.randn(7, 9, width, dtype=torch.float64), torch.randint(5, (7,))
    for part in mine:
        part.requires_grad_(True)
    logits = mine.logits(x)
    losses = [F.cross_entropy(one, y) for one in logits]
    found = torch.autograd.grad(sum(losses), list(mine))
    for number in range(3):
        plain = Plain(Probes(*(p.detach() for p in mine)), number, torch.float64)
        assert plain.heads == head_count(width)
        expected = plain(x)
        assert torch.allclose(logits[number], expected, rtol=1e-5, atol=1e-10)
        theirs = torch.autograd.grad(F.cross_entropy(expected, y), plain.parts())
        for ours, its in zip(found, theirs[:-1], strict=True):
            assert torch.allclose(ours[number].reshape(its.shape), its, rtol=1e-5, atol=1e-10)
        assert theirs[-1].abs().max() < 1e-12, "why a key needs no bias"
        # attention is no mean over the tokens, or nothing of this was tested
        weights = (plain.key(x) @ plain.query).softmax(1)
        assert weights.max() > 2 / 9


def test_in_single_precision_it_is_as_near():
    mine = probes(scale=1.0)
    x = torch.randn(7, 9, 192)
    for number, found in enumerate(mine.logits(x)):
        assert torch.allclose(found, Plain(mine, number, torch.float32)(x), atol=1e-5)


def test_every_probe_is_trained_as_torchs_adamw_would_train_it_alone():
    """Another rate and decay per probe, warm-up and cosine, over thirty updates."""
    steps, start = 30, initial(3, 64, 4)
    all_used = torch.ones(1, 8, dtype=torch.bool)
    batches = [(torch.randn(8, 6, 64), torch.randint(4, (8,)), all_used) for _ in range(steps)]
    rates, decays = torch.tensor([1e-3, 1e-2, 1e-2]), torch.tensor([0.1, 0.5, 0.0])
    mine = Probes(*(part.clone() for part in start))
    train(mine, batches, rates, decays, steps)
    assert not any(part.requires_grad for part in mine)
    for number in range(3):
        plain = Plain(start, number, torch.float32)
        named = dict(zip(Probes._fields, plain.parts()[:-1], strict=True))
        decay = float(decays[number])  # of weights: CAPI's code decays no bias
        adam = torch.optim.AdamW(
            [
                {"params": [part], "weight_decay": 0.0 if "bias" in name else decay}
                for name, part in named.items()
            ],
            lr=float(rates[number]),
            betas=(0.9, 0.95),
        )
        for step, (x, y, _) in enumerate(batches):
            for group in adam.param_groups:
                group["lr"] = float(rates[number]) * rate(step, steps)
            adam.zero_grad()
            F.cross_entropy(plain(x), y).backward()
            adam.step()
        moved = (plain.head.weight - start.weight[number]).abs().max()
        assert moved > 1e-3
        for ours, its in zip(mine, plain.parts()[:-1], strict=True):
            assert torch.allclose(ours[number].reshape(its.shape), its, atol=2e-5)


def test_rounds_that_are_trained_at_once_give_the_probes_of_each_alone():
    steps, grid = 20, initial(2, 16, 3)
    used = torch.ones(2, 12, dtype=torch.bool)
    used[0, :5], used[1, 6:] = False, False
    batches = [(torch.randn(12, 4, 16), torch.randint(3, (12,)), used) for _ in range(steps)]
    rates, decays = torch.tensor([1e-2, 3e-2]), torch.tensor([0.1, 0.0])
    mine = grid.repeated(2)
    train(mine, batches, rates.repeat(2), decays.repeat(2), steps)
    for number, mask in enumerate(used):
        alone = grid.repeated(1)
        every = torch.ones(1, int(mask.sum()), dtype=torch.bool)
        train(alone, [(x[mask], y[mask], every) for x, y, _ in batches], rates, decays, steps)
        for ours, its, start in zip(mine, alone, grid, strict=True):
            torch.testing.assert_close(ours.split(2)[number], its, atol=1e-4, rtol=0)
            assert not torch.allclose(its, start, atol=1e-2), "nothing was learned"


def test_probes_start_the_same_and_as_capi_starts_them():
    made = initial(4, 256, 50)
    for part in made:
        assert torch.equal(part, part[:1].expand_as(part))
    assert not made.value_bias.any() and not made.bias.any()
    for part in (made.query, made.key, made.value, made.weight):
        assert part[0].std() == pytest.approx(0.02, rel=0.15) and abs(part[0].mean()) < 0.005
        part[0] += 1  # they are no views of one another
        assert not torch.equal(part[0], part[1])


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        *((64, 1), (192, 3), (384, 6), (768, 12), (1024, 16), (1280, 20)),  # 64 divides it
        *((16, 1), (1, 1), (96, 1), (100, 2), (400, 5), (67, 1)),
    ],
)
def test_there_is_a_head_per_64_channels_or_the_nearest_count_that_divides(width, heads):
    assert head_count(width) == heads


@given(st.integers(1, 500))
def test_heads_divide_every_width(width):
    heads = head_count(width)
    assert width % heads == 0
    nearer = [n for n in range(1, width + 1) if width % n == 0]
    assert abs(heads - width / 64) == min(abs(n - width / 64) for n in nearer)


def test_the_rate_warms_up_over_a_tenth_and_ends_at_0():
    rates = [rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 101) and rates[100] == 1 == max(rates)
    assert rates[:101] == sorted(rates[:101]) and rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[550] == pytest.approx(0.5) and rates[-1] < 1e-5
    assert rate(0, 1) == 1, "a single update is one at the full rate"


def test_capi_is_the_papers_grid_and_length():
    grid = AttentiveProbe(protocol="capi").grid()
    assert grid.steps == 12_500 and grid.weight_decay == (5e-4, 1e-3, 5e-2)
    # facebookresearch/capi, eval_classification.py
    assert grid.lr == (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
    assert AttentiveProbe().batch == 128
    assert AttentiveProbe().grid() == PROTOCOLS["fast"]
    assert AttentiveProbe(protocol="capi").protocol_name == "attentive-probe/capi@v2"
    mine = AttentiveProbe(protocol="capi", lr=(0.1, 0.01, 0.1), steps=3).grid()
    assert mine == Grid((0.01, 0.1), (5e-4, 1e-3, 5e-2), 3)


def test_an_edge_is_the_end_of_a_grid_of_more_than_one():
    grid = Grid((1, 2, 3), (0,), 1)
    assert [on_edge(grid, lr, 0) for lr in grid.lr] == [True, False, True]
    assert on_edge(Grid((1, 2, 3), (0, 1, 2), 1), 2, 0) and not on_edge(Grid((1,), (0,), 1), 1, 0)


# --- as an evaluation


class Tokens(tiny.Stub):
    """A model made of patch tokens: which token tells the class, its neighbour's first entry says."""

    def __init__(self, tokens, labels) -> None:
        half = len(labels) // 2
        super().__init__(tokens[:half], labels[:half], tokens[half:], labels[half:])
        self.read = []

    def tokens(self, split, index, layer=None):
        self.read.append(split)
        return self._features[split][index]


def marked(marker=4.0):
    """Four classes in one of eight tokens, the one that a marker points out; its place is random."""
    labels = torch.arange(800) % 4
    x = torch.randn(800, 8, 16)
    at = torch.randint(8, (800,))
    x[torch.arange(800), at, :4] = 3.0 * F.one_hot(labels, 4)
    x[:, :, 4] = 0
    x[torch.arange(800), at, 4] = marker
    x[:, :, :4] += (torch.arange(8) != at[:, None])[..., None] * 3 * torch.randn(800, 8, 4)
    return Tokens(x, labels)


def results(model, **options):
    top1, validation, chosen = {}, {}, []
    for result in AttentiveProbe(**options).run(model):
        place = result.where["lr"], result.where["wd"]
        if result.metric == "top1":
            top1[place] = result.value
        else:
            validation[place] = result.value.mean().item()
        if result.where.get("chosen") and result.metric == "top1":
            chosen.append(result.where)
    (where,) = chosen
    return top1, validation, where


def test_it_finds_the_token_that_tells_the_class_which_the_mean_of_tokens_hides():
    model = marked()
    top1, validation, where = results(model, steps=150, lr=(1e-4, 0.05, 0.5))
    best = top1[where["lr"], where["wd"]].mean()
    assert best > 0.95 and validation[where["lr"], where["wd"]] > 0.95
    assert where["lr"] > 1e-4 and top1[1e-4, 1e-3].mean() < 0.5, "too slow a rate has not got there"
    from sklearn.linear_model import LogisticRegression

    mean, right = model._features["train"].mean(1), model._labels["test"]
    linear = LogisticRegression(max_iter=500).fit(mean, model._labels["train"])
    assert linear.score(model._features["test"].mean(1), right) < best - 0.2


def test_the_whole_grid_is_recorded_in_order_and_test_is_read_once_and_last():
    model = marked()
    top1, validation, where = results(model, steps=5, lr=(0.1, 0.01), weight_decay=(0.5, 0.0))
    assert list(top1) == list(validation) == [(0.01, 0), (0.01, 0.5), (0.1, 0), (0.1, 0.5)]
    assert all(value.shape == (400,) for value in top1.values())
    assert validation[where["lr"], where["wd"]] == max(validation.values())
    assert where["edge"] is True
    first = model.read.index("test")
    assert set(model.read[first:]) == {"test"}, "nothing is learned after test was seen"


def test_rounds_beyond_the_memory_are_trained_after_each_other_with_the_same_result(monkeypatch):
    model, found = marked(), []
    start = initial(2, 16, 4)
    one = sum(part.numel() for part in start) + 2 * 128 * 8
    for numbers in (module.NUMBERS, 3 * one):
        monkeypatch.setattr(module, "NUMBERS", numbers)
        with torch.random.fork_rng():
            found.append(results(model, steps=4, lr=(0.1, 0.01)))
    assert rounds_together(start, 128 * 8) == 3
    (whole, held, _), (parts, same, _) = found
    assert held == pytest.approx(same, abs=0.01)
    assert all((whole[place] == parts[place]).double().mean() > 0.98 for place in whole)


def test_of_equals_the_middle_of_the_grid_is_taken():
    model = Tokens(torch.ones(40, 2, 8), torch.arange(40) % 2)  # nothing can be learned
    _, validation, where = results(model, steps=2, lr=(1e-3, 1e-2, 1e-1))
    assert len(set(validation.values())) == 1
    assert where == {"lr": 1e-2, "wd": 1e-3, "chosen": True}
    _, _, where = results(model, steps=2, lr=(1e-3, 1e-2, 1e-1), weight_decay=(0, 1, 2))
    assert where == {"lr": 1e-2, "wd": 1, "chosen": True}


def test_an_empty_grid_is_refused():
    from maebench import ConfigError, RunConfig

    for option in ("lr", "weight_decay"):
        with pytest.raises(ConfigError, match=rf"{option}.*at least 1 item"):
            RunConfig(evals=[{"name": "attentive-probe", option: ()}])


def test_raw_pixels_have_no_tokens_and_the_row_says_so(tmp_path):
    plan = tiny.plan(tmp_path)
    quick = AttentiveProbe(steps=2)
    (row,) = records.read(suite.evaluate(tiny.load(tmp_path, "pixels:"), quick))
    assert (row["status"], row["reason"]) == ("not applicable", "raw pixels have no patch tokens")
    rows = records.read(suite.evaluate(tiny.load(tmp_path, plan.run.name), quick))
    (headline,) = [row for row in rows if row["main"]]
    assert headline["status"] == "ok" and headline["protocol"] == "attentive-probe/fast@v2"
    other = AttentiveProbe(steps=2, layer=1)
    (mine,) = [r for r in records.read(suite.evaluate(tiny.load(tmp_path), other)) if r["main"]]
    assert mine["status"] == "ok"
    with pytest.raises(NotApplicable, match="no patch tokens"):
        next(quick.run(pixels_of(tmp_path)))


def pixels_of(folder):
    from maebench.evaluating.model import EvaluatedModel

    model = tiny.load(folder, "pixels:")
    return EvaluatedModel(model, AttentiveProbe(), model.splits, 0)


def test_the_scale_of_attention_is_that_of_a_heads_channels():
    one = Probes(
        torch.full((1, 1, 4), 1.0),
        torch.eye(4)[None, None],
        torch.eye(4)[None, None],
        torch.zeros(1, 1, 4),
        torch.eye(4)[None],
        torch.zeros(1, 4),
    )
    x = torch.tensor([[[1.0, 0, 0, 0], [0, 2.0, 0, 0]]])
    a, b = (math.exp(v / 2) for v in (1, 2))  # the square root of four channels
    expected = torch.tensor([a, 2 * b, 0, 0]) / (a + b)
    assert torch.allclose(one.logits(x)[0, 0], expected)
