"""The benchmark suite: its arguments and statistics, what it says of results, and that it notices lost events."""

import itertools
import json
import platform
import time
from contextlib import contextmanager

import pytest
from rich.console import Console

from ringcast.__main__ import main
from ringcast.bench import latency, memory, throughput, timing
from ringcast.bench.machine import noise
from ringcast.bench.report import show, show_comparison
from ringcast.bench.results import Results, ResultsError, Row, compare
from ringcast.bench.timing import in_turn, least, per_call, percentiles, ratio, repeat_call, spread
from ringcast.bench.work import Channel, Load, LostEvents, Shape, Way, count_events, ignore_events

pytestmark = pytest.mark.thread_unsafe(reason="what a benchmark counts by and measures is the process's")

SMALL = ["--types", "1", "--subscribers", "1,2", "--repeats", "2", "--seconds", "0.001", "--rates", "1000", "--quick"]


def row(values, mode="queued", way="Ringcast", unit="ns/event", section="throughput", types=1, subscribers=1, **rest):
    return Row(section, mode, way, types, subscribers, unit, tuple(map(float, values)), **rest)


def results(*rows, **rest):
    machine = {"processor": "abacus", "cpus": "2", "system": "Linux x86_64", "python": "CPython 3.11.7"}
    return Results("0.1.0", {**machine, **rest.pop("machine", {})}, rows, **rest)


def said(show_it, *arguments):
    console = Console(width=160)
    with console.capture() as captured:
        show_it(*arguments, console)
    return captured.get()


# --- the command ------------------------------------------------------------------------------------------------


def test_a_small_run_measures_every_way_of_a_mode_and_writes_it(tmp_path, capsys):
    file = tmp_path / "new.json"
    assert main(["bench", *SMALL, "--sections", "throughput", "--modes", "queued,direct", "--json", str(file)]) == 0
    output = capsys.readouterr().out
    assert "queued: ns for an event" in output
    assert "direct: ns for an event" in output
    found = Results.read(file)
    ours = [row for row in found.rows if row.way == "Ringcast"]
    assert [(row.mode, row.types, row.subscribers) for row in ours] == [
        ("queued", 1, 1),
        ("queued", 1, 2),
        ("direct", 1, 1),
        ("direct", 1, 2),
    ]
    assert all(len(row.values) == 2 and min(row.values) > 0 and row.events > 0 for row in found.rows)
    assert {"SimpleQueue, a thread each", "dict and loop"} <= {row.way for row in found.rows}
    assert found.reference > 0


