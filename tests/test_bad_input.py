"""Bad input: whatever is passed, the call works or raises an exception that is documented; nothing crashes."""

import asyncio
import collections
import contextlib
import functools
import gc
import operator

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import DEADLINE

import ringcast
from ringcast import ClosedError, Dispatcher, EventClassError, RingcastError

SETTINGS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ringcast.record
class Row:
    number: int


class Hostile:
    """Fails at whatever can be asked of it."""

    def __getattribute__(self, name):
        raise ZeroDivisionError(name)

    def fail(self, *arguments, **options):
        raise ZeroDivisionError

    __bool__ = __len__ = __iter__ = __index__ = __int__ = __float__ = __call__ = fail
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __repr__ = __str__ = fail
    __hash__ = fail


class Equal:
    """Is equal to everything and has the hash of everything."""

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0

    def __bool__(self):
        return True


class IndexAny(int):
    """An int that lies in comparisons."""

    def __lt__(self, other):
        return False

    __le__ = __gt__ = __ge__ = __lt__

    def __index__(self):
        return -5


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class HostileMeta(type):
    def fail(cls, *arguments):
        raise ZeroDivisionError

    __eq__ = __ne__ = __instancecheck__ = __subclasscheck__ = __repr__ = __str__ = __bool__ = __len__ = fail
    __hash__ = fail

    def __getattribute__(cls, name):
        raise ZeroDivisionError(name)


class MetaEqual(type):
    def __eq__(cls, other):
        return True

    def __hash__(cls):
        return 0


class OfHostileMeta(metaclass=HostileMeta):
    pass


class OfMetaEqual(metaclass=MetaEqual):
    pass


class OtherOfMetaEqual(metaclass=MetaEqual):
    pass


class HostileGetattr:
    def __getattr__(self, name):
        raise ZeroDivisionError(name)


class Dying:
    """Its finalizer fails, and publishes before."""

    bus = None

    def __del__(self):
        if self.bus is not None:
            with contextlib.suppress(ClosedError):
                self.bus.publish(Ordinary())
        raise ZeroDivisionError


class Ordinary:
    pass


class FailingProperty:
    @property
    def __event_type__(self):
        raise ZeroDivisionError


def stating(value):
    return type("Stating", (), {"__event_type__": value})


NUMPY = [
    numpy.int8(3),
    numpy.int64(-1),
    numpy.uint64(2**40),
    numpy.bool_(True),
    numpy.float64(1.5),
    numpy.arange(3),
]


class Box:
    """Holds a value that Hypothesis had better not look at."""

    def __init__(self, make, name):
        self.make = make
        self.name = name

    def __repr__(self):
        return self.name


def one_of(*values):
    """A strategy of boxes with these values, by number."""
    return st.integers(0, len(values) - 1).map(lambda at: Box(lambda: values[at], f"value {at}"))


def one_made_by(*makers):
    return st.integers(0, len(makers) - 1).map(lambda at: Box(makers[at], f"made by {at}"))


plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, -1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64]),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
).map(lambda value: Box(lambda: value, repr(value)))

odd_values = st.one_of(
    plain_values,
    one_of(
        Hostile(),
        Equal(),
        IndexAny(3),
        Index(3),
        Index(-3),
        Index("x"),
        object(),
        [],
        {},
        (1, 2),
        print,
        len,
        int,
        OfHostileMeta,
        OfMetaEqual,
        HostileGetattr(),
        Ordinary,
        NotImplemented,
        Ellipsis,
        collections,
        *NUMPY,
    ),
)


def computing(value):
    return type("Computing", (), {"__event_type__": property(lambda self: value)})


events = st.one_of(
    odd_values,
    one_made_by(OfHostileMeta, OfMetaEqual, OtherOfMetaEqual, FailingProperty, HostileGetattr),
    odd_values.map(lambda box: Box(lambda: stating(box.make())(), f"of a class with the id {box}")),
    odd_values.map(lambda box: Box(lambda: computing(box.make())(), f"computes the id {box}")),
)

classes = st.one_of(
    odd_values,
    odd_values.map(lambda box: Box(lambda: stating(box.make()), f"a class with the id {box}")),
    one_of(object, type, Ordinary, OfHostileMeta, OfMetaEqual, OtherOfMetaEqual, HostileMeta, FailingProperty),
    one_made_by(lambda: type("Passing", (), {})),
)


