"""The command `ringcast-router`: `serve` (also without its name), `check`, `simulate`, `demo`."""

import argparse
import difflib
import sys
from collections.abc import Sequence

from ringcast_router import __version__
from ringcast_router.errors import RouterError

COMMANDS = ("serve", "check", "simulate", "demo")

_TOP_FLAGS = ("-h", "--help", "--version")
# The original takes these with one dash.
_SINGLE_DASH = ("config", "config-dir", "listen", "watch-config", "tls-cert-file", "tls-key-file", "version")

_DESCRIPTION = """\
An HTTP router in front of model servers that cannot all be loaded at once. A request names a model; the router starts
its server, stops what must make room, and passes the request on.

  ringcast-router --config config.yaml             serve what the file names, on 127.0.0.1:8080
  ringcast-router check --config config.yaml       say what is wrong with a file, or may be
  ringcast-router simulate --config config.yaml    compare the schedulers under a load, in virtual time
  ringcast-router demo                             see it work: three fake models, half a minute, no network

A file in its simplest form:

  models:
    small:
      cmd: llama-server --port ${PORT} -m small.gguf
    large:
      cmd: llama-server --port ${PORT} -m large.gguf

Configurations of llama-swap work as they are. Settings of this router's own stand below `ringcast:`.
"""

_EPILOG = """\
Without a COMMAND the flags are those of `serve`: `ringcast-router serve --help` lists them. `ringcast-router COMMAND
--help` explains the others.

Exit status: 0 done, 1 it failed (the last line says why), 2 the command line is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The words of the command line after the program's name; by default those of this process.

    Returns:
        The exit status: 0 done, 1 failed, 2 the command line is wrong.
    """
    words = normalise(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if words[0] not in (*COMMANDS, *_TOP_FLAGS):
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        parser.error(f"unknown command {words[0]}; {hint}the commands are {', '.join(COMMANDS)}")
    options = parser.parse_args(words)
    try:
        return int(options.run(options))
    except RouterError as error:
        print(f"ringcast-router: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1  # who read the output has gone
    except KeyboardInterrupt:
        return 130


def normalise(words: Sequence[str]) -> list[str]:
    """Return the command line with two dashes before each long flag, and with `serve` where flags come first."""
    found = list(words)
    for index, word in enumerate(found):
        name, equals, value = word.partition("=")
        if name[1:] in _SINGLE_DASH and name.startswith("-"):
            found[index] = f"-{name}{equals}{value}"
    if not found or (found[0].startswith("-") and found[0] not in _TOP_FLAGS):
        found.insert(0, "serve")
    return found


def _parser() -> argparse.ArgumentParser:
    from ringcast_router.command import check, demo, serve, simulate

    parser = argparse.ArgumentParser(
        prog="ringcast-router",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ringcast-router {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (serve, check, simulate, demo):
        name = module.__name__.rpartition(".")[2]
        summary, _, rest = (module.__doc__ or "").partition("\n")
        command = commands.add_parser(
            name,
            help=summary.rstrip("."),
            description=f"{summary}\n{rest}",
            epilog=module.EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
