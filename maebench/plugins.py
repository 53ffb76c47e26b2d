"""Which components there are: finding, isolating and checking plugins.

The plugin manager is the registry. Every entry point is loaded and checked alone, so that a
broken plugin is reported and takes nothing else with it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import time
import traceback
import types
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pluggy

import maebench.data
import maebench.encoders
import maebench.masking
import maebench.objectives
from maebench import hookspecs
from maebench.component import Component, check_class, look_up, raised_by
from maebench.data.dataset import Dataset
from maebench.encoders.encoder import Encoder
from maebench.errors import ConfigError, PluginError, unknown
from maebench.evaluation import Evaluation
from maebench.masking.mask import Masking
from maebench.objectives.objective import Objective
from maebench.outputs import FORMATS, Report, Tracker
from maebench.state import compared, steady

P = ParamSpec("P")
T = TypeVar("T")
GROUP = "maebench"
SELECT = "MAEBENCH_PLUGINS"  # "" loads no third-party plugin, "a,b" only those
# hook -> the class that what it returns must inherit from
HOOKS: Mapping[str, type[Component]] = {
    "register_maskings": Masking,
    "register_encoders": Encoder,
    "register_objectives": Objective,
    "register_datasets": Dataset,
    "register_evaluations": Evaluation,
    "register_trackers": Tracker,
    "register_reports": Report,
}
KINDS: Mapping[str, type[Component]] = {base.kind: base for base in HOOKS.values()}
# A plugin costs every command its import: one that doubles the wait, of which torch's own import
# is about this much, is named.
SLOW_IMPORT_SECONDS = 2.0


@dataclass(frozen=True)
class Plugin:
    """An entry point that was found, loaded or not.

    Args:
        name: the entry point's name.
        package: the distribution that brings it, and its version.
        problem: why it is not loaded, or None.
        components: what it registered.
        changed: what its import changed of what all code shares; it was put back.
        seconds: what its import took.
    """

    name: str
    package: str
    version: str
    problem: str | None = None
    components: tuple[type[Component], ...] = ()
    changed: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def remarks(self) -> list[str]:
        """What a user should know of a plugin that may work all the same."""
        found = []
        if self.changed:
            found.append(f"its import changed {', '.join(self.changed)}: put back")
        if self.seconds > SLOW_IMPORT_SECONDS:
            found.append(f"its import took {self.seconds:.1f} s, for which most commands wait")
        return found


# What the import of a plugin's module did: a process imports it once.
_IMPORTED: dict[tuple[str, str, str], tuple[tuple[str, ...], float]] = {}


@dataclass(frozen=True)
class Names:
    """Every component that can be chosen, where it comes from, and what is in dispute.

    Args:
        table: {kind: {name: class}}.
        plugins: all that were found.
        conflicts: {(kind, name): packages} for names that two packages claim.
        manager: the pluggy manager that holds the loaded ones.
    """

    table: Mapping[str, Mapping[str, type[Component]]]
    plugins: tuple[Plugin, ...]
    conflicts: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def context(self) -> dict[str, Any]:
        """The validation context by which `Component` reads names."""
        origins = {
            kind: [
                name
                if self.origin(cls).package == "maebench"
                else f"{name} ({self.origin(cls).package})"
                for name, cls in names.items()
            ]
            for kind, names in self.table.items()
        }
        missing = {"missing": self.missing(), "conflicts": self.conflicts, "origins": origins}
        return {**self.table, **missing}

    def missing(self) -> str:
        """What to say beside an unknown name: which plugins could not be loaded."""
        failed = [f"{p.name} ({p.package}): {p.problem}" for p in self.plugins if p.problem]
        return f". Not loaded, and may bring it: {'; '.join(failed)}" if failed else ""

    def origin(self, cls: type[Component]) -> Plugin:
        """The plugin that brought a class; one that none brought came from Python code."""
        for plugin in self.plugins:
            if cls in plugin.components:
                return plugin
        return Plugin(cls.__module__, cls.__module__.split(".")[0], "unknown")

    def get(self, kind: str, name: str) -> type[Component]:
        """The class of this name.

        Raises:
            ConfigError: there is none, or two packages claim the name.
        """
        try:
            return look_up(KINDS[kind], name, self.context())
        except ValueError as error:
            raise ConfigError(str(error)) from error


def built_in() -> types.SimpleNamespace:
    """The core's own components, registered like a plugin's."""
    parts = {
        "register_maskings": maebench.masking.BUILT_IN,
        "register_encoders": maebench.encoders.BUILT_IN,
        "register_objectives": maebench.objectives.BUILT_IN,
        "register_datasets": maebench.data.BUILT_IN,
    }
    plugin = types.SimpleNamespace()
    for hook, classes in parts.items():
        setattr(plugin, hook, hookspecs.hookimpl(_returner(classes)))
    return plugin


def plugin_manager() -> pluggy.PluginManager:
    """A fresh manager with our hooks and the core's components, and nothing else."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(built_in(), "maebench")
    return manager


