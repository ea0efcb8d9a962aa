"""The output of the model servers and the router's own log: the last of each is kept, all of it is published.

`LogStore` keeps 100 KiB of every source and of the views of several sources, and publishes what comes as
`events.LogLines`. `configure` makes Python's logging write to a store, in the format that the configuration names.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from ringcast import ClosedError, Dispatcher, Subscription

from ringcast_router.config.model import Config
from ringcast_router.events import LogLines

PROXY = "proxy"
UPSTREAM = "upstream"
RING = 100 * 1024  # bytes kept of a source
MAX_QUEUE = 256  # pieces of output, of up to 64 KiB, that a dispatcher of their own holds for all readers together
MAX_BEHIND = 128  # pieces that wait for one slow reader; the oldest are dropped beyond


class Ring:
    """The last bytes of what was written. Not thread-safe.

    Args:
        size: How many bytes are kept.
    """

    __slots__ = ("_data", "_size")

    def __init__(self, size: int) -> None:
        self._data = bytearray()
        self._size = size

    def write(self, data: bytes) -> None:
        """Append bytes; the oldest go."""
        self._data += data[-self._size :]
        if (excess := len(self._data) - self._size) > 0:
            del self._data[:excess]

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def tail(self, lines: int) -> str:
        """Return the last lines as text, without the final line break."""
        return "\n".join(bytes(self._data).decode(errors="replace").splitlines()[-lines:])


class LogStore:
    """Keeps the last output of each source, and publishes all of it. Any thread may call any method.

    A source is a model's id, or `proxy` for the router itself. Two views hold what several sources wrote, in the order
    in which they wrote: `upstream` (all models) and "" (all).

    Args:
        bus: Where `LogLines` are published. Readers subscribe with `drop_oldest`, so that none delays a writer. None
            publishes nothing.
    """

    def __init__(self, bus: Dispatcher | None = None) -> None:
        self._bus = bus
        self._lock = threading.Lock()
        self._rings: dict[str, Ring] = {}
        self._views = {UPSTREAM: Ring(RING), "": Ring(RING)}
        self._echo: Subscription[LogLines] | None = None

    def write(self, source: str, data: bytes) -> None:
        """Add output of a source. Never waits for a reader.

        Args:
            source: A model's id, or `proxy`.
            data: What was written; need not end with a line.
        """
        if not data:
            return
        with self._lock:
            if (ring := self._rings.get(source)) is None:
                ring = self._rings[source] = Ring(RING)
            ring.write(data)
            if source != PROXY:
                self._views[UPSTREAM].write(data)
            self._views[""].write(data)
        if self._bus is not None:
            with contextlib.suppress(ClosedError):  # the router has closed: what comes now is kept only
                self._bus.publish(LogLines(source, data))

    def history(self, source: str) -> bytes:
        """Return what is kept of a source or a view; b"" where nothing was written."""
        with self._lock:
            return bytes(self._views[source] if source in self._views else self._rings.get(source, b""))

    def tail(self, source: str, lines: int = 20) -> str:
        """Return the last lines of a source or a view as text."""
        return "\n".join(self.history(source).decode(errors="replace").splitlines()[-lines:])

    def sources(self) -> list[str]:
        """Return the sources that have written something, sorted."""
        with self._lock:
            return sorted(self._rings)

    def forget(self, source: str) -> None:
        """Drop what is kept of a source that is no more; the views keep what it wrote. Unknown ones change nothing."""
        with self._lock:
            self._rings.pop(source, None)

    def echo(self, which: str) -> None:
        """Copy output to the standard output as well, from a thread of the dispatcher. Without a bus nothing is copied.

        Args:
            which: `proxy`, `upstream`, `both` or `none`; replaces what an earlier call named.
        """
        if self._echo is not None:
            self._echo.cancel()
            self._echo = None
        if self._bus is not None and which != "none":
            wanted = _ECHOED[which]
            self._echo = self._bus.subscribe(LogLines, _print, policy="drop_oldest", max_queue=MAX_BEHIND, where=wanted)


_ECHOED: Mapping[str, Callable[[LogLines], bool]] = MappingProxyType(
    {
        PROXY: lambda event: event.source == PROXY,
        UPSTREAM: lambda event: event.source != PROXY,
        "both": lambda event: True,
    }
)


def _print(event: LogLines) -> None:
    # Bytes, as a piece may end in the middle of a character. A program without a console has no standard output.
    out = getattr(sys.stdout, "buffer", None)
    if out is not None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            out.write(event.data)
            out.flush()


class Handler(logging.Handler):
    """Writes the records of Python's logging to a store, as lines of the source `proxy`."""

    def __init__(self, store: LogStore) -> None:
        super().__init__()
        self._store = store

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self._store.write(PROXY, f"{self.format(record)}\n".encode(errors="replace"))
        except Exception:
            self.handleError(record)


