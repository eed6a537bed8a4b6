"""The command `jacobian-lab STUDY [--options]`.

The table of commands, `studies.commands`, is all that `jacobian-lab --help` needs; the module of a
command, and PyTorch with it, is imported when the command is run or asked for its options.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

from studies.commands import COMMANDS, Command, options_of, study_of

if TYPE_CHECKING:
    from studies.frame.study import Options, Study


def main() -> None:
    """Run the command line: exit status 0, 2 for a user's slip, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name may have what the terminal cannot write
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:]
    if words in ([], ["--help"], ["-h"]):
        print(overview(), file=sys.stdout if words else sys.stderr)
        sys.exit(0 if words else 2)
    if words == ["--version"]:
        from jacobian_lab import __version__

        print(f"jacobian-lab {__version__}")
        return
    try:
        sys.exit(_perform(*named(words)))
    except KeyboardInterrupt as stop:  # a run that can be resumed notes so
        print("\n" + ": ".join(["interrupted", *getattr(stop, "__notes__", ())]), file=sys.stderr)
        sys.exit(130)


def overview() -> str:
    """Return the help of the command line as a whole."""
    lines = [
        "usage: jacobian-lab COMMAND [--options]",
        "",
        "The Jacobian of a diffusion model's denoiser: studies, and the small MNIST models behind",
        "them. Example: jacobian-lab directions --digit 3 --time 500",
    ]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<20}  {command.does}" for name, command in commands.items()]
    lines += [
        "",
        "jacobian-lab COMMAND --help lists the options of a command, jacobian-lab --version says",
        "which version this is. A study writes a folder, runs/STUDY-HASH, and prints its answer.",
    ]
    return "\n".join(lines)


def named(words: list[str]) -> tuple[str, Command, list[str]]:
    """Return the command that the words name, and the words after its name, or exit."""
    known = {name: command for group in COMMANDS.values() for name, command in group.items()}
    for length in (1, 2):
        name = " ".join(words[:length])
        if name in known:
            return name, known[name], words[length:]
    family = [name for name in known if name.split()[0] == words[0]]
    if family and words[1:] in ([], ["--help"], ["-h"]):
        print("\n".join(f"jacobian-lab {name:<20}  {known[name].does}" for name in family))
        sys.exit(0 if words[1:] else 2)
    said = " ".join(words[:2]) if family else words[0]
    close = get_close_matches(said, known, n=3, cutoff=0.7)
    remedy = f"did you mean {' or '.join(close)}?" if close else "jacobian-lab --help lists them"
    print(f"error: unknown command {said!r}: {remedy}", file=sys.stderr)
    sys.exit(2)


def _perform(name: str, command: Command, words: list[str]) -> int:
    """Run a command; return its exit status, after one line about what went wrong."""
    from jacobian_lab import InputError
    from studies.frame.allocator import keep_freed_memory

    keep_freed_memory()
    try:
        options: Any = words if command.reads_words else parsed(command, name, words)
        if command.function:
            function = getattr(import_module(command.module), command.function)
            return int(function(options) is False)
        return int(not _report(study_of(command), options))
    except BrokenPipeError:  # such as of `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, OSError) as error:  # such as a full disk, a folder that may not be written
        print(f"error: {error}", file=sys.stderr)
        return 2


def parsed(command: Command, name: str, words: list[str]) -> Any:
    """Return the options of a command that the words give, a dataclass.

    tyro keeps the line breaks of attribute docstrings in its help: it gets them without.
    """
    import tyro

    from jacobian_lab import InputError
    from studies.frame.option_texts import option_texts

    kind = options_of(command)
    texts = option_texts(kind)
    hints = get_type_hints(kind, include_extras=True)
    positional, by_place = getattr(kind, "POSITIONAL", ()), cast(Any, tyro.conf.Positional)
    annotations: dict[str, Any] = {
        field.name: Annotated[hints[field.name], tyro.conf.arg(help=texts[field.name])]
        for field in dataclasses.fields(kind)
        if field.init
    }
    annotations |= {name: by_place[annotations[name]] for name in positional}
    body = {
        "__annotations__": annotations,
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__post_init__": lambda _: None,  # checked below: tyro would frame the message
    }
    words = [re.sub(r"^--image(?=$|=)", "--images", word) for word in words]
    options = [
        re.sub("^no_", "", word.split("=")[0].lstrip("-").replace("-", "_"))
        for word in words
        if word.startswith("--")
    ]
    twice = sorted({option for option in options if options.count(option) > 1})
    if twice:
        said = ", ".join("--" + option.replace("_", "-") for option in twice)
        raise InputError(f"{said} is given more than once: give it once")
    parsed: Any = tyro.cli(
        type(kind.__name__, (kind,), body), prog=f"jacobian-lab {name}", args=words
    )
    # what was not typed keeps its default, which a study can tell from the same value typed
    typed = {*options, *positional}
    return kind(**{name: getattr(parsed, name) for name in annotations if name in typed})


def _report(study: Study[Any], config: Options) -> bool:
    """Run a study; print its answer, and where its files are; return whether its checks passed."""
    from studies.frame.study import perform

    outcome = perform(study, config)
    drawn = "figure.png, figure.pdf, " if study.plot else ""
    print(
        f"{outcome.answer}\n\n{outcome.folder}/: {drawn}table.csv, data.nc, config.json,"
        f" manifest.json\n{outcome.how}"
    )
    for line in outcome.failures:
        print(f"failed where the answer is known: {line}", file=sys.stderr)
    return not outcome.failures


if __name__ == "__main__":
    main()
