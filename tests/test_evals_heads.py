"""Logistic regressions at their optimum, against scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from maebench_evals.heads import probe


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_the_heads_guess_what_scikit_learns_do(penalty):
    draw = torch.Generator().manual_seed(0)
    x_ND = torch.randn(300, 6, generator=draw) @ torch.randn(6, 6, generator=draw)
    y_N = (x_ND[:, :3] + torch.randn(300, 3, generator=draw)).argmax(1)
    test = torch.randn(200, 6, generator=draw)
    made = probe(x_ND, y_N, test, [penalty], 3, None)
    theirs = LogisticRegression(C=1 / (penalty * 300), tol=1e-8, max_iter=10_000)
    expected = theirs.fit(x_ND.double().numpy(), y_N.numpy()).predict(test.double().numpy())
    assert made.converged == 1
    assert (made.predicted[0].numpy() == expected).mean() >= 0.995
