"""The types of the core: whatever Python code does with one, or with an object of one, raises or does nothing and never
crashes; nor does the garbage collector, which takes their circles apart.

Python code reaches all of them, by `gc.get_referents` if not by name. Each test walks all types that there are: a new
one is covered as soon as it is there, as it has to be among the objects of `alive`. A crash ends a process, so each
test has one of its own.
"""

import pytest
from limits import DEADLINE

from ringcast import OptionError, _core

PRELUDE = f"""
import asyncio, contextlib, copy, faulthandler, gc, pickle, sys, threading
from array import array
from ringcast import Dispatcher, _add_up, _core, record
faulthandler.enable()
DEADLINE = {DEADLINE}
HEAP_TYPE = 1 << 9   # a class of Python
"""

# `core_types()` are all types of the core, `alive()` gives objects of each.
ALIVE = (
    PRELUDE
    + """
class Tick:
    price = 1.0

@record
class Trade:
    price: float
    size: int = 0

class Owner:
    def handle(self, tick):
        pass

def core_types(base=object):
    found = set()
    for each in type.__subclasses__(base):
        found |= {each} if each.__module__ == "ringcast._core" else set()
        found |= core_types(each) if each is not type else set()
    return found

def referents(start):
    '''What the garbage collector finds from some objects on, without modules and types.'''
    seen, todo = {}, list(start)
    while todo:
        one = todo.pop()
        is_namespace = isinstance(one, dict) and "__builtins__" in one
        if id(one) not in seen and not is_namespace and not isinstance(one, (type, type(sys))):
            seen[id(one)] = one
            todo += gc.get_referents(one)
    return list(seen.values())

@contextlib.contextmanager
def alive():
    '''Objects of all types of the core, in use.'''
    held, come = threading.Event(), threading.Event()

    def hold(event):
        come.set()
        held.wait(DEADLINE)

    loop = asyncio.new_event_loop()
    owner, batches, totals = Owner(), [], array("Q", [0, 0])

    async def subscribe_in_loop():
        return bus.subscribe(Tick, coroutine_handler), bus.stream(Tick).subscription

    async def coroutine_handler(tick):
        pass

    with Dispatcher(max_queue=100) as bus, contextlib.ExitStack() as end:
        end.callback(held.set)
        subscriptions = [
            bus.subscribe(Tick, hold),
            bus.subscribe(Tick, print, where=lambda tick: False, context="publisher"),
            bus.subscribe(Tick, hold, policy="latest", key=id, context="publisher"),
            bus.subscribe(Tick, owner.handle, weak=True),
            bus.subscribe(Tick, owner.handle, mode="direct"),
            bus.subscribe(object, owner.handle),
            bus.subscribe(Trade, batches.append, batch=10),
            bus.subscribe_native(Trade, _add_up.add_up, totals),
            bus.subscribe(Tick, print, where=lambda tick: False, own_thread=True),
        ]
        in_loop, in_stream = loop.run_until_complete(subscribe_in_loop())
        for each in (in_loop, in_stream):
            end.callback(each.cancel, discard=True)
        ticks = [Tick() for _ in range(3)]   # each a key of its own
        for tick in ticks:
            bus.publish(tick)
            bus.publish(Trade(1.5, 2))
        bus.publish_many([Trade(0.5, 1)] * 20)
        assert come.wait(DEADLINE)
        assert all([each.pending is not None for each in subscriptions])   # which fills the mailboxes
        while not batches:
            pass
        unfinished = [iter(batches[0]), subscriptions[0].__aenter__(), subscriptions[0].__aexit__(None, None, None)]
        for each in unfinished:
            end.callback(each.close)
        next(unfinished[0])
        found = referents([
            bus, subscriptions, in_stream, batches, unfinished, Trade(1.0), Trade.__layout__, batches[0]["price"],
            _core.Options("direct", "block", 10),
        ])
        kinds = core_types()
        objects = [one for one in found if kinds & set(type(one).__mro__)]
        missing = kinds - {kind for one in objects for kind in type(one).__mro__}
        assert not missing, f"alive() has no object of {missing}"
        yield objects
    loop.close()

def attempt(call, *arguments):
    '''The outcome, or None if that is an exception.'''
    print(call, [type(each) for each in arguments], flush=True)   # the last line names what has crashed
    try:
        return call(*arguments)
    except Exception:
        return None

USES = [
    repr, hash, bool, len, iter, memoryview, bytes, list, type, dir, gc.get_referents,
    lambda one: one[0], lambda one: one[-1:], lambda one: one["price"], lambda one: one == one,
    lambda one: one.__array__(), lambda one: one.check(1), lambda one: one.__get__(Trade(1.0), Trade),
]

def use(one):
    '''Uses what came of an attempt in every way that does not change it.'''
    for way in USES:
        attempt(way, one)
    for name in dir(type(one)):
        attempt(getattr, one, name)
"""
)


