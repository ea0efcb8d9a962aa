"""Handlers of event loops that publish what only they, or handlers that wait for them, could make room for.

As with queued handlers (test_reentrancy.py), nothing may wait for itself: where that would be, an event goes past
max_queue. Where the wait can end, it is waited.
"""

import asyncio
import threading
from dataclasses import dataclass

import pytest

from ringcast import Dispatcher, LoopBlockedError

QUEUE = 2


@dataclass(frozen=True, slots=True)
class Ping:
    left: int


@dataclass(frozen=True, slots=True)
class Pong:
    left: int


@pytest.fixture
def run(loop_factory, deadline):
    """Runs a coroutine function with a dispatcher of a short queue, within the deadline."""

    def start(main):
        async def limited():
            bus = Dispatcher(max_queue=QUEUE)
            async with asyncio.timeout(deadline):
                await main(bus)
                await bus.aclose()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(limited())

    return start


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_handler_that_apublishes_into_its_own_full_queue(run, concurrency):
    done = 0

    async def main(bus):
        async def handler(ping: Ping) -> None:
            nonlocal done
            if ping.left:
                for _ in range(3):
                    await bus.apublish(Ping(ping.left - 1))
            done += 1

        bus.subscribe(handler, concurrency=concurrency)
        await bus.apublish(Ping(4))
        while done < 1 + 3 + 9 + 27 + 81:
            await asyncio.sleep(0.001)

    run(main)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_handler_of_batches_that_apublishes_into_its_own_full_queue(run, concurrency):
    done = 0

    async def main(bus):
        async def handler(pings: list[Ping]) -> None:
            nonlocal done
            for ping in pings:
                if ping.left:
                    for _ in range(3):
                        await bus.apublish(Ping(ping.left - 1))
                done += 1

        bus.subscribe(handler, batch=QUEUE, concurrency=concurrency)
        await bus.apublish(Ping(4))
        while done < 1 + 3 + 9 + 27 + 81:
            await asyncio.sleep(0.001)

    run(main)


@pytest.mark.parametrize("way", ["apublish", "publish"])
@pytest.mark.parametrize("other", ["queued", "asyncio"])
def test_two_handlers_that_fill_each_others_queues(run, way, other):
    done = [0, 0]

    async def main(bus):
        async def on_ping(ping: Ping) -> None:
            if ping.left:
                for _ in range(3):
                    if way == "apublish":
                        await bus.apublish(Pong(ping.left - 1))
                    else:
                        bus.publish(Pong(ping.left - 1))
            done[0] += 1

        async def on_pong(pong: Pong) -> None:
            if pong.left:
                for _ in range(3):
                    await bus.apublish(Ping(pong.left - 1))
            done[1] += 1

        def on_pong_in_a_worker(pong: Pong) -> None:
            if pong.left:
                for _ in range(3):
                    bus.publish(Ping(pong.left - 1))
            done[1] += 1

        bus.subscribe(on_ping)
        bus.subscribe(on_pong if other == "asyncio" else on_pong_in_a_worker)
        bus.publish(Ping(4))
        while done != [1 + 9 + 81, 3 + 27]:
            await asyncio.sleep(0.001)

    run(main)


def test_a_handler_waits_where_the_room_will_come(run, gate):
    """A chain, and no circle: an async handler feeds a second, that one a queued handler, which is held."""
    released = threading.Event()

    async def main(bus):
        async def first(ping: Ping) -> None:
            await bus.apublish(Pong(ping.left))

        async def second(pong: Pong) -> None:
            await bus.apublish(pong.left)

        def last(number: int) -> None:
            gate.hold()

        subscriptions = [bus.subscribe(handler) for handler in (first, second, last)]
        publishing = asyncio.create_task(publish_many(bus))
        await asyncio.to_thread(gate.wait_until_held)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert not publishing.done()
        assert all(subscription.pending <= QUEUE + 1 for subscription in subscriptions)
        released.set()
        gate.open()
        await publishing

    async def publish_many(bus):
        for number in range(20):
            await bus.apublish(Ping(number))
        assert released.is_set()

    run(main)


@pytest.mark.parametrize("wait", ["with", "wait_idle", "close"])
def test_a_wait_in_the_loop_for_a_worker_that_waits_for_the_loop_is_given_up(run, wait):
    async def main(bus):
        async def on_pong(pong: Pong) -> None:
            seen.append(pong.left)

        def on_ping(ping: Ping) -> None:
            for _ in range(2 * QUEUE):
                bus.publish(Pong(ping.left))

        seen = []
        feed = bus.subscribe(Pong, on_pong)
        subscription = bus.subscribe(on_ping)
        bus.publish(Ping(0))
        while feed.pending < QUEUE:  # without giving way to the loop
            threading.Event().wait(0.001)

        def leave():
            with subscription:
                pass

        with pytest.raises(LoopBlockedError):
            {"with": leave, "wait_idle": bus.wait_idle, "close": bus.close}[wait]()
        while subscription.pending or feed.pending:
            await asyncio.sleep(0.001)
        assert len(seen) == 2 * QUEUE

    run(main)