class Formatter(logging.Formatter):
    """`[INFO] message`, after the time where the configuration names a format for that.

    Args:
        time_format: A name of `TIME_FORMATS`; "" writes no time.
    """

    def __init__(self, time_format: str = "") -> None:
        super().__init__("[%(levelname)s] %(message)s")
        self._time_format = time_format

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        level = "WARN" if record.levelno == logging.WARNING else record.levelname
        line = f"[{level}] {record.message}"
        if not self._time_format:
            return line
        return f"{format_time(datetime.fromtimestamp(record.created).astimezone(), self._time_format)} {line}"


# The names of Go's layouts that the original takes, as strftime patterns. In braces stands what strftime does not have.
TIME_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "ansic": "%a %b {day} %H:%M:%S %Y",
        "unixdate": "%a %b {day} %H:%M:%S %Z %Y",
        "rubydate": "%a %b %d %H:%M:%S %z %Y",
        "rfc822": "%d %b %y %H:%M %Z",
        "rfc822z": "%d %b %y %H:%M %z",
        "rfc850": "%A, %d-%b-%y %H:%M:%S %Z",
        "rfc1123": "%a, %d %b %Y %H:%M:%S %Z",
        "rfc1123z": "%a, %d %b %Y %H:%M:%S %z",
        "rfc3339": "%Y-%m-%dT%H:%M:%S{offset}",
        "rfc3339nano": "%Y-%m-%dT%H:%M:%S{fraction}{offset}",
        "kitchen": "{hour}:%M%p",
        "stamp": "%b {day} %H:%M:%S",
        "stampmilli": "%b {day} %H:%M:%S.{milli}",
        "stampmicro": "%b {day} %H:%M:%S.%f",
        "stampnano": "%b {day} %H:%M:%S.%f000",
    }
)


def format_time(time: datetime, name: str) -> str:
    """Return a time in one of Go's layouts.

    Args:
        time: The time, with its zone.
        name: A name of `TIME_FORMATS`.
    """
    offset = time.strftime("%z")
    fraction = f".{time.microsecond:06}".rstrip("0").rstrip(".")
    return time.strftime(TIME_FORMATS[name]).format(
        day=f"{time.day:2}",
        hour=time.hour % 12 or 12,
        milli=f"{time.microsecond // 1000:03}",
        fraction=fraction,
        offset="Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}",
    )


_LEVELS: Mapping[str, int] = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
)


def configure(config: Config, store: LogStore) -> None:
    """Write the router's own log to a store, as the configuration says; replaces what an earlier call said.

    A process has one such log: of several stores the last configured gets it.

    Args:
        config: Its `log_level`, `log_time_format` and `log_to_stdout` are heeded.
        store: Gets the lines, and copies to the standard output what `log_to_stdout` names.
    """
    logger = logging.getLogger("ringcast_router")
    for handler in [handler for handler in logger.handlers if isinstance(handler, Handler)]:
        logger.removeHandler(handler)
    handler = Handler(store)
    name = config.log_time_format.lower()
    handler.setFormatter(Formatter(name if name in TIME_FORMATS else ""))
    logger.addHandler(handler)
    logger.setLevel(_LEVELS.get(config.log_level.lower(), logging.INFO))
    store.echo(config.log_to_stdout)
    if name and name not in TIME_FORMATS:
        logger.warning("logTimeFormat %r is none of %s: no time is written", name, ", ".join(TIME_FORMATS))
