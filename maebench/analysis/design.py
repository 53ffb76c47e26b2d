"""What is compared: arms, seeds and the baseline, read from settings that hold lists."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from maebench.component import Component, takes_several
from maebench.config.run import RunConfig, merge
from maebench.config.sources import config_of
from maebench.errors import ConfigError, MaebenchError
from maebench.plugins import Names

# What all arms share: a list in one of these is refused. Evaluations' options are shared too.
SHARED = ("dataset", "data_dir", "download", "on_bad_image", "device", "machine", "evals")
MOST_SEEDS = 1000  # a range typed wrong is larger
Path = tuple[str, ...]  # of a setting: ("ratio",) or ("masking", "aspect")


@dataclass(frozen=True)
class Arm:
    """One combination of the compared settings; its runs differ in the seed alone.

    Args:
        name: what distinguishes it, such as "block 0.5".
        config: its settings at the first seed.
    """

    name: str
    config: RunConfig

    def at(self, seed: int) -> RunConfig:
        """The settings of its run with a seed."""
        return self.config.model_copy(update={"seed": seed})


@dataclass(frozen=True)
class Design:
    """A designed comparison: arms times seeds, and what is asked of it.

    Args:
        arms: what is compared, in the order of the lists.
        seeds: of the runs of each arm, the same for all.
        baseline: the name of the arm that the others are tested against.
        compared: the settings that the arms differ in, such as ("ratio",) or ("masking", "aspect").
        probe_seeds: how many seeds each evaluation of a run gets.
        target: a difference that the comparison should find, in the metric's shown unit, or None.
        margin: up to which difference two arms count as equivalent, in that unit, or None.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    baseline: str
    compared: tuple[Path, ...]
    probe_seeds: int = 1
    target: float | None = None
    margin: float | None = None

    @property
    def names(self) -> list[str]:
        """The arms' names in their order."""
        return [arm.name for arm in self.arms]

    @property
    def rivals(self) -> list[str]:
        """The arms that are tested against the baseline: the family of tests."""
        return [name for name in self.names if name != self.baseline]

    def arm(self, name: str) -> Arm:
        """An arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def evaluation_seeds(self, seed: int) -> list[int]:
        """The seeds of the evaluations of a run: the run's own, then others far from all runs'."""
        return [seed + PROBE_STEP * k for k in range(self.probe_seeds)]


PROBE_STEP = 1_000_000  # between seeds of evaluations of one run


def read_design(
    settings: Mapping[str, Any],
    names: Names,
    *,
    seeds: int | str | Sequence[int] = 3,
    baseline: str | None = None,
    arms: Sequence[Mapping[str, Any]] | None = None,
    probe_seeds: int = 1,
    target: float | None = None,
    margin: float | None = None,
) -> Design:
    """The design of nested settings, in which a list is what is compared.

    Args:
        settings: those of RunConfig; a list where one value is wanted makes an arm of each.
        names: the installed components.
        seeds: how many, from 0; or "3-10"; or a list.
        baseline: an arm's name or a part of it that no other has; the first where left out.
        arms: settings of each arm over the common ones, where the arms are no product of lists.
        probe_seeds: how many seeds each evaluation of a run gets.
        target: a difference to find, in the metric's shown unit.
        margin: of equivalence, in that unit.

    Raises:
        ConfigError: an arm that cannot be, a list where none is taken, a baseline that is no arm.
    """
    if "seed" in settings:
        raise ConfigError("seed: a comparison has several: use --seeds N, or --seeds 3-10")
    _check_number("probe_seeds", probe_seeds, whole=True)
    for name, number in (("target", target), ("margin", margin)):
        if number is not None:
            _check_number(name, number)
    if isinstance(baseline, int | float):  # YAML reads 0.75 as a number
        baseline = f"{baseline:g}"
    if not isinstance(baseline, str | None):
        raise ConfigError(f"baseline: the name of an arm is wanted, given {baseline!r}")
    chosen = read_seeds(seeds)
    found: list[tuple[Arm, tuple[Path, ...]]] = []
    for own in [{}] if arms is None else _checked_arms(arms, names):
        fixed = _paths(own)
        for changed in expanded(merged(settings, own), names):
            config, paths = _config(changed, names, chosen[0], len(fixed) + len(changed[0]) > 0)
            found.append((Arm("", config), (*fixed, *(p for p in paths if p not in fixed))))
    compared = tuple(dict.fromkeys(path for _, paths in found for path in paths))
    named = tuple(replace(arm, name=label(arm.config, compared)) for arm, _ in found)
    design = Design(named, chosen, "", compared, probe_seeds, target, margin)
    _check_arms(design)
    return replace(design, baseline=find_arm(design.names, baseline))


def _check_number(name: str, value: Any, whole: bool = False) -> None:
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
        what = "a whole number" if whole else "a number"
        raise ConfigError(f"{name}: {what} above 0 is wanted, given {value!r}")


def _checked_arms(arms: Any, names: Names) -> Sequence[Mapping[str, Any]]:
    """The settings of each arm.

    Raises:
        ConfigError: no list of settings, or one of a setting that all arms share.
    """
    if not isinstance(arms, Sequence) or isinstance(arms, str):
        raise ConfigError(f"arms: a list of settings is wanted, given {arms!r}")
    for own in arms:
        if not isinstance(own, Mapping) or not own:
            raise ConfigError(f"arms: settings such as {{ratio: 0.5}} are wanted, given {own!r}")
        shared = [key for key in own if key in SHARED or key in names.table["evaluation"]]
        if shared:
            raise ConfigError(f"arms: {shared[0]} is no setting of one arm, all arms share it")
        if "seed" in own:
            raise ConfigError("arms: seed is no setting of one arm: all have the same --seeds")
    return arms


def merged(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over others, where either may hold lists of components.

    Raises:
        ConfigError: options for components of which a list says its own.
    """
    below = dict(settings)
    for key, value in over.items():
        before = below.get(key)
        if not isinstance(before, list | tuple) or not isinstance(value, Mapping):
            continue
        if "name" not in value:  # options of each of them
            if not all(isinstance(item, str) for item in before):
                given = ", ".join(value)
                raise ConfigError(
                    f"{key}: a list of {key}s with their own options takes no other ({given}): "
                    "write it into each of them"
                )
            below[key] = {"name": list(before)}
    return merge(below, over)


