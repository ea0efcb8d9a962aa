"""Subscriptions that nobody has kept: `Dispatcher.off`, `Dispatcher.subscriptions`, and `replace=True`."""

import functools

import pytest
from limits import DEADLINE

import ringcast
from ringcast import Dispatcher, EventClassError, HandlerTypeError, OptionError, TypeIdError


class Tick:
    pass


class Trade:
    pass


class Stated:
    __event_type__ = 0x77


class Inherits(Stated):
    pass


class Computes:
    @property
    def __event_type__(self):
        return 5


class Recorder:
    def __init__(self):
        self.seen = []

    def add(self, event):
        self.seen.append(event)


def on_anything(event): ...


# --- off ---


def test_a_handler_of_a_decorator_is_let_go(bus):
    got = []

    @bus.on(Trade)
    @bus.on(Tick)
    def record(event) -> None:
        got.append(event)

    assert bus.publish(Tick()) == 1
    assert bus.off(record) == 2
    assert bus.publish(Tick()) == bus.publish(Trade()) == 0
    assert bus.off(record) == 0
    assert bus.wait_idle(DEADLINE)
    assert len(got) == 1


def test_of_one_class_only(bus):
    for event_class in (Tick, Trade):
        bus.subscribe(event_class, on_anything)
    assert bus.off(on_anything, Tick) == 1
    assert [subscription.event_class for subscription in bus.subscriptions()] == [Trade]


def test_other_handlers_stay(bus):
    one, other = Recorder(), Recorder()
    bus.subscribe(Tick, one.add)
    bus.subscribe(Tick, other.add)
    assert bus.off(one.add) == 1  # another method object than the one that was subscribed
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    assert (len(one.seen), len(other.seen)) == (0, 1)


def made(kind):
    return {
        "a function": lambda: on_anything,
        "a method": lambda: Recorder().add,
        "a built-in method": lambda: [].append,
        "a partial": lambda: functools.partial(on_anything),
        "an object": lambda: type("Called", (), {"__call__": lambda self, event: None})(),
    }[kind]()


@pytest.mark.parametrize(
    "options", [{}, {"mode": "direct"}, {"once": True}, {"subclasses": True}, {"context": "publisher"}, {"batch": 5}]
)
@pytest.mark.parametrize("kind", ["a function", "a method", "a built-in method", "a partial", "an object"])
def test_each_kind_of_handler_and_subscription_is_let_go(bus, kind, options):
    handler = made(kind)
    bus.subscribe(Tick, handler, **options)
    assert bus.off(handler) == 1
    assert bus.count(Tick) == 0


def test_a_weak_handler_is_let_go(bus):
    recorder = Recorder()
    bus.subscribe(Tick, recorder.add, weak=True)
    assert bus.off(recorder.add) == 1


def test_handlers_that_say_they_are_equal_are_not_the_same(bus):
    class Equal:
        def __call__(self, event): ...

        def __eq__(self, other):
            return True

        __hash__ = None

    one, other = Equal(), Equal()
    bus.subscribe(Tick, one)
    assert bus.off(other) == 0
    assert bus.off(one) == 1


def test_what_was_published_before_is_handled(bus, gate):
    bus.subscribe(Tick, gate.hold)
    bus.publish(Tick())
    bus.publish(Tick())
    gate.wait_until_held()
    (subscription,) = bus.subscriptions()
    assert bus.off(gate.hold) == 1
    gate.open()
    assert bus.wait_idle(DEADLINE)
    assert subscription.delivered == 2


def test_a_static_method_is_let_go(bus):
    class Service:
        @bus.on
        @staticmethod
        def handle(tick: Tick) -> None: ...

    assert bus.off(Service.handle) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3,), r"a handler is a callable, not 3 \(int\)"),
        ((None,), "a handler is a callable, not None"),
        ((Tick, on_anything), r"the handler comes first: off\(.*on_anything, .*Tick\)"),
        (((Tick, str), on_anything), r"the handler comes first: off\(.*on_anything, \(.*Tick, str\)\)"),
    ],
)
def test_what_can_be_no_handler_is_refused(bus, arguments, words):
    with pytest.raises(HandlerTypeError, match=words):
        bus.off(*arguments)
    with pytest.raises(HandlerTypeError, match=r"a Subscription is ended by its cancel\(\)"):
        bus.off(bus.subscribe(Tick, on_anything))


def test_the_default_dispatcher_lets_go():
    def handler(event): ...

    ringcast.default.subscribe(Tick, handler)
    assert ringcast.off(handler) == 1


# --- subscriptions ---


