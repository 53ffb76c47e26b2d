"""The flags of a run stand in a table that imports no torch; what it says is what RunConfig says."""

from __future__ import annotations

import re

import click
import pytest
from pydantic_core import to_jsonable_python

from maebench.cli.flags import BY_DATA_SET, FLAGS
from maebench.cli.run import pretrain_command, run_command
from maebench.config.overrides import as_typed
from maebench.config.run import RunConfig
from maebench.data.digits import Digits


def test_the_table_holds_the_flags_of_a_run_in_their_order():
    assert tuple(FLAGS) == RunConfig.FLAGS


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_is_described_as_the_field_that_it_sets(name):
    assert FLAGS[name].help == RunConfig.model_fields[name].description


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_shows_the_default_that_its_field_has(name):
    field, shown = RunConfig.model_fields[name], FLAGS[name].default
    if name in Digits().preset():
        assert shown == BY_DATA_SET
    elif field.annotation is bool or field.default is None:
        assert shown is None
    else:
        assert shown == as_typed(to_jsonable_python(field.default))


def test_what_a_run_takes_is_a_list_that_does_not_grow():
    """The flags of `run` are few; every other setting is reached by -o or a YAML file."""
    more = ["--results", "--config", "--recipe", "--override", "-o"]
    for command in (run_command, pretrain_command):
        found = [option.opts[0] for option in command.params]
        assert found == [*("--" + name.replace("_", "-") for name in FLAGS), *more]


def test_defaults_are_shown_where_there_are_any():
    shown = run_command.get_help(click.Context(run_command))
    text = " ".join(shown.split())
    for name, flag in FLAGS.items():
        written = f"--{name.replace('_', '-')} {flag.metavar}".strip()
        assert f"{written} {flag.help}" in text
        if flag.default is not None:
            assert re.search(rf"{re.escape(flag.help)} \[default: {flag.default}[];]", text)