def read_seeds(seeds: int | str | Sequence[int]) -> tuple[int, ...]:
    """The seeds that N, "A-B" or a list mean.

    Raises:
        ConfigError: none of these, a seed twice, or more than 1,000.
    """
    if isinstance(seeds, str):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", seeds, re.ASCII)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise ConfigError(f"--seeds: write N, or A-B for a range such as 3-10, given {seeds!r}")
        first, last = (int(match[1]), int(match[2])) if match[2] else (0, int(match[1]) - 1)
        if last - first >= MOST_SEEDS:
            raise ConfigError(f"--seeds: at most {MOST_SEEDS:,} are taken, given {seeds!r}")
        found = tuple(range(first, last + 1))
    elif isinstance(seeds, int) and not isinstance(seeds, bool):
        found = tuple(range(min(seeds, MOST_SEEDS + 1)))
    elif isinstance(seeds, Sequence) and all(type(seed) is int and seed >= 0 for seed in seeds):
        found = tuple(int(seed) for seed in seeds)
    else:
        raise ConfigError(
            f"--seeds: how many, A-B or a list of whole numbers is wanted, given {seeds!r}"
        )
    if not found or len(set(found)) < len(found) or len(found) > MOST_SEEDS:
        given = repr(seeds) if len(repr(seeds)) < 60 else f"{len(found):,} of them"
        raise ConfigError(f"--seeds: 1 to {MOST_SEEDS:,} different ones are wanted, given {given}")
    return found


def expanded(
    settings: Mapping[str, Any], names: Names
) -> Iterator[tuple[dict[Path, Any], dict[str, Any]]]:
    """Settings without lists, one per combination, with what was chosen of each list.

    Raises:
        ConfigError: a list where none is taken.
    """
    lists = {
        path: values
        for path, value in _leaves(settings)
        if (values := _several(path, value, settings, names)) is not None
    }
    for chosen in itertools.product(*lists.values()):
        single: dict[str, Any] = {
            key: dict(value) if isinstance(value, Mapping) else value
            for key, value in settings.items()
        }
        for path, value in zip(lists, chosen, strict=True):
            if len(path) == 1:
                single[path[0]] = value
            else:
                single[path[0]][path[1]] = value
        yield dict(zip(lists, chosen, strict=True)), single


