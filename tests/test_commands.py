"""The table of commands: each names what exists, and has help that begins with what it does."""

from importlib import import_module

import pytest

from studies.commands import COMMANDS, options_of, study_of

KNOWN = {name: command for group in COMMANDS.values() for name, command in group.items()}


@pytest.mark.parametrize("name", KNOWN)
def test_each_command_names_a_study_or_a_function_with_options(name):
    command = KNOWN[name]
    if command.function:
        assert callable(getattr(import_module(command.module), command.function))
    else:
        assert study_of(command).name.replace("benchmark-", "") in name.replace(" ", "-")
    assert " ".join((options_of(command).__doc__ or "").split()).startswith(command.does)


def test_names_are_unique():
    assert len(KNOWN) == sum(len(group) for group in COMMANDS.values())
