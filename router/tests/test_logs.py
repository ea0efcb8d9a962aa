"""The log store: what it keeps, what it publishes, how the router's own lines look."""

import logging
import re
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from limits import DEADLINE
from ringcast import Dispatcher

from ringcast_router.config.model import Config
from ringcast_router.events import LogLines
from ringcast_router.logs import RING, TIME_FORMATS, Handler, LogStore, configure, format_time


@pytest.fixture
def store():
    with Dispatcher() as bus:
        yield LogStore(bus)


@pytest.fixture
def router_log():
    """The router's logger; put back as it was."""
    logger = logging.getLogger("ringcast_router")
    before, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = before
    logger.setLevel(level)


def test_a_source_keeps_what_it_wrote_and_the_views_what_several_wrote(store):
    for source, data in (("a", b"1"), ("proxy", b"2"), ("b", b"3"), ("a", b"4"), ("a", b"")):
        store.write(source, data)
    kept = {source: store.history(source) for source in ("a", "b", "proxy", "upstream", "", "nobody")}
    assert kept == {"a": b"14", "b": b"3", "proxy": b"2", "upstream": b"134", "": b"1234", "nobody": b""}
    assert store.sources() == ["a", "b", "proxy"]


@pytest.mark.parametrize("size", [1, 1000, RING, 3 * RING + 7])
def test_of_each_source_the_last_100_kib_are_kept(store, size):
    written = bytearray()
    for number in range(2 * RING // size + 2):
        written += (piece := bytes([number % 251]) * size)
        store.write("a", piece)
    for view in ("a", "upstream", ""):
        assert store.history(view) == written[-RING:]


@pytest.mark.parametrize(
    ("written", "lines", "expected"),
    [(b"", 5, ""), (b"a\nb\nc\n", 2, "b\nc"), (b"a\nb\nc", 2, "b\nc"), (b"a", 5, "a"), (b"\xff\n", 1, "\ufffd")],
)
def test_the_tail_is_the_last_lines_as_text(store, written, lines, expected):
    store.write("a", written)
    assert store.tail("a", lines) == expected


def test_all_that_is_written_is_published_in_order_from_any_thread(store):
    seen = []
    store._bus.subscribe(LogLines, seen.append)

    def write(source):
        for number in range(200):
            store.write(source, b"%d" % number)

    threads = [threading.Thread(target=write, args=(source,)) for source in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    store._bus.close()
    for source in "abcd":
        assert [int(event.data) for event in seen if event.source == source] == list(range(200))
    assert len(store.history("")) == 4 * sum(len(str(number)) for number in range(200))


def test_a_reader_that_hangs_delays_no_writer(store):
    release = threading.Event()
    store._bus.subscribe(LogLines, lambda event: release.wait(DEADLINE), policy="drop_oldest", max_queue=4)
    for number in range(1000):
        store.write("a", b"%d\n" % number)
    assert store.tail("a", 1) == "999"
    release.set()


def test_a_store_without_a_bus_and_one_whose_bus_is_closed_keep_all_the_same(store):
    store._bus.close()
    for one in (store, LogStore()):
        one.write("a", b"kept")
        assert one.history("a") == b"kept"


@pytest.mark.parametrize(
    ("which", "expected"), [("proxy", "ours\n"), ("upstream", "theirs\n"), ("both", "ours\ntheirs\n"), ("none", "")]
)
def test_what_the_configuration_names_is_copied_to_the_standard_output(store, router_log, capfdbinary, which, expected):
    configure(Config(log_to_stdout="both"), store)
    configure(Config(log_to_stdout=which), store)  # replaces it
    store.write("proxy", b"ours\n")
    store.write("a", b"the")
    store.write("a", b"irs\n")
    store._bus.close()
    assert capfdbinary.readouterr().out.decode() == expected


def test_a_standard_output_that_is_closed_harms_nobody(router_log, monkeypatch, tmp_path):
    closed = (tmp_path / "out").open("w")
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    failures = []
    with Dispatcher(on_error=failures.append) as bus:
        store = LogStore(bus)
        configure(Config(log_to_stdout="both"), store)
        store.write("a", b"x\n")
    assert failures == []


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", "[DEBUG] d\n[INFO] i\n[WARN] w\n[ERROR] e\n"),
        ("info", "[INFO] i\n[WARN] w\n[ERROR] e\n"),
        ("warn", "[WARN] w\n[ERROR] e\n"),
        ("error", "[ERROR] e\n"),
        ("loud", "[INFO] i\n[WARN] w\n[ERROR] e\n"),
    ],
)
def test_the_routers_lines_are_those_of_the_level(store, router_log, level, expected):
    configure(Config(log_level=level, log_to_stdout="none"), store)
    log = logging.getLogger("ringcast_router.part")
    log.debug("d")
    log.info("%s", "i")
    log.warning("w")
    log.error("e")
    assert store.history("proxy").decode() == expected


