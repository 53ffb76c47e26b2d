"""The flags that commands share; their texts stand here, so that `--help` imports no torch.

A test compares texts and defaults with the fields of RunConfig.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
BY_DATA_SET = "by data set"  # the default of what a data set's preset gives


@dataclass(frozen=True)
class Flag:
    """A setting of a run as a flag.

    Args:
        metavar: what stands for the value in the help; empty for a switch.
        help: a noun phrase, as RunConfig describes the field.
        default: as it is shown; None where there is none.
    """

    metavar: str
    help: str
    default: str | None = None


FLAGS = {
    "dataset": Flag("NAME", "images to learn from", "digits"),
    "data_dir": Flag("DIR", "folder that holds the data set's files"),
    "download": Flag("", "fetch missing files of the data set"),
    "on_bad_image": Flag("fail|skip", "what to do with an image that cannot be read", "fail"),
    "image_size": Flag("N|H,W", "pixels of a side, or rows,columns", BY_DATA_SET),
    "encoder": Flag("NAME", "what is pretrained", BY_DATA_SET),
    "objective": Flag("NAME", "what pretraining minimises", "mae"),
    "masking": Flag("NAME", "which patches are hidden", "random"),
    "ratio": Flag("X", "share of patches that are hidden", "0.75"),
    "budget": Flag(
        "UNIT=N", "length: epochs=N, steps=N, tokens=N, flops=N or seconds=N", BY_DATA_SET
    ),
    "batch": Flag("N", "images per update", BY_DATA_SET),
    "lr": Flag("X", "learning rate per 256 images of a batch", BY_DATA_SET),
    "seed": Flag("N", "seed of everything random", "0"),
    "device": Flag("NAME", "cpu, cuda or cuda:N; auto takes a GPU if there is one", "auto"),
    "limit": Flag("N", "number of training images, class-balanced"),
    "evals": Flag(
        "NAMES",
        "evaluations to run, separated by commas",
        "linear-probe,finetune,knn,reconstruction",
    ),
}
results_option = click.option(
    "--results", metavar="DIR", help="folder for results  [default: MAEBENCH_RESULTS or ./results]"
)


def flag(name: str) -> Callable[[F], F]:
    """The click option of one setting of a run."""
    chosen, written = FLAGS[name], "--" + name.replace("_", "-")
    if not chosen.metavar:
        return click.option(written, name, is_flag=True, default=None, help=chosen.help)
    text = chosen.help if chosen.default is None else f"{chosen.help}  [default: {chosen.default}]"
    return click.option(written, name, metavar=chosen.metavar, help=text)


def run_options(command: F) -> F:
    """Adds the flags of a run, --results, --config, --recipe, --override and -o."""
    command = click.option(
        "-o",
        "options",
        metavar="PART.KEY=VALUE",
        multiple=True,
        help="any other setting, such as masking.aspect=0.5 or knn.k=1,5; repeatable",
    )(command)
    command = click.option(
        "--override", is_flag=True, help="run although settings differ from those of --recipe"
    )(command)
    command = click.option(
        "--recipe",
        metavar="NAME",
        help="published settings, below all others; `maebench list recipes`",
    )(command)
    command = click.option("--config", metavar="FILE", help="settings from a YAML file")(command)
    command = results_option(command)
    for name in reversed(FLAGS):
        command = flag(name)(command)
    return command