def test_results_that_were_written_are_shown_and_compared_without_measuring(tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    results(row([100, 101, 102])).write(old)
    results(row([200, 201, 202])).write(new)
    assert main(["bench", "--from", str(old), "--compare", str(old)]) == 0
    assert "1 of 1 rows that both have are the same" in capsys.readouterr().out
    assert main(["bench", "--from", str(new), "--compare", str(old)]) == 1
    assert "+99%" in capsys.readouterr().out
    assert main(["bench", "--from", str(old), "--compare", str(new)]) == 0
    assert main(["bench", "--from", str(new), "--compare", str(old), "--bound", "150"]) == 0


def test_a_peer_that_has_become_slower_is_no_failure(tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    results(row([100, 101], way="blinker")).write(old)
    results(row([200, 201], way="blinker")).write(new)
    assert main(["bench", "--from", str(new), "--compare", str(old)]) == 0
    assert "slower" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--modes", "queued,telepathy"], "there is no 'telepathy'"),
        (["--sections", ""], "there is no ''"),
        (["--subscribers", "0"], "not a whole number from 1"),
        (["--types", "1,x"], "not a whole number from 1"),
        (["--repeats", "-1"], "not a whole number from 1"),
        (["--seconds", "0"], "not a number of seconds"),
        (["--bound", "nan"], "not a percentage"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_be_right(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_what_cannot_be_read_or_drawn_is_said_before_anything_is_measured(tmp_path, capsys):
    assert main(["bench", "--compare", str(tmp_path / "none.json")]) == 1
    assert "none.json cannot be read" in capsys.readouterr().err
    assert main(["bench", "--plot", str(tmp_path / "plot.pdf")]) == 2
    assert "a plot is an .svg or .png file, not plot.pdf" in capsys.readouterr().err


def test_help_takes_neither_rich_nor_matplotlib_nor_a_peer(run_python):
    program = (
        "import sys; sys.argv = ['ringcast', 'bench', '--help']\n"
        "from ringcast.__main__ import main\n"
        "try: main()\nexcept SystemExit as stop: assert stop.code == 0\n"
        "print(sorted({'rich', 'matplotlib', 'blinker', 'psutil', 'asyncio'} & set(sys.modules)))"
    )
    done = run_python(program)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_the_suite_is_imported_without_what_is_optional(run_python):
    program = (
        "import sys\n"
        "import ringcast.bench\n"
        "from ringcast.bench import latency, memory, throughput, timing\n"
        "optional = {'rich', 'matplotlib', 'blinker', 'pyee', 'psygnal', 'pubsub', 'psutil', 'pyperf', 'numpy'}\n"
        "print(sorted(optional & set(sys.modules)))"
    )
    done = run_python(program)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


# --- what is measured -----------------------------------------------------------------------------------------


def test_peers_that_are_not_installed_are_named_and_left_out():
    ways = [
        Way("there", "queued", lambda load: None),
        Way("not there", "queued", lambda load: None, "no_such_module", "no-such-package"),
    ]
    there, skipped = throughput.available(ways)
    assert [way.name for way in there] == ["there"]
    assert skipped == {"not there": "no-such-package is not installed"}
    assert "skipped: not there: no-such-package is not installed" in said(show, results(skipped=skipped))


def test_every_mode_has_one_of_ours_and_one_of_theirs():
    for mode in throughput.MODES:
        ways = [way for way in throughput.ALL if way.mode == mode]
        assert ways[0].name.startswith("Ringcast")
        assert not ways[-1].name.startswith("Ringcast")


@pytest.mark.parametrize("mode", throughput.MODES)
def test_every_way_delivers_all_events_to_all_subscribers(mode):
    ways, _ = throughput.available(throughput.ALL)
    shape = Shape(2, 3)
    rows = throughput.measure(shape, [way for way in ways if way.mode == mode], 1, 0.001, "throughput", lambda: None)
    assert rows
    assert all(row.events % shape.types == 0 and (row.types, row.subscribers) == shape for row in rows)


@contextmanager
def forgetful(load):
    """Calls all handlers but the last."""
    (handlers,) = load.handlers(count_events)

    def send(event):
        for handler in handlers[:-1]:
            handler(event)

    yield Channel([send], [object()])


def test_a_way_that_loses_events_ends_the_benchmark():
    way = Way("forgetful", "direct", forgetful)
    with pytest.raises(LostEvents, match="forgetful, direct, 1x2: handler 1 of type 0 has had 0 of 1 events"):
        throughput.measure(Shape(1, 2), [way], 1, 0.001, "throughput", lambda: None)


def test_an_event_too_many_is_an_error_as_well():
    load = Load(Shape(1, 1))
    ((handler,),) = load.handlers(count_events)
    load.expect(1)
    handler("event")
    load.check()
    handler("event")
    with pytest.raises(LostEvents, match="has had 2 of 1 events"):
        load.check()


def test_a_way_can_deliver_to_handlers_that_do_not_count():
    load = Load(Shape(1, 2), ignore_events)
    ((one, other),) = load.handlers()
    assert one("event") is other("event") is None
    assert one.__code__ is not other.__code__
    load.expect(1)
    load.check()


def test_the_ways_are_taken_in_turn_and_each_begins_once():
    calls = []

    def way(name):
        @contextmanager
        def opened(load):
            ((handler,),) = load.handlers(count_events)

            def send(event):
                calls.append(name)
                handler(event)

            yield Channel([send], [object()])

        return Way(name, "direct", opened)

    def begin():
        calls.append("|")

    throughput.measure(Shape(1, 1), [way("a"), way("b")], 2, 0.0005, "throughput", begin)
    repeats = "".join(calls).split("|")[1:]  # what comes before is calibration
    assert [list(dict.fromkeys(repeat)) for repeat in repeats] == [["a", "b"], ["b", "a"]]


def test_a_way_is_not_asked_for_more_handlers_than_it_can_serve():
    few = Way("few", "queued", lambda load: None, most=10)
    many = Way("many", "queued", lambda load: None)
    cases = throughput.matrix([few, many], ["queued", "direct"], [Shape(1, 10), Shape(2, 10)])
    assert [(mode, shape, [way.name for way in ways]) for mode, shape, ways in cases] == [
        ("queued", Shape(1, 10), ["few", "many"]),
        ("queued", Shape(2, 10), ["many"]),
    ]


def test_latency_has_the_percentiles_of_all_events_of_every_way():
    ways = latency.able(throughput.available(throughput.ALL)[0], ["queued", "direct", "asyncio"])
    rows = list(latency.measure(ways, [2000], 2, 0.01, lambda: None))
    assert {row.mode for row in rows} == {"queued", "direct", "asyncio", "queued, busy publisher"}
    for each in rows:
        rate, events = (500, 5) if each.mode == "queued, busy publisher" else (2000, 20)
        assert (each.rate, each.events, len(each.values)) == (rate, events, 2)
        assert 0 < each.percentiles["p50"] <= each.percentiles["p99"] <= each.percentiles["p99.9"]


def test_latency_counts_the_wait_behind_a_slow_event_but_not_the_senders_own_sleep(monkeypatch):
    now = 0

    class FakeTime:
        @staticmethod
        def perf_counter_ns():
            return now

        @staticmethod
        def sleep(seconds):
            nonlocal now
            now += round(seconds * 1e9) + 1000  # oversleeps by 1 us

    sent = []

    def send(stamp):
        nonlocal now
        sent.append((stamp.due, now))
        now += 2_500_000 if len(sent) == 1 else 0  # the first one holds up the sender for 2.5 periods

    monkeypatch.setattr(latency, "time", FakeTime)
    latency.offer(send, 1000, 5)
    late = [now - due for due, now in sent]
    assert late == [0, 1_501_000, 501_000, 0, 0]


def test_a_busy_publisher_computes_after_each_event():
    sent = []
    latency.offer(lambda stamp: sent.append(time.perf_counter_ns()), 1_000_000, 3, busy=0.002)
    assert min(after - before for before, after in itertools.pairwise(sent)) >= 2_000_000


@pytest.mark.parametrize("name", memory.HOLDERS)
def test_memory_holds_all_events_at_once(name):
    pytest.importorskip("psutil")
    at_least = 7 if platform.libc_ver()[0] == "glibc" else 0  # bytes: a pointer, but for what was free before
    assert memory.held_by_a_process(name, 2, 50_000, timeout=30) >= at_least


# --- timing and statistics ----------------------------------------------------------------------------------------


def test_what_is_compared_is_measured_in_turn_and_another_one_begins_each_time():
    calls = []
    measures = [lambda name=name: calls.append(name) or len(calls) for name in "abc"]
    found = in_turn(measures, 4, lambda: calls.append("|"))
    assert "".join(calls) == "|abc|bca|cab|abc"
    assert found == [[2, 8, 11, 14], [3, 6, 12, 15], [4, 7, 10, 16]]
    assert in_turn([], 2) == []


def test_a_call_is_timed_without_its_loop(monkeypatch):
    now, calls = 0.0, []

    def clock():
        return now

    def loop(times):
        nonlocal now
        now += 3.0 if not calls else 2.0  # the first part meets with an interruption
        repeat_call(calls.append, "event", times)

    monkeypatch.setattr(timing.time, "perf_counter", clock)
    assert per_call(loop, 200) == 2.0 / 20 * 1e9  # by this clock the empty loop takes no time
    assert len(calls) == 200


def test_the_least_is_what_nothing_has_disturbed():
    values = iter([3.0, 1.0, 2.0])
    assert least(lambda: next(values), 3) == 1.0


def test_spread_is_median_and_quartiles():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == (3.0, 2.0, 4.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]).relative == pytest.approx(2 / 3)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_percentiles_are_those_of_the_values():
    found = percentiles([float(number) for number in range(1, 1002)])
    assert found == pytest.approx({"p50": 501, "p99": 991, "p99.9": 1000})


def test_a_ratio_is_that_of_repeats_and_not_of_medians():
    # the machine is three times as slow in the second repeat, for both
    assert ratio([20, 60, 20], [10, 30, 10]) == 2


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ([100, 101, 102], [130, 131, 132], "slower"),
        ([130, 131, 132], [100, 101, 102], "faster"),
        ([100, 101, 102], [105, 106, 107], "same"),  # within the bound
        ([100, 100, 160], [90, 130, 170], "same"),  # within the spread
    ],
)
def test_slower_is_what_is_beyond_bound_and_spread(old, new, verdict):
    (found,) = compare([row(old)], [row(new)], 0.1)
    assert found.verdict == verdict


def test_only_what_both_have_is_compared():
    old = [row([1], subscribers=1), row([1], subscribers=2)]
    new = [row([1], subscribers=2), row([1], subscribers=3), row([1], mode="direct", subscribers=1)]
    assert [each.key.subscribers for each in compare(old, new, 0.1)] == [2]


def test_a_comparison_says_what_makes_it_doubtful():
    old = results(row([1.0]), reference=10.0)
    new = results(row([1.0]), reference=15.0, machine={"python": "CPython 3.14.0"})
    text = said(show_comparison, compare(old.rows, new.rows, 0.1), old, new, 0.1)
    assert "DOUBTFUL: python was 'CPython 3.11.7' and is 'CPython 3.14.0'" in text
    assert "DOUBTFUL: the machine has another speed: a loop in plain Python took 10 ns and now takes 15" in text


def test_a_quiet_machine_gets_no_warning_and_a_noisy_one_does():
    steady, wide = row([100, 100, 101]), row([100, 200, 300])
    assert noise(0.3, 2, [10.0, 10.1, 10.2], [steady]) == []
    busy, changed, spreads = noise(3.5, 2, [10.0, 12.0, 15.0], [wide, steady])
    assert busy == "other programs were running: load average 3.5 on 2 CPUs before the start"
    assert changed.startswith("the machine's speed changed")
    assert spreads == "1 of 2 rows spread by more than 15%"
    assert "NOISY MACHINE: other programs were running" in said(show, results(steady, warnings=(busy,)))


# --- JSON, Markdown and plots ------------------------------------------------------------------------------------


def test_results_are_the_same_when_they_are_read_again(tmp_path):
    written = results(
        row([1.5, 2.5], events=100),
        row([3.0], "direct", "blinker", "us", "latency", rate=1000, percentiles={"p50": 3.0, "p99": 4.0, "p99.9": 5.0}),
        skipped={"pyee": "pyee is not installed"},
        warnings=("noise",),
        reference=12.5,
    )
    file = tmp_path / "results.json"
    written.write(file)
    assert Results.read(file) == written
    assert json.loads(file.read_text())["format"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(format=2), "has no results of format 1"),
        (lambda found: found.pop("rows"), "not whole"),
        (lambda found: found.update(more=1), "not whole"),
        (lambda found: found["rows"][0].pop("unit"), "not whole"),
        (lambda found: found["rows"][0].update(unit="furlongs"), "not whole"),
        (lambda found: found["rows"][0].update(values=[]), "not whole"),
    ],
)
def test_a_file_that_is_not_as_written_is_refused(tmp_path, change, message):
    file = tmp_path / "results.json"
    results(row([1.0])).write(file)
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
    with pytest.raises(ResultsError, match=message):
        Results.read(file)