def test_no_object_is_made_half(run_python):
    result = run_python(
        ALIVE
        + """
def call_all(one):
    '''Calls all methods of an object that nobody else has.'''
    for name in dir(type(one)):
        if not name.startswith("__"):
            for arguments in [(), (None,), (Tick(),), (1,), (None, None), (Tick, print, None), (1, Tick, print, None)]:
                attempt(lambda *all: getattr(one, name)(*all), *arguments)

for kind in core_types():
    for ways in (kind, lambda *all: kind.__new__(kind, *all), lambda *all: object.__new__(kind)):
        for arguments in [(), (None,), (1,), (None,) * 2, (None,) * 3, (None,) * 7, (Tick(), 1)]:
            made = attempt(ways, *arguments)
            if made is not None:
                use(made)
                call_all(made)
        del made
        gc.collect()
for name in dir(_core):
    for arguments in [(), (None,), (1,), (None,) * 2, (None,) * 3, (None,) * 4]:
        if not isinstance(getattr(_core, name), type):
            attempt(getattr(_core, name), *arguments)
print("done")
""",
        timeout=4 * DEADLINE,
    )
    assert (result.returncode, result.stdout[-5:]) == (0, "done\n"), result.stdout[-300:] + result.stderr


@pytest.mark.parametrize("arguments", ["()", "(None,) * 2", "(None,) * 7", "(10**6, b'q', (), ())", "(10**6, 'q')"])
def test_no_object_is_made_again(run_python, arguments):
    result = run_python(
        ALIVE
        + f"""
with alive() as objects:
    for one in objects:
        attempt(one.__init__, *{arguments})
        attempt(type(one).__init__, one, *{arguments})
        use(one)
print("done")
""",
        timeout=4 * DEADLINE,
    )
    assert (result.returncode, result.stdout[-5:]) == (0, "done\n"), result.stdout[-300:] + result.stderr


@pytest.mark.parametrize(
    "robbery", ["delattr(target, name)", "setattr(target, name, None)", "setattr(target, name, 5)"]
)
def test_no_object_is_robbed_of_what_it_points_at(run_python, robbery):
    result = run_python(
        ALIVE
        + f"""
def rob(target, name):
    {robbery}

with alive() as objects:
    for one in objects:
        for name in dir(type(one)):
            # of Python's own classes: what is done to them is not done to the core
            if type(one).__module__ == "ringcast._core" or type(one) is Trade:
                attempt(rob, one, name)
                attempt(rob, type(one), name) if not name.startswith("__") or name == "__layout__" else None
        gc.collect()
        use(one)
    filler = [bytes(64) for _ in range(10_000)]   # where something was freed
    for one in objects:
        use(one)
print("done")
""",
        timeout=4 * DEADLINE,
    )
    assert (result.returncode, result.stdout[-5:]) == (0, "done\n"), result.stdout[-300:] + result.stderr