def no_argument():
    pass


def keyword_only(*, event):
    pass


def two_arguments(event, another):
    pass


def annotated_badly(event: "no such name"):  # noqa: F722
    pass


def annotated_with_a_value(event: 5):
    pass


def annotated_to_fail(event: "1 / 0"):
    pass


def generator(event):
    yield event


async def asynchronous_generator(event):
    yield event


class LyingSignature:
    __signature__ = "none"

    def __call__(self, event):
        pass


class FailingSignature:
    @property
    def __signature__(self):
        raise ZeroDivisionError

    def __call__(self, event):
        pass


class WrapsItself:
    def __init__(self):
        self.__wrapped__ = self

    def __call__(self, event):
        pass


handlers = st.one_of(
    odd_values,
    one_of(
        no_argument,
        keyword_only,
        two_arguments,
        annotated_badly,
        annotated_with_a_value,
        annotated_to_fail,
        generator,
        asynchronous_generator,
        LyingSignature(),
        FailingSignature(),
        WrapsItself(),
        lambda *events: None,
        lambda event=1: None,
        lambda event, /, more=2: None,
        functools.partial(two_arguments, another=1),
        functools.partial(functools.partial(two_arguments, 1)),
        functools.lru_cache(no_argument),
        operator.attrgetter("x"),
        operator.methodcaller("x"),
        str.upper,
        [].append,
        staticmethod(annotated_badly),
        classmethod(annotated_badly),
        property(annotated_badly),
        Ordinary().__init__,
        type,
        dict,
    ),
)

# what may be raised, by the documentation of the calls, and what the value itself raises when it is asked
DOCUMENTED = (RingcastError, TypeError, ValueError, MemoryError)
ITS_OWN = (ZeroDivisionError,)


@pytest.fixture
def quiet_bus(make_bus):
    return make_bus(on_error=lambda failure: None, max_queue=20, policy="drop_oldest")


def check_works(bus):
    """The dispatcher still does what it should."""
    got = []
    with bus.subscribe(Ordinary, got.append):
        event = Ordinary()
        assert bus.publish(event) >= 1
        assert bus.wait_idle(DEADLINE)
    assert event in got


def call(function, *arguments, **options):
    """Calls it. Gives what it returned, or None where it raised what it may."""
    with contextlib.suppress(*DOCUMENTED, *ITS_OWN):
        return function(*arguments, **options)
    return None


@SETTINGS
@given(events)
def test_publish_whatever_it_is(quiet_bus, event):
    event = event.make()
    got = []
    for subscription in [call(quiet_bus.subscribe, type(event), got.append), quiet_bus.subscribe(object, got.append)]:
        if subscription is not None:
            reached = call(quiet_bus.publish, event)
            assert quiet_bus.wait_idle(DEADLINE)
            if reached:
                assert any(one is event for one in got)
            subscription.cancel()
    call(quiet_bus.count, type(event))
    check_works(quiet_bus)