def test_a_traceback_follows_its_line(store, router_log):
    configure(Config(log_to_stdout="none"), store)
    try:
        raise ValueError("bad")
    except ValueError:
        router_log.exception("it failed")
    assert re.fullmatch(r"(?s)\[ERROR\] it failed\nTraceback .*ValueError: bad\n", store.history("proxy").decode())


def test_configuring_again_replaces_the_handler(store, router_log):
    for _ in range(3):
        configure(Config(log_to_stdout="none"), store)
    assert sum(isinstance(handler, Handler) for handler in router_log.handlers) == 1


def test_a_format_that_does_not_exist_writes_no_time_and_is_told_of(store, router_log):
    configure(Config(log_time_format="nonsense", log_to_stdout="none"), store)
    router_log.info("hello")
    first, second = store.history("proxy").decode().splitlines()
    assert first.startswith("[WARN] logTimeFormat 'nonsense' is none of ansic, unixdate,")
    assert second == "[INFO] hello"


def test_a_line_begins_with_the_time_in_the_configured_format(store, router_log):
    configure(Config(log_time_format="RFC3339", log_to_stdout="none"), store)
    router_log.info("hello")
    line = store.history("proxy").decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) \[INFO\] hello\n", line)


ZONE = timezone(timedelta(hours=-7), "MST")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ansic", "Thu Jan  5 15:04:05 2006"),
        ("unixdate", "Thu Jan  5 15:04:05 MST 2006"),
        ("rubydate", "Thu Jan 05 15:04:05 -0700 2006"),
        ("rfc822", "05 Jan 06 15:04 MST"),
        ("rfc822z", "05 Jan 06 15:04 -0700"),
        ("rfc850", "Thursday, 05-Jan-06 15:04:05 MST"),
        ("rfc1123", "Thu, 05 Jan 2006 15:04:05 MST"),
        ("rfc1123z", "Thu, 05 Jan 2006 15:04:05 -0700"),
        ("rfc3339", "2006-01-05T15:04:05-07:00"),
        ("rfc3339nano", "2006-01-05T15:04:05.00102-07:00"),
        ("kitchen", "3:04PM"),
        ("stamp", "Jan  5 15:04:05"),
        ("stampmilli", "Jan  5 15:04:05.001"),
        ("stampmicro", "Jan  5 15:04:05.001020"),
        ("stampnano", "Jan  5 15:04:05.001020000"),
    ],
)
def test_the_formats_of_the_time_are_those_of_go(name, expected):
    assert format_time(datetime(2006, 1, 5, 15, 4, 5, 1020, ZONE), name) == expected


def test_every_format_was_tried_and_whole_seconds_and_utc_are_written_as_go_writes_them():
    noon = datetime(2006, 1, 5, 0, 0, 0, 0, UTC)
    assert format_time(noon, "rfc3339nano") == "2006-01-05T00:00:00Z"
    assert format_time(noon, "kitchen") == "12:00AM"
    tried = test_the_formats_of_the_time_are_those_of_go.pytestmark[0].args[1]
    assert {name for name, _ in tried} == TIME_FORMATS.keys()


async def test_what_a_model_wrote_is_forgotten_with_it(serve, responder, until):
    """Configurations come and go for as long as the router runs."""
    text = f"models:\n  A: {{cmd: '{responder('A')}'}}\n"
    served = await serve(text)
    await served.ask("A")
    logs = served.router.logs
    await until(lambda: logs.history("A"))
    written = logs.history("A")
    for _ in range(2):
        served.file.write_text("models: {}\n")
        assert (await served.post("/api/reload")).json["drained"] == ["A"]
        await until(lambda: "A" not in logs.sources())
        served.file.write_text(text)
        await served.post("/api/reload")
        await served.ask("A")
        await until(lambda: logs.history("A"))
    assert logs.history("upstream").startswith(written)