def test_markdown_has_the_tables_and_what_speaks_against_them(tmp_path):
    old, page = tmp_path / "old.json", tmp_path / "page.md"
    tails = {"p50": 3.0, "p99": 4.0, "p99.9": 5000.0}
    results(
        row([100, 100, 110]),
        row([200, 200, 220], subscribers=10),
        row([150, 150, 165], way="SimpleQueue, one thread"),
        row([3.0], unit="us", section="latency", rate=1000, percentiles=tails),
        skipped={"pyee": "pyee is not installed"},
        warnings=("other programs were running",),
    ).write(old)
    assert main(["bench", "--from", str(old), "--markdown", str(page)]) == 0
    first, legend, *rest = page.read_text(encoding="utf-8").split("\n\n")
    assert first == "ringcast 0.1.0, CPython 3.11.7, Linux x86_64, abacus, 2 CPUs."
    assert legend.startswith("Types x subscribers")
    assert rest == [
        "**queued: ns for an event that reaches all subscribers**",
        "|  | 1x1 | 1x10 |\n"
        "| --- | ---: | ---: |\n"
        "| Ringcast | 100 ±5% | 200 ±5% |\n"
        "| SimpleQueue, one thread | 150 ±5% x1.5 | - |",
        "**queued: µs from when an event was due to its handler**",
        "|  | p50 at 1,000/s | p99 at 1,000/s | p99.9 at 1,000/s |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| Ringcast | 3 | 4 | 5,000 |",
        "Skipped: pyee: pyee is not installed.",
        "Noisy machine: other programs were running.\n",
    ]


