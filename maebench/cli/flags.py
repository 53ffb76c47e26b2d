"""The flags that commands share; their texts stand here, so that `--help` imports no torch.

A test compares texts and defaults with the fields of RunConfig.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from maebench.cli.values import (
    COUNT,
    FILE,
    FOLDER,
    POSITIVE,
    RATIO,
    Budget,
    ImageSize,
    Number,
    OneOf,
    Several,
)

F = TypeVar("F", bound=Callable[..., Any])
BY_DATA_SET = "by data set"  # the default of what a data set's preset gives


@dataclass(frozen=True)
class Flag:
    """A setting of a run as a flag.

    Args:
        metavar: what stands for the value in the help; empty for a switch.
        help: a noun phrase, as RunConfig describes the field.
        default: as it is shown; None where there is none.
        type: reads the value.
    """

    metavar: str
    help: str
    default: str | None = None
    type: click.ParamType = click.STRING


FLAGS = {
    "dataset": Flag("NAME", "images to learn from", "digits"),
    "data_dir": Flag("DIR", "folder that holds the data set's files", type=FOLDER),
    "download": Flag("", "fetch missing files of the data set"),
    "on_bad_image": Flag(
        *("fail|skip", "what to do with an image that cannot be read", "fail"),
        OneOf("way", ["fail", "skip"]),
    ),
    "image_size": Flag("N|H,W", "pixels of a side, or rows,columns", BY_DATA_SET, ImageSize()),
    "encoder": Flag("NAME", "what is pretrained", BY_DATA_SET),
    "objective": Flag("NAME", "what pretraining minimises", "mae"),
    "masking": Flag("NAME", "which patches are hidden", "random"),
    "ratio": Flag("X", "share of patches that are hidden", "0.75", RATIO),
    "budget": Flag(
        *("UNIT=N", "length: epochs=N, steps=N, tokens=N, flops=N or seconds=N", BY_DATA_SET),
        Budget(),
    ),
    "batch": Flag("N", "images per update", BY_DATA_SET, POSITIVE),
    "lr": Flag(
        *("X", "learning rate per 256 images of a batch", BY_DATA_SET),
        Number(min=0, min_open=True),
    ),
    "seed": Flag("N", "seed of everything random", "0", COUNT),
    "device": Flag("NAME", "cpu, cuda or cuda:N; auto takes a GPU if there is one", "auto"),
    "limit": Flag("N", "number of training images, class-balanced", type=POSITIVE),
    "evals": Flag(
        *("NAMES", "evaluations to run, separated by commas"),
        *("linear-probe,finetune,knn,reconstruction", Several()),
    ),
}


class Shown(click.Option):
    """An option whose default is no value of its own: the help says where it comes from.

    Args:
        shown: the default as the help shows it; None where there is none.
    """

    def __init__(self, *arguments: Any, shown: str | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.shown = shown

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What stands in brackets, the default first."""
        extra = super().get_help_extra(ctx)
        if self.shown is not None:
            extra["default"] = self.shown
        return extra


def option(*names: str, shown: str | None = None, **settings: Any) -> Callable[[F], F]:
    """A click option that shows `shown` as its default."""
    return click.option(*names, cls=Shown, shown=shown, **settings)


def flag(name: str) -> Callable[[F], F]:
    """The click option of one setting of a run; None where it is not set."""
    chosen, written = FLAGS[name], "--" + name.replace("_", "-")
    if not chosen.metavar:
        return option(written, name, is_flag=True, default=None, help=chosen.help)
    return option(
        *(written, name),
        type=chosen.type,
        metavar=chosen.metavar,
        help=chosen.help,
        shown=chosen.default,
    )


results_option = option(
    "--results",
    type=FOLDER,
    metavar="DIR",
    help="folder for results",
    shown="MAEBENCH_RESULTS or ./results",
)
device_option = option(
    "--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:N", show_default=True
)
key_map_option = option(
    "--key-map",
    metavar="FILE.yaml",
    help="regular expressions for the names of file: weights",
)


def run_options(command: F) -> F:
    """Adds the flags of a run, --results, --config, --recipe, --override and -o."""
    added = [
        *(flag(name) for name in FLAGS),
        results_option,
        option("--config", type=FILE, metavar="FILE", help="settings from a YAML file"),
        option(
            "--recipe",
            metavar="NAME",
            help="published settings, below all others; `maebench list recipes`",
        ),
        option(
            "--override", is_flag=True, help="run although settings differ from those of --recipe"
        ),
        option(
            *("-o", "options"),
            metavar="PART.KEY=VALUE",
            multiple=True,
            help="any other setting, such as masking.aspect=0.5 or knn.k=1,5; repeatable",
        ),
    ]
    for add in reversed(added):
        command = add(command)
    return command
