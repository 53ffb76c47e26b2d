"""How well hidden tokens are guessed, by a model and by two baselines that need none.

B windows, L tokens of a window, M hidden ones, V vocabulary, P pairs of neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maebench import Draws, Mask, Model, Result
from maebench_evals.token_pictures import examples

BATCH = 64  # windows at once
# Logits of a batch, and logs of the hidden tokens that are guessed at once: 256 MB, or 128
LOGITS, LOGS = 2**26, 2**24
UNIGRAM, BIGRAM = "unigram", "bigram"
UNSEEN = 0.5  # counted for each token beside its own occurrences (Krichevsky and Trofimov 1981)
# What the unigram weighs against a neighbour's pairs, in occurrences of the neighbour (a Dirichlet
# prior; MacKay and Bauman Peto 1995); chosen on train
PRIORS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
HELD, SCORED = 10, 4096  # one window in ten of train is held out; tokens of it that are scored
Masks = Callable[[Tensor], Mask]  # of windows, by their ids


@dataclass
class Guesses:
    """What is known of the hidden tokens of each window.

    Args:
        bits: mean of - log2 p over its hidden tokens, float64.
        right: share of them that is the likeliest, float64.
    """

    bits: list[Tensor] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)

    def add(self, nats_BM: Tensor, right_BM: Tensor) -> None:
        """Adds a batch."""
        self.bits.append(nats_BM.double().mean(1).cpu() / math.log(2))
        self.right.append(right_BM.double().mean(1).cpu())

    def results(self, where: dict[str, object], unigram: float) -> Iterator[Result]:
        """Yields the share of the unigram's bits that is saved, the bits, and the accuracy."""
        bits = torch.cat(self.bits)
        yield Result("r2", 1 - bits / unigram, where)
        yield Result("bits", bits, where)
        yield Result("token_accuracy", torch.cat(self.right), where)