class Unequal(str):
    """A keyword's name with comparisons of its own."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        raise AssertionError("compared")


@pytest.mark.parametrize(
    ("arguments", "named", "given"),
    [
        ((), {}, "nothing"),
        (("saved", "a.txt", 12), {}, "3 objects"),
        (("saved",), {"path": "a.txt"}, "an object and path="),
        ((), {"event": 1}, "nothing and event="),
        ((1, 2), {"timeout": 1}, "2 objects"),
        ((1,), dict.fromkeys(("a", "b", "c", "d")), "an object and a=, b=, c=, ..."),
        ((1,), {"x" * 10_000: 1}, r"an object and x{30,200}\.\.\.x+="),
        ((1,), {Unequal("path"): 1}, "an object and path="),
    ],
)
def test_publish_takes_one_event(bus, arguments, named, given):
    with pytest.raises(EventClassError, match=f"publish takes one object.* was given {given}: publish"):
        bus.publish(*arguments, **named)


@SETTINGS
@given(odd_values, events)
def test_publish_to_whatever_the_id_is(quiet_bus, type_id, event):
    type_id, event = type_id.make(), event.make()
    subscription = call(quiet_bus.subscribe_to, type_id, lambda event: None)
    call(quiet_bus.publish_to, type_id, event)
    call(quiet_bus.count, type_id)
    if subscription is not None:
        assert type(subscription.type_id) is int
        assert 0 <= subscription.type_id < 2**32
        subscription.cancel()
    check_works(quiet_bus)


@pytest.mark.parametrize(
    "value", [True, False, -1, 2**32, 2**64, 1.0, "1", None, Index(-1), Index(2**32), Index("x"), *NUMPY]
)
def test_what_is_no_type_id_is_refused_as_such(quiet_bus, value):
    with contextlib.suppress(TypeError, ValueError):
        if type(value).__name__ == "int8":  # an integer, in range
            assert quiet_bus.count(value) == 0
            return
    for refused in (
        lambda: quiet_bus.subscribe_to(value, lambda event: None),
        lambda: quiet_bus.publish_to(value, Ordinary()),
        lambda: quiet_bus.subscribe(stating(value), lambda event: None),
        lambda: quiet_bus.publish(stating(value)()),
        lambda: quiet_bus.count(value),
    ):
        with pytest.raises(ringcast.TypeIdError):
            refused()


@SETTINGS
@given(classes, handlers)
def test_subscribe_whatever_class_and_handler_are(quiet_bus, event_class, handler):
    event_class, handler = event_class.make(), handler.make()
    for subscribe in (
        lambda: quiet_bus.subscribe(event_class, handler),
        lambda: quiet_bus.subscribe(handler),
        lambda: quiet_bus.on(event_class)(handler),
        lambda: quiet_bus.on(handler),
        lambda: quiet_bus.subscribe_to(5, handler),
        lambda: quiet_bus.subscribe(event_class, handler, subclasses=True),
    ):
        subscription = call(subscribe)
        if type(subscription) is ringcast.Subscription:
            assert repr(subscription).startswith("<Subscription of")
            quiet_bus.publish(Ordinary())
            subscription.cancel()
    for subscription in quiet_bus._subscriptions():
        subscription.cancel()
    check_works(quiet_bus)


@SETTINGS
@given(
    st.dictionaries(
        st.sampled_from([*ringcast.HandlerOptions.__annotations__, "no_such_option"]),
        st.one_of(odd_values, one_of("direct", "queued", "asyncio", "latest", "block", "publisher", True)),
        max_size=4,
    )
)
def test_subscribe_with_whatever_options(quiet_bus, options):
    options = {name: box.make() for name, box in options.items()}
    subscription = call(quiet_bus.subscribe, Ordinary, lambda event: None, **options)
    if subscription is not None:
        call(quiet_bus.publish, Ordinary())
        assert quiet_bus.wait_idle(DEADLINE)
        subscription.cancel(discard=True)
    check_works(quiet_bus)


@SETTINGS
@given(
    st.dictionaries(
        st.sampled_from(["max_queue", "max_workers", "on_error", "name", "policy", "timing", "no_such_argument"]),
        odd_values,
        max_size=3,
    )
)
def test_make_a_dispatcher_of_whatever(arguments):
    arguments = {name: box.make() for name, box in arguments.items()}
    dispatcher = call(Dispatcher, **arguments)
    if dispatcher is not None:
        repr(dispatcher)
        got = []
        dispatcher.subscribe(Ordinary, got.append)
        dispatcher.publish(Ordinary())
        dispatcher.close(DEADLINE)
        assert len(got) == 1


@SETTINGS
@given(odd_values)
def test_wait_for_whatever_time(quiet_bus, timeout):
    timeout = timeout.make()
    quiet_bus.subscribe(Ordinary, lambda event: None).cancel()
    for wait in (
        lambda: quiet_bus.publish(Ordinary(), timeout=timeout),
        lambda: quiet_bus.wait_idle(timeout),
    ):
        call(wait)
    dispatcher = Dispatcher()
    call(dispatcher.close, timeout)
    dispatcher.close()


@SETTINGS
@given(st.lists(odd_values, max_size=3), st.dictionaries(st.text(max_size=3), odd_values, max_size=2))
def test_every_method_with_whatever_arguments(quiet_bus, arguments, options):
    arguments = [box.make() for box in arguments]
    options = {name: box.make() for name, box in options.items()}
    subscription = quiet_bus.subscribe(Ordinary, lambda event: None)
    methods = (
        quiet_bus.publish,
        quiet_bus.publish_to,
        quiet_bus.subscribe,
        quiet_bus.subscribe_to,
        quiet_bus.on,
        quiet_bus.count,
        quiet_bus.stats,
        quiet_bus.stream,
        quiet_bus.wait_idle,
        subscription.cancel,
        subscription,
        ringcast.type_id,
        ringcast.Subscription,
    )
    for method in methods:
        call(method, *arguments, **options)
    for one in quiet_bus._subscriptions():
        one.cancel(discard=True)
    check_works(quiet_bus)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_events_whose_finalizers_fail_and_publish(quiet_bus):
    got = []
    quiet_bus.subscribe(Ordinary, got.append, policy="block")
    quiet_bus.subscribe(Dying, lambda event: None)
    quiet_bus.subscribe(Dying, lambda event: None, policy="drop_newest", max_queue=1)
    for _ in range(50):
        event = Dying()
        event.bus = quiet_bus
        quiet_bus.publish(event)
        del event
    assert quiet_bus.wait_idle(DEADLINE)
    gc.collect()
    assert quiet_bus.wait_idle(DEADLINE)
    assert len(got) == 50


def test_keys_that_cannot_be_hashed_or_compared(make_bus):
    failures = []
    bus = make_bus(on_error=failures.append)
    keys = [Hostile(), [], Equal(), Equal(), 1, "x"]
    taken = []
    subscription = bus.subscribe(
        Ordinary, taken.append, policy="latest", key=lambda event: keys[event.number], max_queue=4
    )
    for number in range(len(keys)):
        event = Ordinary()
        event.number = number
        bus.publish(event)
    assert bus.wait_idle(DEADLINE)
    assert subscription.errors == len(failures) == 2
    assert subscription.delivered + subscription.dropped == len(keys)


def test_a_class_that_changes_its_type_id_keeps_its_topic(quiet_bus):
    got = []
    event_class = stating(0x50)
    quiet_bus.subscribe(event_class, got.append)
    event_class.__event_type__ = 0x51
    quiet_bus.publish(event_class())
    assert quiet_bus.wait_idle(DEADLINE)
    assert len(got) == 1
    assert quiet_bus.publish_to(0x51, event_class()) == 0


def test_an_event_whose_class_is_changed(quiet_bus):
    got = []
    quiet_bus.subscribe(Ordinary, got.append)

    class Changed:
        pass

    event = Changed()
    assert quiet_bus.publish(event) == 0
    event.__class__ = Ordinary
    assert quiet_bus.publish(event) == 1
    assert quiet_bus.wait_idle(DEADLINE)
    assert got == [event]


def test_a_dispatcher_whose_class_forgot_to_initialise_it_is_a_closed_one():
    class Forgetful(Dispatcher):
        def __init__(self):
            pass

    dispatcher = Forgetful()
    assert dispatcher.closed
    for refused in (
        lambda: dispatcher.publish(Ordinary()),
        lambda: dispatcher.publish_to(5, Ordinary()),
        lambda: dispatcher.subscribe(Ordinary, lambda event: None),
        lambda: dispatcher.publish_many([Ordinary()]),
        lambda: dispatcher.subscribe_to(5, lambda event: None),
        lambda: dispatcher.subscribe_native(Row, 5),
        lambda: dispatcher.on(Ordinary)(lambda event: None),
        lambda: asyncio.run(dispatcher.apublish(Ordinary())),
        lambda: asyncio.run(dispatcher.wait_for(Ordinary)),
        lambda: dispatcher.__enter__(),
    ):
        with pytest.raises(ClosedError, match=r"Forgetful.__init__ is to call super\(\).__init__\(\)"):
            refused()
    assert dispatcher.count(Ordinary) == 0
    assert dispatcher.wait_idle()
    assert dispatcher.stats().topics == ()
    assert "closed" in repr(dispatcher)
    dispatcher.close()
    Dispatcher.__init__(dispatcher)
    with pytest.raises(RuntimeError):
        Dispatcher.__init__(dispatcher)
    check_works(dispatcher)
    dispatcher.close()
