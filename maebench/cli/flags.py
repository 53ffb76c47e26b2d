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


source_options = (
    option("--config", type=FILE, metavar="FILE", help="settings from a YAML file"),
    option(
        "--recipe",
        metavar="NAME",
        help="published settings, below all others; `maebench list recipes`",
    ),
    option("--override", is_flag=True, help="run although settings differ from those of --recipe"),
    option(
        *("-o", "options"),
        metavar="PART.KEY=VALUE",
        multiple=True,
        help="any other setting, such as masking.aspect=0.5 or knn.k=1,5; repeatable",
    ),
)


def run_options(command: F) -> F:
    """Adds the flags of a run, --results, --config, --recipe, --override and -o."""
    added = [*(flag(name) for name in FLAGS), results_option, *source_options]
    for add in reversed(added):
        command = add(command)
    return command


class Single(click.ParamType):
    """A flag of a run that all arms of a comparison share.

    Args:
        flag: its name.
        item: the type of its value.
    """

    def __init__(self, flag: str, item: click.ParamType) -> None:
        self.flag, self.item, self.name = flag, item, item.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; a list is answered by where a list may stand."""
        lists = not isinstance(self.item, Several | ImageSize) and "," in str(value)
        is_path = self.flag == "data_dir" or ":" in str(value)
        if lists and self.flag in ("dataset", "device", "on_bad_image") and not is_path:
            self.fail(f"{value!r}: takes no list, all arms share it", param, ctx)
        if lists and not is_path:
            option = self.flag
            self.fail(
                f"{value!r}: takes no list. Arms differ in --masking, --ratio, --encoder, "
                f"--objective or -o, such as -o {option}={value}",
                param,
                ctx,
            )
        return self.item.convert(value, param, ctx)


def options_of_arms() -> list[Callable[[F], F]]:
    """The flags of a run as a comparison takes them: four of them take lists, --seed is not."""
    several = ("masking", "ratio", "encoder", "objective")
    added: list[Callable[[F], F]] = []
    for name, chosen in FLAGS.items():
        written = "--" + name.replace("_", "-")
        if name == "seed":
            continue
        if not chosen.metavar:
            added.append(flag(name))
            continue
        metavar = f"{chosen.metavar},..." if name in several else chosen.metavar
        what = f"{chosen.help}; a list makes an arm of each" if name in several else chosen.help
        kind = click.STRING if name in several else Single(name, chosen.type)
        added.append(
            option(*(written, name), type=kind, metavar=metavar, help=what, shown=chosen.default)
        )
    return added


def compare_options(command: F) -> F:
    """Adds the flags of a comparison: those of a run, four of which take lists, and its own."""
    added: list[Callable[[F], F]] = [
        *options_of_arms(),
        option("--seeds", metavar="N|A-B", help="seeds of each arm: how many, or which", shown="3"),
        option(
            "--baseline",
            metavar="ARM",
            help="what the other arms are tested against",
            shown="the first arm",
        ),
        option(
            "--target",
            type=Number(min=0, min_open=True),
            metavar="X",
            help="how many seeds a difference of X points needs",
        ),
        option(
            "--margin",
            type=Number(min=0, min_open=True),
            metavar="X",
            help="test whether arms are equivalent within X points",
        ),
        option(
            "--probe-seeds",
            type=POSITIVE,
            metavar="K",
            help="seeds of each evaluation of a run",
            shown="1",
        ),
        option(
            "--name",
            metavar="NAME",
            help="of the folder in results/comparisons",
            shown="by what is compared",
        ),
        option("--dry-run", is_flag=True, help="print the plan and stop"),
        option("--fail-fast", is_flag=True, help="stop at the first cell that fails"),
        results_option,
        option(
            "--config",
            type=FILE,
            metavar="FILE",
            help="settings from a YAML file, those of a comparison too",
        ),
        option(
            *("-o", "options"),
            metavar="PART.KEY=VALUE",
            multiple=True,
            help="any other setting, a list too; workers=N and threads=N; repeatable",
        ),
    ]
    for add in reversed(added):
        command = add(command)
    return command
