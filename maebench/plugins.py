"""Which components there are: finding, isolating and checking plugins.

The plugin manager is the registry. Every entry point is loaded and checked alone, so that a
broken plugin is reported and takes nothing else with it.
"""

from __future__ import annotations

import importlib.metadata
import os
import traceback
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

import maebench.data
import maebench.encoders
import maebench.masking
import maebench.objectives
from maebench import hookspecs
from maebench.component import Component, check_class, look_up
from maebench.data.dataset import Dataset
from maebench.encoders.encoder import Encoder
from maebench.errors import ConfigError, PluginError, unknown
from maebench.evaluation import Evaluation
from maebench.masking.mask import Masking
from maebench.objectives.objective import Objective
from maebench.outputs import FORMATS, Report, Tracker

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


@dataclass(frozen=True)
class Plugin:
    """An entry point that was found, loaded or not.

    Args:
        name: the entry point's name.
        package: the distribution that brings it, and its version.
        problem: why it is not loaded, or None.
        components: what it registered.
    """

    name: str
    package: str
    version: str
    problem: str | None = None
    components: tuple[type[Component], ...] = ()


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
        return {**self.table, "conflicts": self.conflicts, "origins": origins}

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
    registered = f"{package}:{entry_point.name}"
    plugin = None
    try:
        plugin = entry_point.load()
        manager.register(plugin, registered)
        for caller in manager.get_hookcallers(plugin) or []:
            if caller.name not in HOOKS:  # a misspelt hook is silence otherwise
                raise PluginError(unknown("hook", caller.name, HOOKS))
        manager.check_pending()
        described = _describe(manager, plugin, entry_point.name, (package, version))
    # SystemExit too: a plugin that ends the interpreter at import must not take the command line
    except (Exception, SystemExit) as error:
        described = Plugin(entry_point.name, package, version, _in_words(error))
    if described.problem and plugin is not None and manager.is_registered(plugin):
        manager.unregister(plugin)
    return described


def _in_words(error: BaseException) -> str:
    """An exception in one line, with the place in the plugin where it arose."""
    own = (str(Path(maebench.data.__file__).parent.parent), str(Path(pluggy.__file__).parent))
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
            plugin = Plugin(plugin.name, plugin.package, plugin.version, problem)
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
