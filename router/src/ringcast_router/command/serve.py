"""Serve the models of a configuration (what happens when no command is named).

SIGINT and SIGTERM end it: requests in flight may end, then the model servers are stopped, all within 30 seconds; a
second signal cuts this short. SIGHUP reads the configuration again: models whose settings are unchanged keep running.

Without --listen it listens on port 8080 (8443 with a certificate): on all interfaces if the configuration has keys,
else on 127.0.0.1 only.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ringcast_router import __version__
from ringcast_router.command import files
from ringcast_router.command.check import missing_programs
from ringcast_router.command.server import Server
from ringcast_router.config import Config
from ringcast_router.errors import RouterError
from ringcast_router.processes.limits import ENOUGH, raise_open_files
from ringcast_router.router import Router

log = logging.getLogger(__name__)

EXAMPLE = """\
example:
  ringcast-router serve --config config.yaml --listen 127.0.0.1:8080 --watch-config
"""

LOOPBACK = "127.0.0.1"


class UsageError(RouterError):
    """A command line that cannot be obeyed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `serve`."""
    files.add_arguments(parser)
    parser.add_argument(
        "--listen", metavar="ADDRESS", help="HOST:PORT, :PORT for all interfaces, or [IPv6]:PORT; port 0: any free one"
    )
    parser.add_argument("--watch-config", action="store_true", help="read the configuration again when a file changes")
    parser.add_argument("--tls-cert-file", metavar="FILE", help="speak HTTPS with this certificate (PEM)")
    parser.add_argument("--tls-key-file", metavar="FILE", help="the certificate's private key (PEM)")


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it; return the exit status.

    Raises:
        RouterError: The configuration, a flag or a certificate cannot be used, or nobody can listen at the address.
    """
    tls = make_tls(options.tls_cert_file, options.tls_key_file)
    given = None if options.listen is None else parse_address(options.listen)
    return asyncio.run(_serve(files.Files.of(options), given, tls, options.watch_config))


async def _serve(
    sources: files.Files, given: tuple[str, int] | None, tls: ssl.SSLContext | None, watching: bool
) -> int:
    server: Server | None = None
    stop = asyncio.Event()
    hangup = asyncio.Event()

    def ask_to_stop() -> None:
        if stop.is_set() and server is not None:
            server.hurry()
        stop.set()

    # From the very beginning: what comes during the start is heeded when that is over.
    with _signals({"SIGINT": ask_to_stop, "SIGTERM": ask_to_stop, "SIGHUP": hangup.set, "SIGBREAK": ask_to_stop}):
        few = raise_open_files()
        router = Router(sources.read)
        host, port = given or default_address(router.config, tls is not None)
        try:
            server = await Server.start(router, host, port, tls)
        except OSError as error:
            raise RouterError(
                f"cannot listen on {host}:{port}: {_reason(error)}; --listen names another address"
            ) from None
        print(greeting(server.url, router.config, given is not None), file=sys.stderr, flush=True)
        for warning in missing_programs(router.config):
            log.warning("%s", warning)
        if few is not None:
            wanted = f"many streams need more: `ulimit -Hn {ENOUGH}`, or LimitNOFILE= of systemd"
            log.warning("this process may have %d files open at once; %s", few, wanted)
        tasks = [asyncio.create_task(_whenever(hangup, router.reload))]
        if watching:
            tasks.append(asyncio.create_task(files.watch(sources.signature, partial(router.reload, asked=False))))
        await stop.wait()
        for task in tasks:
            task.cancel()
        await server.close()
    return 0


async def _whenever(asked: asyncio.Event, do: Callable[[], Awaitable[object]]) -> None:
    """Do something each time that it is asked for; of several wishes meanwhile one is left."""
    while True:
        await asked.wait()
        asked.clear()
        await do()


def _reason(error: OSError) -> str:
    """Return why nobody can listen, without the address that Python adds."""
    if isinstance(error, socket.gaierror):  # its numbers are not those of `strerror`
        return str(error.strerror).lower()
    return os.strerror(error.errno).lower() if error.errno else str(error)


@contextlib.contextmanager
def _signals(handlers: Mapping[str, Callable[[], None]]) -> Iterator[None]:
    """Have signals call functions in the event loop; those that the platform does not have are left out."""
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}

    def come(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(handlers[signal.Signals(number).name])

    for name in handlers:
        if (number := getattr(signal, name, None)) is None:
            continue
        before[number] = signal.getsignal(number)
        try:  # wakes a loop that sleeps while another thread is signalled
            loop.add_signal_handler(number, handlers[name])
        except NotImplementedError:  # Windows, whose loop is woken by any signal
            signal.signal(number, come)
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handler)


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, `:PORT`, `PORT` or `[IPv6]:PORT`; the host "" means all interfaces.

    Raises:
        UsageError: It is none of these.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"--listen {text}: an IPv6 address needs brackets, as in [::1]:8080")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--listen {text}: it is HOST:PORT, with a port from 0 to 65535, as in {LOOPBACK}:8080")
    try:
        host.encode("idna")
    except UnicodeError:
        raise UsageError(f"--listen {text}: {host!r} is no host: its labels have 1 to 63 characters") from None
    return host, int(port)


def default_address(config: Config, tls: bool) -> tuple[str, int]:
    """Return where to listen when nobody says where: without keys only this machine is let in."""
    return "" if config.keys else LOOPBACK, 8443 if tls else 8080


def greeting(url: str, config: Config, given: bool) -> str:
    """Return what is said at the start, in one line."""
    models = f"{len(config.models)} model{'' if len(config.models) == 1 else 's'}"
    line = f"ringcast-router {__version__} on {url}: {models}, scheduler {config.scheduler}"
    if config.keys:
        return line
    if not given:
        return f"{line}; only this machine reaches it, as there are no keys and no --listen"
    if not _is_loopback(url):
        return f"{line}; anybody who reaches this address may use it, as there are no keys"
    return line


def _is_loopback(url: str) -> bool:
    host = url.partition("://")[2].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Return what HTTPS needs, or None where no certificate is given.

    Raises:
        UsageError: One of the two is missing, or a file cannot be used.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-cert-file and --tls-key-file go together: give both")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--tls-cert-file {certificate} --tls-key-file {key}: {error}") from None
    return context
