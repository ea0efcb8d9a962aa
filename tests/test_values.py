"""Plain values that a user gives, numbers, times, flags and words: made plain where they are taken, refused with a
short message where they are none, and with OptionError at each place."""

import asyncio
from decimal import Decimal
from fractions import Fraction

import numpy
import pytest

from ringcast import Dispatcher, OptionError, TypeIdError


class Tick:
    pass


def on_tick(tick: Tick) -> None: ...


class Number(int):
    """Compares, counts and shows itself as it likes."""

    def fail(self, *_):
        raise ZeroDivisionError

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __index__ = __int__ = __float__ = __repr__ = __str__ = __format__ = (
        fail
    )
    __hash__ = int.__hash__


class Word(str):
    """The same of a word."""

    __slots__ = ()

    def fail(self, *_):
        raise ZeroDivisionError

    __eq__ = __ne__ = __str__ = __repr__ = __format__ = fail
    __hash__ = str.__hash__


class Fails:
    """Is a number by its methods, and none when they are called."""

    def fail(self):
        raise ZeroDivisionError

    __index__ = __float__ = __repr__ = fail


class Long:
    def __repr__(self):
        return "x" * 1_000_000


def kind(value):
    return type(value).__name__


# --- times ---

NO_TIMES = [True, "1", b"1", -1, float("nan"), [], object, float, 1j, 10**400, 10**5000, -(10**5000), Long(), Fails()]
WAITS = {
    "publish": lambda bus, timeout: bus.publish(Tick(), timeout=timeout),
    "publish_to": lambda bus, timeout: bus.publish_to(1, Tick(), timeout=timeout),
    "publish_many": lambda bus, timeout: bus.publish_many([Tick()], timeout=timeout),
    "apublish": lambda bus, timeout: asyncio.run(bus.apublish(Tick(), timeout=timeout)),
    "wait_for": lambda bus, timeout: asyncio.run(bus.wait_for(Tick, timeout=timeout)),
    "wait_idle": lambda bus, timeout: bus.wait_idle(timeout),
    "close": lambda bus, timeout: bus.close(timeout),
    "aclose": lambda bus, timeout: asyncio.run(bus.aclose(timeout)),
    "exit_timeout": lambda bus, timeout: Dispatcher(exit_timeout=timeout),
}


@pytest.mark.parametrize("timeout", NO_TIMES, ids=kind)
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_what_is_no_time_is_refused_everywhere(bus, wait, timeout):
    with pytest.raises(OptionError, match="timeout must be None or") as caught:
        wait(bus, timeout)
    assert len(str(caught.value)) < 250
    assert not bus.closed


@pytest.mark.parametrize(
    "timeout", [0, 0.5, Decimal("0.5"), Fraction(1, 2), numpy.float32(0.5), 10**300, float("inf"), None]
)
@pytest.mark.parametrize("wait", [wait for wait in WAITS if wait != "wait_for"])
def test_every_number_is_a_time(bus, wait, timeout):
    WAITS[wait](bus, timeout)


@pytest.mark.parametrize("timeout", [0, Decimal("0.01"), Fraction(1, 100), numpy.float32(0.01)])
def test_a_wait_ends_after_any_kind_of_time(bus, timeout):
    with pytest.raises(TimeoutError, match=r"came within 0(\.01)? s"):
        WAITS["wait_for"](bus, timeout)


@pytest.mark.parametrize("close", [WAITS["close"], WAITS["aclose"]])
def test_a_close_that_ran_out_of_time_says_how_long_it_waited(bus, gate, close):
    bus.subscribe(Tick, gate.hold)
    bus.publish(Tick())
    with pytest.raises(TimeoutError, match=r"not all was delivered within 0\.01 s"):
        close(bus, Fraction(1, 100))
    gate.open()


# --- whole numbers ---

NO_NUMBERS = ["5", 1.5, True, None, int, [5], Decimal(5), Fails(), Long()]
NUMBERS = {
    "max_queue of a dispatcher": lambda bus, value: Dispatcher(max_queue=value),
    "max_workers": lambda bus, value: Dispatcher(max_workers=value),
    "max_queue": lambda bus, value: bus.subscribe(Tick, on_tick, max_queue=value),
    "max_queue of a stream": lambda bus, value: asyncio.run(stream(bus, max_queue=value)),
    "batch of a stream": lambda bus, value: asyncio.run(stream(bus, batch=value)),
    "batch": lambda bus, value: bus.subscribe(Tick, print, batch=value),
    "priority": lambda bus, value: bus.subscribe(Tick, on_tick, mode="direct", priority=value),
    "concurrency": lambda bus, value: asyncio.run(subscribe_here(bus, concurrency=value)),
}


async def stream(bus, **options):
    bus.stream(Tick, **options)


async def subscribe_here(bus, **options):
    async def on_tick_here(tick: Tick): ...

    bus.subscribe(on_tick_here, **options)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=kind)
@pytest.mark.parametrize("place", NUMBERS)
def test_what_is_no_whole_number_is_refused_everywhere(bus, place, value):
    if value is None and place not in ("max_queue of a dispatcher", "concurrency"):
        return  # means the default
    with pytest.raises(OptionError, match=f"{place.split()[0]} must be an int, not ") as caught:
        NUMBERS[place](bus, value)
    assert len(str(caught.value)) < 250
    assert not bus.subscriptions()


@pytest.mark.parametrize("value", [10**5000, -(10**5000), 2**64, -(2**64)], ids=lambda value: hex(value)[:5])
@pytest.mark.parametrize("place", NUMBERS)
def test_a_number_out_of_range_is_refused_everywhere(bus, place, value):
    with pytest.raises(OptionError, match=f"{place.split()[0]} must be from ") as caught:
        NUMBERS[place](bus, value)
    assert len(str(caught.value)) < 250
    assert not bus.subscriptions()


