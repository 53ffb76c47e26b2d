"""Ranks, decay, uniformity and alignment against formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from maebench import Draws
from maebench.data.augment import Augment
from maebench.testing import EvaluationContract
from maebench.testing.synthetic import Synthetic
from maebench_evals import geometry
from maebench_evals.geometry import Geometry


class TestContractOfGeometry(EvaluationContract):
    component = Geometry(samples=64, views=2)

    def test_every_option_changes_a_number(self):
        """The kit's images are never cropped: here they are, so that the number of crops counts."""

        def cropped(self):
            return plain(self) | {"augment": Augment(scale=(0.5, 1), flip=True).model_dump()}

        plain = Synthetic.preset
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Synthetic, "preset", cropped)
            super().test_every_option_changes_a_number()


def numbers(*shape, seed=0):
    return Draws(seed, "geometry", torch.arange(shape[0])).normal(*shape[1:]).double()


def spread(deviations, samples=4000):
    """Samples whose directions have these deviations, turned at random."""
    d = len(deviations)
    turned, _ = torch.linalg.qr(numbers(d, d, seed=1))
    return numbers(samples, d) * torch.tensor(deviations, dtype=torch.float64) @ turned.T


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (20, 20), (3, 9000), (5000, 3)])
def test_rankme_is_its_formula_by_numpys_singular_values(shape):
    x = numbers(*shape)
    values = np.linalg.svd(x.numpy(), compute_uv=False)
    share = values / values.sum() + 1e-7
    expected = math.exp(-(share * np.log(share)).sum())
    assert geometry.entropy_rank(geometry.singular(x)) == pytest.approx(expected, rel=1e-5)


def test_a_rank_is_the_number_of_equal_directions():
    for directions in (1, 3, 7):
        x = torch.eye(7, dtype=torch.float64)[:directions].repeat(10, 1)
        assert geometry.entropy_rank(geometry.singular(x)) == pytest.approx(directions, rel=1e-4)


def test_effective_rank_does_not_count_a_common_offset():
    x = numbers(500, 6) + 1000
    one = geometry.entropy_rank(geometry.singular(x))
    centred = geometry.entropy_rank(geometry.singular(x - x.mean(0)), 0.0)
    assert one < 1.5 < 5.5 < centred


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_alpha_is_the_power_by_which_variance_falls(power):
    variances = torch.arange(1, 41, dtype=torch.float64) ** -power
    assert geometry.decay(variances) == pytest.approx(power, rel=1e-9)
    odd = torch.cat([100 * variances[:3], variances[3:], torch.rand(5).double() * 1e-14])
    assert geometry.decay(odd) == pytest.approx(power, rel=1e-9), "neither first few nor rounding"
    measured = spread([float(v) ** 0.5 for v in variances])
    found = geometry.decay(geometry.singular(measured - measured.mean(0)).square())
    assert found == pytest.approx(power, abs=0.1)


def test_alpha_is_the_fit_weighted_by_one_over_the_rank():
    variances = numbers(150).square().sort(descending=True).values
    rank = np.arange(4, 101)
    y = variances.numpy()[3:100]
    expected = -np.polyfit(np.log(rank), np.log(y), 1, w=rank**-0.5)[0]
    assert geometry.decay(variances) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("directions", [0, 1, 4])
def test_features_in_too_few_directions_have_ranks_and_no_alpha(directions):
    values = torch.zeros(60, 8)
    values[:, :directions] = numbers(60, max(1, directions)).float()[:, :directions]
    spread = geometry.singular(values - values.mean(0))
    assert geometry.decay(spread.square()) is None
    assert geometry.entropy_rank(spread, 0.0) >= 1


def test_uniformity_is_the_log_of_the_mean_over_all_pairs():
    x = geometry.unit(numbers(12, 3))
    pairs = [
        math.exp(-2 * float((x[i] - x[j]).square().sum())) for i in range(12) for j in range(i)
    ]
    assert geometry.uniformity(x) == pytest.approx(math.log(sum(pairs) / len(pairs)))
    assert geometry.uniformity(x[:1].repeat(5, 1)) == pytest.approx(0)


def test_lidar_is_its_formula_and_counts_what_tells_samples_apart():
    N, V, D = 40, 5, 6
    x = numbers(N, 1, D) + 0.3 * numbers(N, V, D, seed=2)
    means = x.mean(1).numpy()
    between = np.cov(means.T)
    off = (x - x.mean(1, keepdim=True)).reshape(-1, D).numpy()
    within = off.T @ off / (N * (V - 1)) + 1e-4 * np.eye(D)
    values = np.linalg.eigvals(np.linalg.solve(within, between)).real
    share = values / values.sum() + 1e-7
    expected = math.exp(-(share * np.log(share)).sum())
    assert geometry.lidar(x) == pytest.approx(expected, rel=1e-5)
    # crops of a sample differ along the last three directions alone, which then count for less
    noisy = x.clone()
    noisy[:, :, 3:] += 30 * numbers(N, V, 3, seed=3)
    assert geometry.lidar(noisy) < 4 < geometry.lidar(x)
