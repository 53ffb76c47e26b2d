"""The linear probe as the masked autoencoder's own code trains it: a head, LARS and one rate.

Sources: arXiv 2111.06377, table 10, and the official code (main_linprobe.py, util/lars.py,
util/lr_sched.py). Shape suffixes: N images, B a batch, D features, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from maebench import Crops, Draws, MaebenchError, Partial, half_cosine
from maebench_evals.interrupted import kept_of, restored

BASE_LR, LR_BATCH = 0.1, 256  # lr = 0.1 * batch / 256
EPOCHS, WARMUP = 90, 10 / 90  # ten of ninety epochs; the same share of a shorter schedule
BATCH = 16384
# How far LARS moves weights depends on the images seen, since the rate grows with the batch. Ninety
# epochs of a small set move them hardly: digits' class token gives 24.7 % then, 61.9 after a
# thousand epochs, 85.0 after three thousand, where fast gives 85.3 (benchmarks/protocols.py). The
# protocol stays what it is; `-o epochs=N` is for small sets, and the rows say the updates.
MOMENTUM, TRUST = 0.9, 0.001
NORM_EPS, HEAD_STD = 1e-6, 0.01
CROP_SCALE = (0.08, 1.0)  # share of the area that a training crop keeps
PART = 256  # images that are cropped and encoded at a time: under a gigabyte at 224 pixels


class Head(nn.Module):
    """Features to logits: batch norm without weights of its own, then a linear layer."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=NORM_EPS, affine=False)
        self.linear = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=HEAD_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.linear(self.norm(x_BD))


def make_lars(module: nn.Module) -> torch.optim.Optimizer:
    """LARS without weight decay; vectors are not scaled by their norm.

    timm scales a group only where it decays or has `always_adapt`; eps=0 is the official code,
    where a norm of zero is a case of its own.
    """
    from timm.optim import Lars

    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    return Lars(
        [
            {"params": matrices, "always_adapt": True},
            {"params": vectors, "always_adapt": False},
        ],
        lr=0.0,  # set before every step
        momentum=MOMENTUM,
        trust_coeff=TRUST,
        eps=0.0,
    )


def learning_rate(step: int, steps: int, peak: float) -> float:
    """The rate of update `step` (from 0): a line from 0 to the peak, then half a cosine to 0."""
    warmup = WARMUP * steps
    if step < warmup:
        return peak * step / warmup
    return peak * half_cosine(step - warmup, steps - warmup)


def train(
    head: Head,
    batches: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    batch: int,
    partial: Partial | None = None,
) -> float:
    """Trains a head on (features, labels) and gives the mean loss of the last tenth of steps.

    Args:
        head: at its beginning.
        batches: those that are left, where some steps were made before.
        steps: in all.
        batch: images of one.
        partial: keeps how far it is.

    Raises:
        MaebenchError: the loss is not finite, or the batch norm did not learn its statistics.
    """
    lars = make_lars(head)
    peak = BASE_LR * batch / LR_BATCH
    made = restored(head, lars, partial.state if partial else {})
    head.train()
    for step, (x_BD, y_B) in enumerate(batches, len(made)):
        rate = learning_rate(step, steps, peak)
        for group in lars.param_groups:
            group["lr"] = rate
        loss = cross_entropy(head(x_BD), y_B)
        lars.zero_grad()
        loss.backward()
        lars.step()
        made.append(loss.detach())
        if partial:
            partial.keep(lambda: kept_of(head, lars, made))
    head.eval()
    check_norm(head, steps)
    losses = torch.stack(made).tolist()  # read once: a GPU is waited for each time
    if not math.isfinite(losses[-1]):
        raise MaebenchError(
            f"linear-probe: the loss is {losses[-1]}; try a smaller -o linear-probe.batch"
        )
    last = losses[-max(1, len(losses) // 10) :]
    return float(sum(last) / len(last))


def check_norm(head: Head, steps: int) -> None:
    """Whether the batch norm took its statistics from every batch, and uses them from now on.

    A norm in the wrong mode trains and predicts without a word, on other numbers.

    Raises:
        MaebenchError: says what it did instead.
    """
    norm = head.norm
    seen = int(norm.num_batches_tracked or 0)
    if seen != steps:
        raise MaebenchError(
            f"linear-probe: the batch norm took statistics of {seen} batches, {steps} were trained "
            "on: it was not in training mode"
        )
    if norm.training:
        raise MaebenchError(
            "linear-probe: the batch norm is in training mode where test images are judged: it "
            "would take their statistics"
        )


def predict(head: Head, x_ND: Tensor, batch: int = 4096) -> Tensor:
    """The predicted class of each image, int64 (N,) on the CPU."""
    with torch.no_grad():
        device = head.linear.weight.device
        parts = [head(part.to(device)).argmax(1).cpu() for part in x_ND.split(batch)]
    return torch.cat(parts)


def split_batch(batch: int, multiple: int = 1) -> tuple[int, int]:
    """A batch too large for memory as equal parts of at most PART images: how many, how large.

    Rounded down to equal parts; what that leaves out comes in the next batch.

    >>> split_batch(16384), split_batch(1437), split_batch(60)
    ((64, 256), (6, 239), (1, 60))
    """
    parts = math.ceil(batch / PART)
    return parts, max(multiple, batch // parts // multiple * multiple)


def length(num_images: int, epochs: int | None, batch: int) -> int:
    """The number of updates: of so many epochs, or of ninety."""
    return math.ceil((epochs or EPOCHS) * num_images / batch)


def cached_batches(
    x_ND: Tensor, y_N: Tensor, batch: int, steps: int, draws: Draws
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of features that do not change, epoch after epoch in a new order."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(order) < batch:
            order = torch.cat([order, draws.uniform(len(x_ND))[0].argsort()])
        index, order = order[:batch].to(x_ND.device), order[batch:]
        yield x_ND[index], y_N[index]


def encoded_batches(
    crops: Iterable[Crops],
    encode: Callable[[Tensor], Tensor],
    y_N: Tensor,
    parts: int,
    device: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of new crops' features, each of `parts` parts that are encoded one by one."""
    x_BD: list[Tensor] = []
    y_B: list[Tensor] = []
    for crop in crops:
        x_BD.append(encode(crop.images))
        y_B.append(y_N[crop.index])
        if len(x_BD) == parts:
            yield torch.cat(x_BD).to(device), torch.cat(y_B).to(device)
            x_BD, y_B = [], []