def test_subscriptions_are_found_by_class_and_id(bus):
    stated = bus.subscribe(Stated, on_anything)
    inherits = bus.subscribe_to(0x77, on_anything)
    tick = bus.subscribe(Tick, on_anything)
    wide = bus.subscribe(object, on_anything)
    computes = bus.subscribe(Computes, on_anything, subclasses=True)
    assert set(bus.subscriptions()) == {stated, inherits, tick, wide, computes}
    assert bus.subscriptions(Computes) == [computes]
    assert set(bus.subscriptions(Stated)) == set(bus.subscriptions(0x77)) == {stated, inherits}
    assert bus.subscriptions(object) == [wide]
    assert bus.subscriptions(Trade) == []
    tick.cancel()
    assert bus.subscriptions(Tick) == []


def test_what_names_no_subscriptions_is_refused(bus):
    for wrong in (-1, 2**32, True, "Tick"):
        with pytest.raises(TypeIdError):
            bus.subscriptions(wrong)


def test_a_closed_dispatcher_has_none():
    bus = Dispatcher()
    bus.subscribe(Tick, on_anything)
    bus.close()
    assert bus.subscriptions() == []
    assert bus.off(on_anything) == 0


# --- replace ---

CELL = """
@bus.on(replace=True)
def show(tick: Tick) -> None:
    got.append((number, tick))
"""


def test_a_cell_that_runs_again_leaves_one_subscription(bus):
    got = []
    for number in range(3):
        exec(CELL, {"__name__": "__main__", "bus": bus, "Tick": Tick, "got": got, "number": number})
    tick = Tick()
    assert bus.publish(tick) == 1
    assert bus.wait_idle(DEADLINE)
    assert got == [(2, tick)]


def test_a_cell_that_defines_its_class_anew_leaves_one_subscription(bus):
    cell = "class Tick:\n    pass\n" + CELL
    for number in range(3):
        exec(cell, {"__name__": "__main__", "bus": bus, "got": [], "number": number})
    assert len(bus.subscriptions()) == 1


def test_what_the_old_one_was_to_handle_it_handles(bus, gate):
    got = []

    def run_cell_and_publish_twice(handle):
        names = {"__name__": "__main__", "bus": bus, "Tick": Tick, "handle": handle}
        exec("@bus.on(replace=True)\ndef handler(tick: Tick) -> None:\n    handle(tick)", names)
        bus.publish(Tick())
        bus.publish(Tick())

    run_cell_and_publish_twice(gate.hold)
    gate.wait_until_held()
    run_cell_and_publish_twice(got.append)
    (new,) = bus.subscriptions()
    gate.open()
    assert bus.wait_idle(DEADLINE)
    assert (len(got), new.delivered) == (2, 2)
    assert bus.stats().topics[0].published == 4


def handle_all(event) -> None: ...


def test_one_function_may_have_several(bus):
    for _ in range(3):  # and keeps one for each class and id, however often this runs
        bus.on(Trade, replace=True)(bus.on(Tick, replace=True)(handle_all))
        bus.subscribe(Tick, handle_all, replace=True, subclasses=True)
        bus.subscribe_to(9, handle_all, replace=True)
    assert len(bus.subscriptions()) == 4


def test_other_names_stay(bus):
    bus.subscribe(Tick, on_anything)
    bus.subscribe(Tick, handle_all, replace=True)
    assert len(bus.subscriptions()) == 2


class Unbound:
    """A proxy of nothing, whose attributes cannot be had."""

    def __call__(self, event): ...

    def __getattr__(self, name):
        raise RuntimeError(name)


class Closed(Unbound):
    def __getattribute__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("kind", [Unbound, Closed])
def test_handlers_that_are_proxies_of_nothing_do_no_harm(bus, kind):
    proxy = kind()
    bus.subscribe(Tick, proxy)
    bus.subscribe(Tick, handle_all, replace=True)
    assert bus.publish(Tick()) == 2
    with pytest.raises(OptionError, match="weak=True is for bound methods"):
        bus.subscribe(Tick, proxy, weak=True)
    assert bus.off(proxy) == 1


def decorated(function):
    def wrapper(event):
        return function(event)

    return wrapper


def _(event): ...


@pytest.mark.parametrize(
    "handler",
    [lambda event: None, Recorder().add, str, functools.partial(on_anything), [].append, decorated(on_anything), _],
)
def test_what_has_no_name_of_its_own_is_refused(bus, handler):
    with pytest.raises(OptionError, match="replace=True is for functions"):
        bus.subscribe(Tick, handler, replace=True)
    with pytest.raises(OptionError, match="replace must be True or False"):
        bus.subscribe(Tick, on_anything, replace="yes")
    assert bus.subscriptions() == []


def test_a_subscription_that_is_refused_replaces_nothing(bus):
    exec(CELL, {"__name__": "__main__", "bus": bus, "Tick": Tick})
    with pytest.raises(EventClassError):
        exec(CELL.replace("on(", "on(Trade, "), {"__name__": "__main__", "bus": bus, "Tick": Tick, "Trade": Trade})
    assert len(bus.subscriptions(Tick)) == 1
