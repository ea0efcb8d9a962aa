"""The classes of the drop-in for blinker; `ringcast.compat.blinker` is where programs find them.

They are in a module of their own so that a reload of that one leaves signals, and their class, as they are.
"""

from __future__ import annotations

from contextlib import contextmanager

from ringcast.compat._blinker import ANY, Core, make_id

TYPE_CHECKING = False  # as in typing, whose import takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any, ClassVar, Self, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])
    S = TypeVar("S", bound="Signal")

__all__ = ["ANY", "NamedSignal", "Namespace", "Signal", "default_namespace", "signal"]


ANY_ID = ANY
"""The key of `ANY`. With blinker it is 0, which is also that of the sender 0."""


class _Companion:
    """A signal that belongs to another, and is made when somebody asks for it."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Signal | None, owner: type) -> Signal:
        if instance is None:
            return self  # type: ignore[return-value]
        # of several threads that ask first, all get the same
        made: Signal = instance.__dict__.setdefault(self._name, Signal(self.__doc__))
        return made


class Signal(Core):
    """Calls its receivers when it is sent.

    Args:
        doc: what `__doc__` of the signal is to be.

    All methods may be called from any thread, also inside receivers. A receiver that is connected or disconnected while
    another thread sends may be called by that send or not.
    """

    ANY = ANY
    """Stands for all senders."""

    set_class: ClassVar[type[set[Any]]] = set
    """What keeps the keys of receivers, and so decides their order. A subclass may take an ordered set."""

    receiver_connected = _Companion("Sent after a receiver was connected: receiver=, sender=, weak=.")
    receiver_disconnected = _Companion("Sent after a receiver was disconnected by a call: receiver=, sender=.")

    def __init__(self, doc: str | None = None) -> None:
        if doc:
            self.__doc__ = doc
        self._rc_reset()
        self.is_muted = False

    def connect(self, receiver: F, sender: Any = ANY, weak: bool = True) -> F:
        """Have a receiver called when the signal is sent.

        Args:
            receiver: called as ``receiver(sender, **keywords)``.
            sender: call it only for this sender. Strings and integers are compared by value, everything else is the
                same only if it is the same object.
            weak: do not keep the receiver. When nothing else does, it is disconnected. False keeps it.

        Returns:
            The receiver, so that this can be a decorator.

        Raises:
            TypeError: there can be no weak reference to the receiver; or a receiver of `receiver_connected` has raised
                it. Nothing is connected.
        """
        attributes = self.__dict__  # before: without memory for this dict nothing may be connected
        self._rc_connect(receiver, sender, weak)
        told: Signal | None = attributes.get("receiver_connected")
        if told is not None and told.receivers:
            try:
                told.send(self, receiver=receiver, sender=sender, weak=weak)
            except TypeError:
                self.disconnect(receiver, sender)
                raise
        return receiver

    def connect_via(self, sender: Any, weak: bool = False) -> Callable[[F], F]:
        """Make a decorator that connects a function for a sender.

        Args:
            sender: the sender.
            weak: do not keep the function.

        Returns:
            A decorator that returns its function.
        """

        def connect(receiver: F) -> F:
            return self.connect(receiver, sender, weak)

        return connect

    @contextmanager
    def connected_to(self, receiver: Callable[..., Any], sender: Any = ANY) -> Generator[None, None, None]:
        """Have a receiver connected for the time of a ``with`` block. At its end the receiver is in no connection.

        Args:
            receiver: the receiver; it is kept.
            sender: call it only for this sender.
        """
        self.connect(receiver, sender, weak=False)
        try:
            yield
        finally:
            self.disconnect(receiver)

    @contextmanager
    def muted(self) -> Generator[None, None, None]:
        """Have `send` and `send_async` call nobody for the time of a ``with`` block, in all threads."""
        self.is_muted = True
        try:
            yield
        finally:
            self.is_muted = False

    async def send_async(
        self,
        sender: Any = None,
        /,
        *,
        _sync_wrapper: Callable[[Callable[..., Any]], Callable[..., Coroutine[Any, Any, Any]]] | None = None,
        **kwargs: Any,
    ) -> list[tuple[Callable[..., Any], Any]]:
        """Await the receivers for a sender, one after the other.

        Args:
            sender: what the receivers get as their first argument, and by which they are chosen.
            _sync_wrapper: makes a coroutine function of a receiver that is none.
            kwargs: what else the receivers get.

        Returns:
            A list of (receiver, what it has returned).

        Raises:
            RuntimeError: a receiver is no coroutine function, and there is no `_sync_wrapper`.
            Exception: what a receiver raises; those after it are not called.
        """
        from inspect import iscoroutinefunction

        results: list[tuple[Callable[..., Any], Any]] = []
        if self.is_muted:
            return results
        for receiver in self.receivers_for(sender):
            call = receiver
            if not iscoroutinefunction(receiver):
                if _sync_wrapper is None:
                    raise RuntimeError(
                        f"Cannot send to a non-coroutine function: {receiver!r}; "
                        "use send, or give send_async a _sync_wrapper"
                    )
                call = _sync_wrapper(receiver)
            results.append((receiver, await call(sender, **kwargs)))
        return results

    def disconnect(self, receiver: Callable[..., Any], sender: Any = ANY) -> None:
        """Have a receiver no longer called. One that is not connected is no error.

        Args:
            receiver: the receiver.
            sender: no longer for this sender; `ANY` is for none at all.
        """
        self._disconnect(make_id(receiver), ANY_ID if sender is ANY else make_id(sender))
        told: Signal | None = self.__dict__.get("receiver_disconnected")
        if told is not None and told.receivers:
            told.send(self, receiver=receiver, sender=sender)

    def __copy__(self) -> Self:
        return _copied(self, _attributes(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        from copy import deepcopy

        copied = memo[id(self)] = _copied(self, {})
        copied.__dict__.update(deepcopy(_attributes(self), memo))
        return copied


# No methods: a subclass may have methods of any name.


def _attributes(signal: Signal) -> dict[str, Any]:
    """The attributes of a copy; the signals that tell of this one's receivers are not among them."""
    companions = ("receiver_connected", "receiver_disconnected")
    return {name: value for name, value in vars(signal).items() if name not in companions}


def _copied(signal: S, attributes: dict[str, Any]) -> S:
    """Another signal that has the same receivers."""
    copied = type(signal).__new__(type(signal))
    copied.__dict__.update(attributes)
    signal._rc_copy_to(copied)
    return copied


class NamedSignal(Signal):
    """A signal with a name, as a `Namespace` makes them.

    Args:
        name: the name. The signal itself does not use it.
        doc: what `__doc__` of the signal is to be.
    """

    def __init__(self, name: str, doc: str | None = None) -> None:
        super().__init__(doc)
        self.name: str = name

    def __repr__(self) -> str:
        return f"{super().__repr__().removesuffix('>')}; {self.name!r}>"


class Namespace(dict[str, NamedSignal]):
    """Signals by their names."""

    def signal(self, name: str, doc: str | None = None) -> NamedSignal:
        """Return the signal of a name, which is made if there is none. Threads that ask at once get the same.

        Args:
            name: the name.
            doc: what `__doc__` of the signal is to be, if it is made now.
        """
        if name not in self:
            made = NamedSignal(name, doc)
            if type(self).__setitem__ is dict.__setitem__:
                self.setdefault(name, made)  # in one step, for other threads
            else:
                self[name] = made
        return self[name]


for _public in (Signal, NamedSignal, Namespace):
    _public.__module__ = "ringcast.compat.blinker"

default_namespace: Namespace = Namespace()
"""The namespace of `signal`."""
signal = default_namespace.signal