def _leaves(settings: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from (((key, option), item) for option, item in value.items())
        else:
            yield (key,), value


def _several(path: Path, value: Any, settings: Mapping[str, Any], names: Names) -> list[Any] | None:
    """The values of a list; None where it is one value."""
    if path[0] in SHARED or path[0] in names.table["evaluation"]:
        own = path[0] in ("evals", *names.table["evaluation"])
        if isinstance(value, list) and not own and not _takes_several(path, settings, names):
            raise ConfigError(f"{'.'.join(path)}: takes no list, all arms share it")
        return None
    whole = _takes_several(path, settings, names)
    if isinstance(value, str) and ";" in value:
        found: list[Any] = [text.strip() for text in value.split(";")]
    elif isinstance(value, str) and "," in value and not whole:
        found = [text.strip() for text in value.split(",")]
    elif isinstance(value, list | tuple) and (
        not whole or (value and all(isinstance(item, list | tuple) for item in value))
    ):
        found = list(value)
    else:
        return None
    if not found or "" in found:
        raise ConfigError(f"{'.'.join(path)}: a value is missing in {value!r}")
    return found


def _takes_several(path: Path, settings: Mapping[str, Any], names: Names) -> bool:
    """Whether one value of this setting is itself a list, so that its commas are its own."""
    field = RunConfig.model_fields.get(path[0])
    if field is None or path[1:] == ("name",):
        return False
    if len(path) == 1:
        return takes_several(field)
    if path[0] in names.table:
        chosen = settings[path[0]].get("name", field.default)
        texts = chosen.split(",") if isinstance(chosen, str) else chosen
        table = names.table[path[0]]
        owners: list[Any] = [table.get(str(text).strip().partition(":")[0]) for text in texts]
    else:
        owners = [field.annotation]
    fields = [getattr(owner, "model_fields", {}).get(path[1]) for owner in owners]
    return any(found is not None and takes_several(found) for found in fields)


def _config(
    changed: tuple[dict[Path, Any], dict[str, Any]], names: Names, seed: int, several: bool
) -> tuple[RunConfig, list[Path]]:
    lists, settings = changed
    try:
        return config_of({**settings, "seed": seed}, names), list(lists)
    except MaebenchError as error:
        said = ", ".join(f"{'.'.join(p).removesuffix('.name')}={v}" for p, v in lists.items())
        raise ConfigError(f"arm {said}: {error}" if several and said else str(error)) from error


def _paths(settings: Mapping[str, Any]) -> tuple[Path, ...]:
    return tuple(path for path, _ in _leaves(settings))


def label(config: RunConfig, compared: Sequence[Path]) -> str:
    """An arm's name: components with their options, the ratio, other settings as key=value."""
    texts: dict[str, None] = {}
    for path in compared:
        value = getattr(config, path[0], None)
        if path[0] in ("masking", "ratio") and not config.objective.hides:
            continue
        if isinstance(value, Component):
            texts[value.changed()] = None
        elif path == ("ratio",):
            texts[_text(value)] = None
        elif path == ("budget",):
            texts[str(value)] = None
        else:
            value = getattr(value, path[1]) if len(path) > 1 else value
            texts[f"{path[-1]}={_text(value)}"] = None
    return " ".join(texts)


def _text(value: Any) -> str:
    """A value as a person writes it, a number with all of its digits."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def find_arm(arms: Sequence[str], text: str | None) -> str:
    """The arm that a text names: all of its name, or words that no other arm has together.

    Raises:
        ConfigError: none, or several.
    """
    if text is None:
        return arms[0]
    if text in arms:
        return text
    words = set(re.split(r"[\s,/]+", text.strip()))
    # block means block(aspect=0.5) too
    found = [arm for arm in arms if words <= {*arm.split(" "), *re.findall(r"\S+(?=\()", arm)}]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise ConfigError(f"--baseline {text!r} fits several arms: {'; '.join(found)}")
    near = difflib.get_close_matches(text, arms, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"--baseline {text!r} is no arm.{hint} There is: {'; '.join(arms)}")


def _check_arms(design: Design) -> None:
    if len(design.arms) < 2:
        lists = "--masking random,block, --ratio 0.5,0.75, or -o part.key=a,b"
        raise ConfigError(f"there is one arm and nothing to compare: give a list, such as {lists}")
    twice = {name for name in design.names if design.names.count(name) > 1}
    if twice:
        raise ConfigError(f"two arms are the same: {', '.join(sorted(twice))}")