def installed(
    manager: pluggy.PluginManager | None = None,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
) -> Names:
    """All components of the core, of our own evaluations and of installed plugins.

    Args:
        manager: a manager that already holds plugins, such as a test's fakes.
        entry_points: what to load; the installed ones by default.
    """
    manager = manager or plugin_manager()
    found = [
        _describe(manager, plugin, name or repr(plugin), None)
        for name, plugin in manager.list_name_plugin()
        if plugin is not None
    ]
    for entry_point in sorted(
        importlib.metadata.entry_points(group=GROUP) if entry_points is None else entry_points,
        key=lambda e: (e.dist.name != "maebench" if e.dist else True, e.name),  # ours first
    ):
        if _selected(entry_point):
            found.append(_load(manager, entry_point))
    loaded = {plugin.name for plugin in found}
    for name in set(_chosen() or ()) - loaded:
        found.append(Plugin(name, "unknown", "", f"{SELECT} names it; no installed package has it"))
    return _without_clashes(found)


def _chosen() -> list[str] | None:
    """The plugins that the environment asks for; None where it does not say."""
    value = os.environ.get(SELECT)
    return None if value is None else [c.strip() for c in value.split(",") if c.strip()]


def _selected(entry_point: importlib.metadata.EntryPoint) -> bool:
    chosen = _chosen()
    ours = entry_point.dist is not None and entry_point.dist.name == "maebench"
    return ours or chosen is None or entry_point.name in chosen


def _load(manager: pluggy.PluginManager, entry_point: importlib.metadata.EntryPoint) -> Plugin:
    package = entry_point.dist.name if entry_point.dist else "unknown"
    version = entry_point.dist.version if entry_point.dist else "unknown"
    if package == "maebench":
        return _register(manager, entry_point, package, version)
    began = time.monotonic()
    with compared() as changed:
        described = _register(manager, entry_point, package, version)
    place = (package, version, entry_point.value)
    first = place not in _IMPORTED
    found, seconds = _IMPORTED.setdefault(place, (tuple(changed), time.monotonic() - began))
    described = replace(described, changed=found, seconds=seconds)
    for remark in described.remarks if first else ():
        warnings.warn(f"plugin {described.name} ({package} {version}): {remark}", stacklevel=2)
    return described


def _register(
    manager: pluggy.PluginManager,
    entry_point: importlib.metadata.EntryPoint,
    package: str,
    version: str,
) -> Plugin:
    """Imports and registers one plugin, or says why it cannot be."""
    plugin = None
    try:
        plugin = entry_point.load()
        manager.register(plugin, f"{package}:{entry_point.name}")
        for caller in manager.get_hookcallers(plugin) or []:
            if caller.name not in HOOKS:  # a misspelt hook is silence otherwise
                raise PluginError(unknown("hook", caller.name, HOOKS))
        manager.check_pending()
        described = _describe(manager, plugin, entry_point.name, (package, version))
    except KeyboardInterrupt:
        raise
    # not only an Exception: a plugin that ends the interpreter must not take the command line
    except BaseException as error:
        described = Plugin(entry_point.name, package, version, _in_words(error))
    if described.problem and plugin is not None and manager.is_registered(plugin):
        manager.unregister(plugin)
    return described


