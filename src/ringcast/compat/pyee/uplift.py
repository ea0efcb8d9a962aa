"""Two emitters that emit each other's events, as in `pyee.uplift`."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypeVar

from ringcast.compat.pyee.base import EventEmitter

ErrorStrategy = Literal["new", "underlying", "neither"]
ProxyStrategy = Literal["forward", "backward", "both", "neither"]
UpliftingEventEmitter = TypeVar("UpliftingEventEmitter", bound=EventEmitter)


class _Link:
    """One emitter joined to another, as seen from the first."""

    def __init__(
        self, emitter: EventEmitter, other: EventEmitter, on_error: EventEmitter, forwards_new_listener: bool
    ) -> None:
        self.emitter = emitter
        self.other = other
        self.on_error = on_error
        self.forwards_new_listener = forwards_new_listener
        self.opposite: _Link

    def emit(self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        handled = self.emitter._call_handlers(event, args, kwargs)
        if event != "new_listener" or self.forwards_new_listener:
            handled = self.other._call_handlers(event, args, kwargs) or handled
        if not handled:
            self.on_error._emit_handle_potential_error(event, args[0] if args else None)
        return handled


class _Links:
    """The attribute `emit` of an emitter that has been uplifted: the last link decides."""

    def __init__(self, emitter: EventEmitter) -> None:
        self.stack: list[_Link] = []
        self.before: dict[str, Any] = {
            name: vars(emitter)[name] for name in ("emit", "unwrap") if name in vars(emitter)
        }

    def __call__(self, event: str, *args: Any, **kwargs: Any) -> bool:
        return self.stack[-1].emit(event, args, kwargs)


def _links(emitter: EventEmitter) -> _Links | None:
    links = vars(emitter).get("emit")
    return links if isinstance(links, _Links) else None


def _join(link: _Link) -> None:
    links = _links(link.emitter) or _Links(link.emitter)
    links.stack.append(link)
    vars(link.emitter).update(emit=links, unwrap=partial(unwrap, link.emitter))


def _part(link: _Link) -> None:
    links = _links(link.emitter)
    if links is None:
        return
    links.stack.remove(link)
    if not links.stack:
        del link.emitter.emit, link.emitter.unwrap  # type: ignore[attr-defined]
        vars(link.emitter).update(links.before)


def uplift(
    cls: type[UpliftingEventEmitter],
    underlying: EventEmitter,
    error_handling: ErrorStrategy = "new",
    proxy_new_listener: ProxyStrategy = "forward",
    *args: Any,
    **kwargs: Any,
) -> UpliftingEventEmitter:
    """Make an emitter of class `cls` that shares its events with `underlying`.

    What is emitted on one of the two reaches the listeners of both, first those of the emitter that was called. So
    `emit` is True if one of them has listeners. Listeners are added to and removed from each as before.

    Args:
        cls: the class of the new emitter.
        underlying: an emitter that there is already.
        error_handling: which emitter raises an `error` without a listener: always the `"new"` one, always the
            `"underlying"` one, or with `"neither"` the one that was called.
        proxy_new_listener: which way `new_listener` is passed on: `"forward"` to the new emitter, `"backward"` to the
            underlying one, `"both"` or `"neither"`.
        args: for `cls`.
        kwargs: for `cls`.

    Returns:
        The new emitter. `unwrap` undoes what this does.

    Raises:
        KeyError: an option has none of these values.
    """
    emitter = cls(*args, **kwargs)
    on_error: dict[str, tuple[EventEmitter, EventEmitter]] = {
        "new": (emitter, emitter),
        "underlying": (underlying, underlying),
        "neither": (emitter, underlying),
    }
    for_new, for_underlying = on_error[error_handling]
    forward, backward = {
        "forward": (True, False),
        "backward": (False, True),
        "both": (True, True),
        "neither": (False, False),
    }[proxy_new_listener]
    from_underlying = _Link(underlying, emitter, for_underlying, forward)
    from_new = _Link(emitter, underlying, for_new, backward)
    from_underlying.opposite, from_new.opposite = from_new, from_underlying
    _join(from_underlying)
    _join(from_new)
    return emitter


def unwrap(event_emitter: EventEmitter) -> None:
    """Undo the last `uplift` that an emitter took part in, for both emitters; without one, do nothing."""
    if links := _links(event_emitter):
        link = links.stack[-1]
        _part(link)
        _part(link.opposite)
