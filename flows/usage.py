"""Mistakes on the command line itself, in the form of all other errors."""

import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from advdistill_core.errors import InputError

#: Base of what the parser raises; typer brings it along under a name of its own.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_CHOICES = re.compile(r"'([^']+)'")
_EXTRA = re.compile(r"extra argument.*\((.*)\)")


def explain(error: Any, arguments: Sequence[str] | None = None) -> InputError:
    """Say what the parser did not understand.

    Args:
        error: a usage error.
        arguments: the words of the command line; those of this process without any.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    context = error.ctx
    command = context.command_path if context else "advdistill"
    lists = f"`{command} --help` lists them."
    if hasattr(error, "param") and error.param is not None:
        return _parameter(error, given, command)
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        return InputError("option", option, f"an option of `{command}`", _instead(option, context) or lists)
    if option:
        return InputError(option, "nothing", "a value after it", lists)
    commands = getattr(context.command, "commands", None) if context else None
    if commands:
        word = next((word for word in given if not word.startswith("-")), "nothing")
        near = difflib.get_close_matches(word, commands, n=1)
        return InputError(
            "command",
            word,
            "a command",
            f"Did you mean {near[0]}?" if near else f"There are {', '.join(commands)}.",
        )
    extra = _EXTRA.search(error.message)
    if extra:
        return InputError("argument", extra[1], f"no more arguments of `{command}`", "Leave it out.")
    return InputError(f"`{command}`", error.format_message(), "what its help says", lists)


def _instead(option: str, context: Any) -> str:
    """What to do about an option that the command does not have; empty if nobody knows."""
    if context is None:
        return ""
    near = difflib.get_close_matches(
        option.lstrip("-"), [n.lstrip("-") for n in _options(context.command)], n=1
    )
    if near:
        return f"Did you mean --{near[0]}?"
    others = getattr(context.parent and context.parent.command, "commands", {})
    if any(option in _options(other) for other in others.values()):
        return f"Other commands have it, `{context.info_name}` does without. Leave it out."
    return ""


def _options(command: Any) -> list[str]:
    return [name for param in command.params for name in param.opts if name.startswith("--")]


def _parameter(error: Any, given: Sequence[str], command: str) -> InputError:
    param, shows = error.param, f"`{command} --help` says more."
    about = (param.help or "a value").rstrip(".")
    is_option = param.param_type_name == "option"
    name = param.opts[0] if is_option else (param.metavar or param.name).upper()
    if type(error).__name__ == "MissingParameter":
        return InputError(name, "nothing", about[:1].lower() + about[1:], shows)
    value = _value(given, param.opts) if is_option else "a value"
    choices = _CHOICES.findall(error.message.partition("not one of")[2])
    if choices:
        near = difflib.get_close_matches(value, choices, n=1)
        return InputError(name, value, " or ".join(choices), f"Did you mean {near[0]}?" if near else shows)
    expected = error.message.removeprefix("Input should be ").partition(", unable")[0].rstrip(".")
    expected = f"a value {expected}" if expected.startswith(("greater", "less")) else expected
    return InputError(name, value, expected, f"{about}.")


def _value(given: Sequence[str], names: Sequence[str]) -> str:
    """What follows an option."""
    for place, word in enumerate(given):
        option, equals, value = word.partition("=")
        if option in names:
            return value if equals else "".join(given[place + 1 : place + 2])
    return "a value"