def ended_by(error: BaseException) -> PluginError | None:
    """What a component's code raised to end the program, as an error that names the component.

    None where it is a plain exception, or other code raised it, such as the caller's.
    """
    classes = [] if isinstance(error, Exception | KeyboardInterrupt) else raised_by(error)
    if not classes:
        return None
    origin = installed().origin(classes[0])
    who = " or ".join(dict.fromkeys(f"{cls.kind} {cls.name!r}" for cls in classes))
    version = f" {origin.version}" if origin.version != "unknown" else ""
    return PluginError(f"{who} of {origin.package}{version} raised {_in_words(error)}")


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Runs code of components: under torch's own defaults, and where one exits it is an error.

    Raises:
        PluginError: a component raised SystemExit, or another exception that is no Exception.
    """
    with steady():
        try:
            yield
        except BaseException as error:
            if found := ended_by(error):
                raise found from error
            raise


def contained_steps(steps: Callable[P, Generator[T]]) -> Callable[P, Generator[T]]:
    """A generator whose steps are `contained`; between them its caller has his own settings."""

    @functools.wraps(steps)
    def each(*args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        going = steps(*args, **kwargs)
        try:
            while True:
                with contained():
                    step = next(going, None)
                if step is None:
                    return
                yield step
        finally:
            with contained():
                going.close()

    return each


def _in_words(error: BaseException) -> str:
    """An exception in one line, with the place in the plugin where it arose."""
    core, hooks = Path(maebench.data.__file__).parent.parent, Path(pluggy.__file__).parent
    own = (f"{core}{os.sep}", f"{hooks}{os.sep}")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", *own)) and "importlib" not in frame.filename
    ]
    at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{at}"


def _describe(
    manager: pluggy.PluginManager, plugin: object, name: str, dist: tuple[str, str] | None
) -> Plugin:
    """Calls one plugin's hooks and checks what they return."""
    package, version = dist or _core(name)
    classes: list[type[Component]] = []
    for caller in manager.get_hookcallers(plugin) or []:
        base = HOOKS[caller.name]
        mine = next(impl for impl in caller.get_hookimpls() if impl.plugin is plugin)
        returned = mine.function()
        if not isinstance(returned, list | tuple):
            problem = f"{caller.name}() must return a list of classes, got {returned!r}"
            return Plugin(name, package, version, problem)
        for cls in returned:
            if wrong := check_class(cls, base):
                return Plugin(name, package, version, f"{caller.name}(): {wrong}")
            classes.append(cls)
    if not classes:
        bare = [hook for hook in HOOKS if callable(getattr(plugin, hook, None))]
        hint = f"{bare[0]}() has no @maebench.hookimpl" if bare else "no hook returned a class"
        return Plugin(name, package, version, f"it registers nothing: {hint}")
    return Plugin(name, package, version, None, tuple(classes))


def _core(name: str) -> tuple[str, str]:
    return (
        ("maebench", importlib.metadata.version("maebench")) if name == "maebench" else (name, "")
    )


def _without_clashes(found: Sequence[Plugin]) -> Names:
    """Gives every name one class; a built-in's name is ours, a name claimed twice is nobody's."""
    ours = {
        (cls.kind, cls.name): p for p in found if p.package == "maebench" for cls in p.components
    }
    claims: dict[tuple[str, str], list[tuple[Plugin, type[Component]]]] = {}
    plugins = []
    for plugin in found:
        names = [(cls.kind, cls.name) for cls in plugin.components]
        problem = plugin.problem
        formats = {("report", form) for form in FORMATS}
        taken = [n for n in names if n in {*ours, *formats} and plugin.package != "maebench"]
        twice = [n for n in names if names.count(n) > 1]
        if taken:
            problem = f"{taken[0][0]} {taken[0][1]!r} is a built-in's name: choose another"
        elif twice:
            problem = f"{twice[0][0]} {twice[0][1]!r} is registered twice"
        if problem:
            plugin = replace(plugin, problem=problem, components=())
        plugins.append(plugin)
        for cls in plugin.components:
            claims.setdefault((cls.kind, cls.name), []).append((plugin, cls))
    table: dict[str, dict[str, type[Component]]] = {kind: {} for kind in KINDS}
    conflicts = {}
    for (kind, name), claimed in claims.items():
        if len(claimed) > 1:
            conflicts[kind, name] = tuple(f"{p.package} ({p.name})" for p, _ in claimed)
        else:
            table[kind][name] = claimed[0][1]
    return Names(table, tuple(plugins), conflicts)


def _returner(classes: Sequence[type[Component]]) -> Any:
    return lambda: list(classes)