@pytest.mark.parametrize("values", [[[0.0], [8.0]], [[0.0], [0.0]], [[-1.0], [8.0]]])
def test_a_plot_has_room_for_nothing(tmp_path, values):
    pytest.importorskip("matplotlib")
    from ringcast.bench.plots import draw

    ways = [row(own, unit="bytes/event", section="memory", way=str(at)) for at, own in enumerate(values)]
    draw(results(*ways), tmp_path / "all.svg")
    assert "memory for an event" in (tmp_path / "all.svg").read_text()


def test_the_plot_is_small_text_with_a_part_for_everything(tmp_path):
    pytest.importorskip("matplotlib")
    from ringcast.bench.plots import draw

    tails = {"p50": 3.0, "p99": 4.0, "p99.9": 5.0}
    everything = results(
        row([1.5, 2.5]),
        row([15, 16], subscribers=100),
        row([3.0, 3.5], way="SimpleQueue, one thread"),
        row([3.0], unit="us", section="latency", rate=1000, percentiles=tails),
        row([8.0], unit="bytes/event", section="memory"),
        row([8.0, 9.0], section="scaling"),
        row([80.0, 90.0], section="scaling", subscribers=1000),
        row([9.0, 9.0], section="scaling", types=1000),
    )
    draw(everything, tmp_path / "one.svg")
    draw(everything, tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    for label in ("queued: time for an event", "SimpleQueue, one thread", "p99.9", "memory for an event", "abacus"):
        assert label in text
    for label in ("10 ns", "1,000", "10 B"):
        assert label in text
    draw(everything, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