def test_no_object_is_copied_or_pickled_half(run_python):
    result = run_python(
        ALIVE
        + """
with alive() as objects:
    for one in objects:
        ways = [copy.copy, copy.deepcopy, lambda one: one.__reduce__(), lambda one: one.__reduce_ex__(2)]
        ways += [lambda one, protocol=protocol: pickle.loads(pickle.dumps(one, protocol)) for protocol in range(6)]
        for way in ways:
            copied = attempt(way, one)
            is_made_by_the_core = type(one) in core_types() and not type(one).__flags__ & HEAP_TYPE
            assert copied is one or type(copied) is not type(one) or not is_made_by_the_core, one
        for name in ("__setstate__", "__setstate_cython__", "__reduce_cython__"):
            attempt(lambda: getattr(one, name)((None,) * 20))
        use(one)
print("done")
""",
        timeout=4 * DEADLINE,
    )
    assert (result.returncode, result.stdout[-5:]) == (0, "done\n"), result.stdout[-300:] + result.stderr


# --- in a circle -------------------------------------------------------------------------------------------------

CIRCLE = (
    PRELUDE
    + """
from ringcast import ClosedError

class Tick:
    pass

@record
class Trade:
    price: float = 1.0

class Service:
    '''Is in a circle with its dispatcher, in every way there is.'''
    def __init__(self):
        self.bus = Dispatcher()
        self.subscriptions, self.keeps = [], kept

    def subscribe(self, event_class):
        subscribe = self.bus.subscribe
        self.subscriptions = [
            subscribe(event_class, self.handle),
            subscribe(event_class, self.handle, mode="direct"),
            subscribe(event_class, self.handle, batch=3),
            subscribe(event_class, self.handle, policy="latest", key=self.key),
            subscribe(event_class, self.handle, policy="drop_oldest", where=self.key),
            subscribe(event_class, self.handle, once=True, context="publisher"),
            subscribe(object, self.handle),
        ]

    def handle(self, event):
        pass

    def key(self, event):
        return self

    def __del__(self):
        self.keeps.append(self.bus)

def alive():
    kinds = ("Topic", "Route", "Pool", "Service", "Dispatcher")
    return [one for one in gc.get_objects() if type(one).__name__ in kinds]

before = alive()
kept = []
service = Service()
"""
)

STAGES = [
    "",
    "service.subscribe(kind)",
    "service.bus.publish(kind()); assert service.bus.wait_idle(DEADLINE)",
    "while service.subscriptions: service.subscriptions.pop().cancel(discard=True)",
    "service.bus.close(DEADLINE)",
]


@pytest.mark.parametrize("kind", ["Tick", "Trade"])
@pytest.mark.parametrize("stages", range(len(STAGES)), ids=["made", "subscribed", "delivered", "cancelled", "closed"])
def test_a_dispatcher_that_a_finalizer_keeps_is_closed_and_can_be_collected_again(run_until_done, stages, kind):
    run_until_done(
        f"{CIRCLE}\nkind = {kind}\n"
        + "\n".join(STAGES[: stages + 1])
        + """
service.bus.back = service
del service
gc.collect()
bus = kept.pop()
assert bus.closed
for refused in (lambda: bus.publish(kind()), lambda: bus.publish_many([kind()]), lambda: bus.subscribe(kind, print)):
    with contextlib.suppress(ClosedError):
        refused()
        raise AssertionError("a closed dispatcher has accepted something")
assert bus.count(kind) == 0
assert bus.wait_idle(DEADLINE) and all(row.pending == 0 for row in bus.stats().topics), bus.stats()
bus.close(DEADLINE)
bus.back = bus
del bus, refused
gc.collect()
left = [one for one in alive() if not any(one is other for other in before)]
assert not left, left
"""
    )


def test_a_dispatcher_of_a_class_with_a_finalizer_of_its_own_leaves_no_thread(run_until_done):
    run_until_done(
        PRELUDE
        + """
class Own(Dispatcher):
    def __del__(self):
        pass

bus = Own(name="own")
bus.subscribe(int, print, where=lambda event: False)
bus.publish(1)
assert bus.wait_idle(DEADLINE)
threads = [thread for thread in threading.enumerate() if thread.name.startswith("own-")]
assert threads
del bus
for thread in threads:
    thread.join(DEADLINE)
    assert not thread.is_alive(), thread
"""
    )


def test_options_of_a_native_handler_need_one(bus):
    with pytest.raises(OptionError, match="a native handler"):
        bus._subscribe_class(int, print, _core.Options("native", "block", 10))
