"""A module's size is known without a byte of its weights being written."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from maebench.encoders.inputs import TEXT, Inputs
from maebench.encoders.text import TextNano
from maebench.encoders.unfilled import TooLarge, unfilled
from maebench.encoders.vit import ViTNano

IMAGES = Inputs.of_images(1, (8, 8), 10)


@pytest.mark.parametrize("encoder", [ViTNano(), ViTNano(registers=3), TextNano(norm="post")])
def test_the_size_is_that_of_the_module(encoder):
    inputs = Inputs(TEXT, (8,), torch.int64, 0, 30) if encoder.takes == (TEXT,) else IMAGES
    with unfilled() as size:
        made = encoder.build(inputs)
    whole = list(encoder.build(inputs).parameters())
    assert [p.shape for p in made.parameters()] == [p.shape for p in whole]
    assert size.bytes == sum(4 * p.numel() for p in whole)


def test_building_is_given_up_where_it_is_too_large():
    with pytest.raises(TooLarge), unfilled(2**20):
        ViTNano(width=8192).build(IMAGES)
    torch.nn.Linear(2**10, 2**10)  # what is built afterwards is not counted


def test_weights_that_are_built_afterwards_are_filled_again():
    with unfilled():
        torch.nn.LayerNorm(3)
    assert torch.nn.LayerNorm(3).weight.tolist() == [1, 1, 1]


@pytest.mark.slow
def test_whatever_lies_in_memory_nothing_is_drawn_until_it_fits():
    """In a process of its own, which is ended where it draws without end."""
    code = """
import inspect, torch
from torch.nn import init
from torch.nn.init import trunc_normal_
from timm.layers import trunc_normal_ as timms, trunc_normal_tf_
from maebench.encoders.unfilled import unfilled
names = [name for name in dir(init) if name.endswith("_") and name[0] != "_"]
before = {name: getattr(init, name) for name in names}
assert len(names) > 10
with unfilled():
    for values in (0.0, 1e9, float("nan")):
        for fill in (trunc_normal_, timms, trunc_normal_tf_, *(getattr(init, n) for n in names)):
            tensor = torch.tensor([[values] * 3] * 3)
            arguments = (0.5,) if "sparse" in fill.__name__ else ()
            fill(tensor, *arguments)
            assert tensor.equal(torch.tensor([[values] * 3] * 3)) or values != values
assert {name: getattr(init, name) for name in names} == before
assert init.trunc_normal_(torch.full((9,), 1e9)).abs().max() <= 2
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_a_size_beyond_the_memory_takes_none_and_imports_no_compiler():
    """In a process of its own, which says how much it held at most."""
    code = """
import resource, sys
from maebench.encoders.inputs import Inputs
from maebench.encoders.unfilled import unfilled
from maebench.encoders.vit import ViTNano
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with unfilled() as size:
    ViTNano(width=8192, depth=8).build(Inputs.of_images(1, (8, 8), 10))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert size.bytes > 24 * 2**30, size.bytes
assert after - before < 2**18, after - before  # KiB
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
