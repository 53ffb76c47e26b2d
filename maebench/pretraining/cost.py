"""What pretraining costs: patches that are seen, and FLOPs of encoder and decoder.

FLOPs are those of matrix products and convolutions, forward and backward, as torch's counter has
them (a multiplication and an addition are two). They depend on the attention kernel, so they are
counted with the plain one, whatever kernel a run then uses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

from maebench.encoders import attention
from maebench.encoders.encoder import Tokens
from maebench.encoders.inputs import Inputs
from maebench.masking.mask import hide
from maebench.objectives.objective import Batch
from maebench.rng import Draws, isolated

COUNTED = 2  # images that FLOPs are counted on: one would fail where statistics of a batch are used


@dataclass(frozen=True)
class Cost:
    """What one image costs, or a whole run.

    Args:
        tokens: patches that the encoder sees; a mask token is none: it holds no image.
        encoder: FLOPs of the encoder's forward and backward.
        decoder: FLOPs of all else that is computed for the loss: decoder, heads, a teacher of the
            objective, penalties. What a masking asks of a model is not in it.
    """

    tokens: int
    encoder: int
    decoder: int

    @property
    def flops(self) -> int:
        """Encoder and decoder together."""
        return self.encoder + self.decoder

    def times(self, images: int) -> Cost:
        """The cost of so many images."""
        return Cost(self.tokens * images, self.encoder * images, self.decoder * images)

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[int, int, int]:
        """Tokens, encoder, decoder."""
        return self.tokens, self.encoder, self.decoder

    def dump(self) -> dict[str, int]:
        """As JSON values."""
        return asdict(self)


NOTHING = Cost(0, 0, 0)


@dataclass(frozen=True)
class Spent:
    """What a run has cost so far.

    Args:
        images: crops that were learnt from.
        seconds: of the updates and of waiting for images; neither checkpoints nor evaluations.
        cost: tokens and FLOPs.
    """

    images: int = 0
    seconds: float = 0.0
    cost: Cost = NOTHING

    def after(self, images: int, seconds: float, each: Cost) -> Spent:
        """What it is after an update with so many images."""
        return Spent(self.images + images, self.seconds + seconds, self.cost + each.times(images))

    def dump(self) -> dict[str, float]:
        """As JSON values, under the names of the table's columns."""
        names = ("tokens", "flops_encoder", "flops_decoder")
        own = {"images": self.images, "pretraining_seconds": self.seconds}
        return own | dict(zip(names, self.cost.values(), strict=True))

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Spent:
        """What `dump` wrote."""
        cost = Cost(*(values[n] for n in ("tokens", "flops_encoder", "flops_decoder")))
        return cls(values["images"], values["pretraining_seconds"], cost)


class Flops(TorchDispatchMode):
    """Sums torch's own counts of each operation while it is entered.

    torch's FlopCounterMode also tells modules apart, by hooks that do not allow a gradient of a
    gradient, as a contractive penalty takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch's compiler is imported to be told to skip this: 1.2 s for nothing."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and adds what it counts."""
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def count(module: Any, inputs: Inputs, hidden: Sequence[int | None]) -> list[Cost]:
    """What an image costs with each count of hidden patches; None where nothing is hidden.

    Args:
        module: the objective around its encoder, on the CPU; its gradients are lost.
        inputs: what it is fed.
        hidden: counts of hidden patches, one per stage of a schedule.
    """
    counted: dict[int | None, Cost] = {}
    for number in hidden:
        if number not in counted:  # once per shape
            counted[number] = _count(module, inputs, number)
    return [counted[number] for number in hidden]


def _count(module: Any, inputs: Inputs, num_hidden: int | None) -> Cost:
    batch = made_up(module.encoder, inputs, num_hidden)
    asked: list[tuple[Any, Any]] = []  # how the objective asks its encoder
    trained: set[int] = set()  # which of these have a gradient of the loss

    def remember(_: nn.Module, args: Any, kwargs: Any, made: Tokens) -> None:
        number = len(asked)
        asked.append(tree_map(_apart, (args, kwargs)))
        for x in _tensors(made):
            if x.requires_grad:
                x.register_hook(lambda _: trained.add(number))

    handle = module.encoder.register_forward_hook(remember, with_kwargs=True)
    with isolated(0, "cost"), attention.using(False), sdpa_kernel(SDPBackend.MATH):
        with Flops() as whole:
            module(batch)["loss"].backward()
        handle.remove()
        with Flops() as alone:
            for number, (args, kwargs) in enumerate(asked):  # again, for the encoder alone
                made = _tensors(module.encoder(*args, **kwargs)) if number in trained else []
                sum((x.float().sum() for x in made), torch.zeros(1, requires_grad=True)).backward()
    module.zero_grad(set_to_none=True)
    encoder = alone.total // COUNTED
    length = math.prod(module.encoder.grid)
    tokens = length - (num_hidden or 0)
    return Cost(tokens, encoder, whole.total // COUNTED - encoder)


def made_up(encoder: Any, inputs: Inputs, num_hidden: int | None, number: int = COUNTED) -> Batch:
    """A few images of noise, as pretraining would give them."""
    ids = torch.arange(number)
    draws = Draws(0, "cost", ids)
    grid = encoder.grid
    scores = draws.uniform(math.prod(grid))
    return Batch(
        images=inputs.made_up(draws),
        ids=ids,
        draws=draws,
        mask=None if num_hidden is None else hide(scores, num_hidden, grid),
        labels=ids % inputs.num_classes if inputs.num_classes else None,
        progress=0.5,
    )


def _tensors(tokens: Tokens) -> list[Tensor]:
    """All that an encoder gives."""
    return [x for t in (tokens, *tokens.layers.values()) for x in (t.prefix, t.patches)]


def _apart(value: Any) -> Any:
    """A tensor of which the same gradients are wanted, without what it was made from."""
    if not isinstance(value, Tensor):
        return value
    return value.detach().requires_grad_(value.requires_grad)
