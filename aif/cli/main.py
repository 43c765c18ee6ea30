"""Entry point of ``aif``: finds the verb, imports only that verb, and turns errors into one clear screen.

The top-level help comes from the table below, so that it needs no verb's imports.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NamedTuple

from aif import __version__
from aif.errors import AIFError, ConfigError, Diagnostic

MISUSE = 2
"""Exit code for an unknown verb or a wrong option."""
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the signal's number, as shells count."""


class Verb(NamedTuple):
    """Where a verb lives and what it does, in one line."""

    module: str
    summary: str


GROUPS: dict[str, dict[str, Verb]] = {
    "Write": {
        "new": Verb("new", "make an AIM that passes its own test"),
        "validate": Verb("validate", "check AIM, workflow and inventory files; print every finding"),
        "fmt": Verb("fmt", "rewrite a file in canonical form, comments kept"),
        "schema": Verb("schema", "print the JSON Schema of a file kind, for editors"),
        "graph": Verb("graph", "draw a workflow as Mermaid or SVG"),
        "split": Verb("split", "cut a model that is too large for one device into a chain of AIMs"),
        "plan": Verb("plan", "place a workflow's AIMs on an inventory and say why"),
    },
    "Run on this machine": {
        "run": Verb("run", "start everything a workflow needs, show it live, stop cleanly"),
    },
    "Run across machines": {
        "train": Verb("train", "train the models of the AIM library and write them to a folder"),
        "store": Verb("store", "publish models and AIMs, serve the signed repository"),
        "controller": Verb("controller", "plan, attest, deploy and watch"),
        "host": Verb("host", "run the AIMs of one gateway or edge device"),
        "mcu": Verb("mcu", "run one emulated microcontroller"),
        "broker": Verb("broker", "run the embedded MQTT broker on loopback"),
        "device": Verb("device", "add, enrol, show and revoke the devices of a site"),
        "site": Verb("site", "take content keys from publishers, show and set the site's policy"),
        "trust": Verb("trust", "why a device is trusted or not; the audit log"),
        "deploy": Verb("deploy", "hand a workflow and its inventory to the Controller"),
        "status": Verb("status", "show workflows, AIMs and devices"),
        "top": Verb("top", "watch devices, AIMs and what happens to them, live"),
        "remap": Verb("remap", "move a running workflow to a better mapping, or show it"),
        "logs": Verb("logs", "show or follow the devices' logs"),
        "stop": Verb("stop", "stop a workflow"),
    },
}
VERBS = {name: verb for group in GROUPS.values() for name, verb in group.items()}


def help_text() -> str:
    lines = ["usage: aif VERB [OPTIONS]        aif VERB --help for one verb", ""]
    for title, verbs in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {name:<11} {verb.summary}" for name, verb in verbs.items()]
        lines.append("")
    return "\n".join(lines) + "options:\n  --help, -h   this text\n  --version    the version"


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, or the error family's code (2 for misuse)."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(arguments)
    except AIFError as error:
        print(error.diagnostics(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output left, as in `aif logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is None:  # about no file: a defect, whose trace is wanted
            raise
        unusable = _unusable(error)
        print(unusable.diagnostics(), file=sys.stderr)
        return unusable.exit_code


def _unusable(error: OSError) -> AIFError:
    """A file or folder that the machine refuses, wherever a verb met it: no permission, no space."""
    return ConfigError(
        [
            Diagnostic(
                ConfigError.code,
                f"cannot use {error.filename}: {error.strerror}",
                hint="name another place (--home, or the file's option), or make this one usable",
            )
        ]
    )


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(help_text())
        return 0
    if arguments[0] == "--version":
        print(f"aif {__version__}")
        return 0
    name, *rest = arguments
    if name not in VERBS:
        from aif.model.check import nearest

        print(f"error: aif has no verb {name!r}; {nearest(name, VERBS)}", file=sys.stderr)
        return MISUSE
    return _run(name, rest)


def _run(name: str, rest: list[str]) -> int:
    import typer
    from typer.exceptions import TyperException

    module = importlib.import_module(f"aif.cli.{VERBS[name].module}")
    try:
        result = module.app(args=rest, prog_name=f"aif {name}", standalone_mode=False)
    except TyperException as misuse:
        context = getattr(misuse, "ctx", None)
        path = context.command_path if context is not None else f"aif {name}"
        print(f"error: {misuse.format_message()}\n  = help: {path} --help", file=sys.stderr)
        return MISUSE
    except SystemExit:  # how typer ends when the reader of our output has left
        raise BrokenPipeError from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    if result == INTERRUPTED:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
