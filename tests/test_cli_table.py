"""Which formats `maebench table` has."""

from __future__ import annotations

from typing import ClassVar

import click
import pytest
from fakes import names

from maebench import Report, hookimpl
from maebench.cli.values import TableFormat
from maebench.outputs import FORMATS


class Org(Report):
    """Tables for Emacs."""

    name: ClassVar[str] = "org"


class Reports:
    @hookimpl
    def register_reports(self):
        return [Org]


def test_a_report_of_a_plugin_is_a_format(monkeypatch):
    monkeypatch.setattr("maebench.plugins.installed", lambda: names(Reports()))
    assert isinstance(TableFormat()("org"), Org)
    with pytest.raises(click.BadParameter, match=r"unknown format 'orgg'\. Did you mean 'org'"):
        TableFormat()("orgg")


def test_no_plugin_is_loaded_for_a_format_of_our_own(monkeypatch):
    monkeypatch.setattr("maebench.plugins.installed", lambda: pytest.fail("plugins are loaded"))
    assert [TableFormat()(form) for form in FORMATS] == list(FORMATS)
