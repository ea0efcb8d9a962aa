"""Two emitters that emit each other's events, as in `pyee.uplift`."""

from __future__ import annotations

from functools import wraps
from typing import Any, Literal, TypeVar
from warnings import warn

from ringcast.compat.pyee.base import EventEmitter

ErrorStrategy = Literal["new", "underlying", "neither"]
ProxyStrategy = Literal["forward", "backward", "both", "neither"]
UpliftingEventEmitter = TypeVar("UpliftingEventEmitter", bound=EventEmitter)


# The attribute in which an emitter has its links. No attribute of a program has such a name.
_LINKS = "ringcast.compat.pyee.uplift"


class _Link:
    """One emitter joined to another, as seen from the first."""

    def __init__(
        self, emitter: EventEmitter, other: EventEmitter, on_error: EventEmitter, forwards_new_listener: bool
    ) -> None:
        self.emitter = emitter
        self.other = other
        self.on_error = on_error
        self.forwards_new_listener = forwards_new_listener
        self.before: dict[str, Any]
        """What the emitter had as its attributes `emit` and `unwrap`."""
        self.opposite: _Link

    def __deepcopy__(self, memo: dict[int, Any]) -> _Link:
        """A copy of an emitter has the `emit` of the original and is in no link, so the other emitter is not copied."""
        return self

    def emit(self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        handled = self.emitter._call_handlers(event, args, kwargs)
        if event != "new_listener" or self.forwards_new_listener:
            handled = self.other._call_handlers(event, args, kwargs) or handled
        if not handled:
            self.on_error._emit_handle_potential_error(event, args[0] if args else None)
        return handled


def _links(emitter: EventEmitter) -> list[_Link]:
    """The links of an emitter, the last of which decides. Not of what it was copied from."""
    links: list[_Link] = vars(emitter).get(_LINKS, [])
    return links if links and links[-1].emitter is emitter else []


def _join(link: _Link) -> None:
    emitter = link.emitter
    link.before = {name: vars(emitter)[name] for name in ("emit", "unwrap") if name in vars(emitter)}

    @wraps(emitter.emit)
    def emit(event: str, *args: Any, **kwargs: Any) -> bool:
        return link.emit(event, args, kwargs)

    def undo() -> None:
        warn("Patched ee.unwrap() is deprecated; use pyee.uplift.unwrap instead.", DeprecationWarning, stacklevel=2)
        unwrap(emitter)

    vars(emitter).update({"emit": emit, "unwrap": undo, _LINKS: [*_links(emitter), link]})


def _part(link: _Link) -> None:
    """What a program has put in the place of `emit` since goes with the link, as with pyee."""
    links, attributes = _links(link.emitter), vars(link.emitter)
    if link not in links:
        return
    at = links.index(link)
    left = attributes[_LINKS] = links[:at] + links[at + 1 :]
    if at < len(left):
        left[at].before = link.before
        return
    for name in ("emit", "unwrap", *([] if left else [_LINKS])):
        attributes.pop(name, None)
    attributes.update(link.before)


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
        _part(links[-1].opposite)
        _part(links[-1])