def token_results(model: Model, masks: Masks) -> Iterator[Result]:
    """Yields what the model and the baselines know of the hidden tokens of test."""
    test, vocabulary = model.images("test"), model.inputs.vocabulary
    known, chosen = best_neighbours(model, masks, vocabulary)
    found = {name: Guesses() for name in ("", UNIGRAM, BIGRAM)}
    size = max(1, min(BATCH, LOGITS // (vocabulary * model.inputs.numbers)))
    done, steps = 0, -(-len(test) // size)
    for ids_BL in model.progress(test.whole(size), steps, f"reconstruction of {model.kind}"):
        mask = masks(test.info.ids[done : done + len(ids_BL)])
        given = model.normalise(ids_BL)
        made = model.reconstruct(given, mask)
        truth_BM = given.gather(1, mask.places)
        best_BL = made.prediction.argmax(2)
        best_BM = best_BL.gather(1, mask.places)
        if done == 0:
            examples(model, given, mask, best_BL)
        found[""].add(made.errors().gather(1, mask.places), best_BM == truth_BM)
        for name, context in ((UNIGRAM, "none"), (BIGRAM, chosen)):
            nats_BM, guess_BM = known.guess(ids_BL, mask, context)
            found[name].add(nats_BM, guess_BM == truth_BM.cpu())
        done += len(ids_BL)
    unigram = torch.cat(found[UNIGRAM].bits).mean().item()
    yield from found[""].results({"space": "tokens", "chosen": True}, unigram)
    yield from found[UNIGRAM].results({"baseline": UNIGRAM}, unigram)
    how = {"baseline": BIGRAM, "context": chosen, "prior": known.prior}
    yield from found[BIGRAM].results(how, unigram)


@dataclass(frozen=True)
class Neighbours:
    """What train says of a token by itself, and by the tokens beside it.

    Args:
        logs: of how often each token is there, float64 (V,).
        after: how often a token (row) has each token after it, a sparse matrix (V, V) of scipy.
        before: its transpose.
        prior: occurrences of a neighbour that weigh as much as the unigram.
    """

    logs: Tensor
    after: Any
    before: Any
    prior: float = 1.0

    @classmethod
    def of(cls, ids_NL: Tensor, vocabulary: int) -> Neighbours:
        """Counts of windows; pairs across two windows are not counted."""
        from scipy.sparse import csr_matrix

        counts = ids_NL.flatten().bincount(minlength=vocabulary).double() + UNSEEN
        left, right = (part.flatten().numpy() for part in (ids_NL[:, :-1], ids_NL[:, 1:]))
        pairs = csr_matrix((np.ones(len(left)), (left, right)), shape=(vocabulary, vocabulary))
        return cls((counts / counts.sum()).log(), pairs, pairs.T.tocsr())

    def guess(self, ids_BL: Tensor, mask: Mask, context: str) -> tuple[Tensor, Tensor]:
        """- log p of each hidden token in nats, and the likeliest one, both (B, M) on the CPU.

        Args:
            ids_BL: windows.
            mask: what of them is hidden.
            context: "none", or the seen neighbours that are looked at: "left", "right", or "both",
                whose words are taken as independent given the token. A token without such has none.
        """
        few = max(1, LOGS // (len(self.logs) * mask.num_hidden))
        here = Mask(mask.hidden.cpu(), mask.seen.cpu(), mask.grid, mask.places.cpu())
        parts = zip(ids_BL.split(few), here.split(few), strict=True)
        found = [self._guess(ids, part, context) for ids, part in parts]
        nats, best = zip(*found, strict=True)
        return torch.cat(nats), torch.cat(best)

    def _guess(self, ids_BL: Tensor, mask: Mask, context: str) -> tuple[Tensor, Tensor]:
        hidden_BL, places_BM = mask.hidden, mask.places
        truth_P = ids_BL.gather(1, places_BM).flatten()
        logs_PV = self.logs.expand(len(truth_P), -1).clone()
        for side, step, pairs in (("left", -1, self.after), ("right", 1, self.before)):
            if context not in (side, "both"):
                continue
            beside_BM = places_BM + step
            inside_BM = (beside_BM >= 0) & (beside_BM < ids_BL.shape[1])
            beside_BM = beside_BM.clamp(0, ids_BL.shape[1] - 1)
            seen_P = (inside_BM & ~hidden_BL.gather(1, beside_BM)).flatten()
            beside_P = ids_BL.gather(1, beside_BM).flatten()[seen_P]
            # p(w | l, r) = p(w) * p(w | l) / p(w) * p(w | r) / p(w), up to what makes it sum to 1
            logs_PV[seen_P] += self._given(beside_P, pairs) - self.logs
        logs_PV = logs_PV.log_softmax(1)
        nats_P = -logs_PV.gather(1, truth_P[:, None])[:, 0]
        return nats_P.view_as(places_BM), logs_PV.argmax(1).view_as(places_BM)

    def _given(self, beside_P: Tensor, pairs: Any) -> Tensor:
        """Log of the probability of each token beside a neighbour, float64 (P, V)."""
        counts_PV = torch.from_numpy(pairs[beside_P.numpy()].toarray())
        all_P1 = counts_PV.sum(1, keepdim=True)
        prior_V = self.prior * self.logs.exp()
        return ((counts_PV + prior_V) / (all_P1 + self.prior)).log()


def best_neighbours(model: Model, masks: Masks, vocabulary: int) -> tuple[Neighbours, str]:
    """Counts of train, with the prior and the neighbours that tell most of held-out train."""
    train = model.images("train")
    ids_NL = torch.cat(list(train.whole(BATCH)))
    # the same for every model and seed, as the masks are
    turn_N = Draws(0, "bigram", train.info.ids).uniform().argsort().argsort()
    held = turn_N < max(1, len(ids_NL) // HELD)
    counted = Neighbours.of(ids_NL[~held], vocabulary)
    mask = masks(train.info.ids[held])
    few = max(1, SCORED // mask.num_hidden)
    some, mask = ids_NL[held][:few], mask.split(few)[0]
    tried = {
        (context, prior): Neighbours(counted.logs, counted.after, counted.before, prior)
        .guess(some, mask, context)[0]
        .mean()
        .item()
        for context in ("left", "right", "both")
        for prior in PRIORS
    }
    context, prior = min(tried, key=tried.__getitem__)
    known = Neighbours.of(ids_NL, vocabulary)
    return Neighbours(known.logs, known.after, known.before, prior), context
