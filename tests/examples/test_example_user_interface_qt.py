"""examples/user_interface_qt.py: a window that is updated from the events of worker threads."""

import re
import threading

import pytest


@pytest.fixture
def example(load_example, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    return load_example("user_interface_qt")


@pytest.fixture
def application(example):
    """The application of Qt, of which there may be one at a time."""
    application = example.QApplication([])
    yield application
    application.shutdown()


@pytest.fixture
def window(application, example, bus):
    window = example.Window(bus, ["small", "large"])
    window.show()
    yield window
    window.close()


def shown(window):
    return {job: (bar.value(), bar.maximum()) for job, bar in window.bars.items()}


def publish(example, bus, events):
    for number in range(events):
        bus.publish(example.Progress("small", number + 1, events, number))
        bus.publish(example.Progress("large", number + 1, 2 * events, number))


def test_however_many_events_while_the_window_is_busy_one_wake_shows_the_newest(
    example, application, window, bus, spawn, deadline
):
    spawn(publish, example, bus, 5_000).result(deadline)
    assert bus.wait_idle(deadline)
    assert window.batches == 0  # the thread of the window has been here all the time
    application.processEvents()
    assert window.batches == 1
    assert shown(window) == {"small": (5_000, 5_000), "large": (5_000, 10_000)}
    assert window.primes["small"].text() == "4,999"
    assert window.subscription.delivered + window.subscription.dropped == 10_000


def test_the_next_events_wake_the_window_again(example, application, window, bus, eventually):
    for done in (1, 2, 3):
        bus.publish(example.Progress("small", done, 10, 0))
        eventually(lambda done=done: application.processEvents() or window.batches == done)
        assert shown(window)["small"] == (done, 10)


def test_the_window_is_updated_in_its_own_thread(example, application, bus, eventually):
    threads = []
    mailbox = example.Mailbox(lambda batch: threads.append(threading.get_ident()))
    bus.subscribe(mailbox.put)
    bus.publish(example.Progress("small", 1, 10, 0))
    eventually(lambda: application.processEvents() or threads)
    assert threads == [threading.get_ident()]


def test_a_busy_window_holds_up_neither_publishers_nor_close(example, window, bus, spawn, deadline):
    spawn(publish, example, bus, 1_000).result(deadline)
    bus.close(deadline)  # in the thread of the window, which therefore shows nothing
    assert window.subscription.pending == 0


def test_when_all_jobs_are_done_the_title_says_so(example, application, window, bus, eventually):
    bus.publish(example.Progress("small", 10, 10, 4))
    bus.publish(example.Progress("large", 5, 5, 1))
    eventually(lambda: application.processEvents() or window.windowTitle() == "Primes: done")


def test_closing_the_window_ends_its_subscription_and_the_work(example, application, bus, spawn, deadline):
    stop = threading.Event()
    window = example.Window(bus, ["small"], on_close=stop.set)
    window.show()
    work = spawn(example.count_primes, bus, "small", range(10**9), stop)
    window.close()
    work.result(deadline)
    assert not window.subscription.active
    assert bus.count(example.Progress) == 0


def test_the_primes_are_counted(example, make_bus, recorder):
    bus = make_bus()
    bus.subscribe(example.Progress, recorder)
    example.count_primes(bus, "small", range(100), threading.Event())
    assert recorder.wait_for(100)[-1] == example.Progress("small", 100, 100, 25)


@pytest.mark.usefixtures("example")
def test_as_a_program(run_example):
    quiet = "default.warning=false"  # the offscreen plugin tells what it does not support
    delivered, updates = run_example("user_interface_qt", "--close", QT_LOGGING_RULES=quiet)
    counts = re.fullmatch(r"(\d+) events delivered, (\d+) replaced by newer ones", delivered).groups()
    assert sum(map(int, counts)) == 25_000
    assert 1 <= int(updates.split()[0]) <= 25_000