@pytest.mark.parametrize("value", [5, Number(5), numpy.int64(5), numpy.uint8(5)], ids=kind)
@pytest.mark.parametrize("place", NUMBERS)
def test_a_whole_number_of_any_class_is_one(bus, place, value):
    NUMBERS[place](bus, value)


def test_a_number_is_kept_as_a_plain_one(bus, make_bus):
    assert type(make_bus(max_queue=Number(5)).max_queue) is int
    assert type(bus.subscribe(Tick, on_tick, max_queue=numpy.int64(5)).max_queue) is int
    assert type(bus.subscribe_to(numpy.uint32(5), print).type_id) is int


@pytest.mark.parametrize("value", ["5", 1.5, True, None, Fails(), Long(), 10**5000, -1, 2**32], ids=kind)
def test_what_is_no_type_id_is_refused_everywhere(bus, value):
    for call in (
        lambda: bus.subscribe_to(value, print),
        lambda: bus.publish_to(value, Tick()),
        lambda: bus.count(value),
    ):
        with pytest.raises(TypeIdError) as caught:
            call()
        assert len(str(caught.value)) < 300


# --- flags ---

FLAGS = {
    "timing": lambda bus, value: Dispatcher(timing=value),
    "once": lambda bus, value: bus.subscribe(Tick, on_tick, once=value),
    "weak": lambda bus, value: bus.subscribe(Tick, on_tick, weak=value),
    "subclasses": lambda bus, value: bus.subscribe(Tick, on_tick, subclasses=value),
    "replace": lambda bus, value: bus.subscribe(Tick, on_tick, replace=value),
    "own_thread": lambda bus, value: bus.subscribe(Tick, on_tick, own_thread=value),
    "own_thread of a native one": lambda bus, value: bus.subscribe_native(Tick, 5, own_thread=value),
    "subclasses of a stream": lambda bus, value: asyncio.run(stream(bus, subclasses=value)),
    "discard of a close": lambda bus, value: bus.close(discard=value),
    "discard of an aclose": lambda bus, value: asyncio.run(bus.aclose(discard=value)),
}


@pytest.mark.parametrize("value", [0, 1, None, "yes", "", [], bool, Fails(), Long(), numpy.True_], ids=kind)
@pytest.mark.parametrize("place", FLAGS)
def test_what_is_no_flag_is_refused_everywhere(bus, place, value):
    with pytest.raises(OptionError, match=f"{place.split()[0]} must be True or False, not ") as caught:
        FLAGS[place](bus, value)
    assert len(str(caught.value)) < 250
    assert not bus.subscriptions()
    assert not bus.closed


@pytest.mark.parametrize("mode", ["queued", "direct"])
@pytest.mark.parametrize("value", [0, 1, None, "yes", Long()], ids=kind)
def test_a_cancel_with_what_is_no_flag_cancels_nothing(bus, mode, value):
    subscription = bus.subscribe(Tick, on_tick, mode=mode)
    with pytest.raises(OptionError, match="discard must be True or False"):
        subscription.cancel(discard=value)
    assert subscription.active


# --- words ---

WORDS = {
    "policy of a dispatcher": ("raise", lambda bus, value: Dispatcher(policy=value)),
    "on_error": ("raise", lambda bus, value: Dispatcher(on_error=value)),
    "name": ("feed", lambda bus, value: Dispatcher(name=value)),
    "policy": ("raise", lambda bus, value: bus.subscribe(Tick, on_tick, policy=value)),
    "mode": ("queued", lambda bus, value: bus.subscribe(Tick, on_tick, mode=value)),
    "context": ("publisher", lambda bus, value: bus.subscribe(Tick, on_tick, context=value)),
}


@pytest.mark.parametrize("value", [5, b"raise", "x" * 1_000_000, Word("other"), Fails(), Long(), [str]], ids=kind)
@pytest.mark.parametrize("place", WORDS)
def test_what_is_no_word_is_refused_everywhere(bus, place, value):
    if place == "name" and isinstance(value, str):
        return
    with pytest.raises(OptionError, match=f"^{place.split()[0]}") as caught:
        WORDS[place][1](bus, value)
    assert len(str(caught.value)) < 400
    assert not bus.subscriptions()


@pytest.mark.parametrize("place", WORDS)
def test_a_word_of_a_subclass_of_str_is_one(bus, place):
    word, take = WORDS[place]
    take(bus, Word(word))


def test_a_name_is_kept_as_a_plain_one(make_bus):
    assert type(make_bus(name=Word("feed")).name) is str


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_queue": 0}, "max_queue must be from 1"),
        ({"max_queue": "5"}, "max_queue must be an int, not str"),
        ({"max_workers": 0}, "max_workers must be from 1"),
        ({"max_workers": 1.5}, "max_workers must be an int, not float"),
        ({"name": 5}, "name must be a str"),
        ({"timing": 1}, "timing must be True or False"),
        ({"on_error": "rise"}, 'on_error must be callable, "raise" or None'),
        ({"policy": "latter"}, "policy must be one of"),
    ],
)
def test_what_a_dispatcher_is_given_is_checked(arguments, words):
    with pytest.raises(OptionError, match=words):
        Dispatcher(**arguments)


def test_a_queue_that_is_too_long_names_the_dispatchers(bus):
    with pytest.raises(OptionError, match="from 1 to 50000, the max_queue of the dispatcher"):
        bus.subscribe(Tick, on_tick, max_queue=50_001)
