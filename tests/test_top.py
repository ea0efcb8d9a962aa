"""top: `python -m ringcast top`, and `ringcast.top.watch` for programs of one's own."""

import dataclasses
import io
import re
import threading
from dataclasses import dataclass

import pytest
from rich.console import Console

from ringcast import top
from ringcast.__main__ import main
from ringcast.stats import DispatcherStats, SubscriptionStats, TopicStats


@dataclass
class Tick:
    price: float


TICK = f"{__name__}.Tick"
COLUMNS = ("per s", "total", "pending", "most", "dropped", "filtered", "errors", "mean")
HEADER = ("event, handler", "mode", "policy", *COLUMNS)


@pytest.fixture
def plain():
    """A console that is no terminal."""
    return Console(file=io.StringIO(), force_terminal=False)


@pytest.fixture
def make_terminal():
    """Makes consoles that are terminals of a given width."""

    def make(width):
        return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=40)

    return make


def text_of(console):
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", console.file.getvalue())


def rows(text):
    """The lines of a table, each a tuple of its columns; empty ones are left out."""
    return [tuple(re.split(r" {2,}", line.strip())) for line in text.splitlines()]


IDLE = SubscriptionStats(
    handler="shop.book",
    mode="queued",
    policy="block",
    active=True,
    delivered=0,
    dropped=0,
    filtered=0,
    errors=0,
    pending=0,
    high_water=0,
    handler_seconds=None,
)


def subscription(**different):
    return dataclasses.replace(IDLE, **different)


def stats_of(*subscriptions, published=0, pending=0, high_water=0, event_class=Tick):
    topic = TopicStats(7, event_class, published, pending, high_water, subscriptions)
    return DispatcherStats("shop", False, 2, (topic,))


def shown(console, *looks):
    """What a console shows at the last of some looks, each a second after the one before."""
    view = top._View(console)
    for now, stats in enumerate(looks):
        last = view.show(stats, float(now))
    console.print(last)
    return text_of(console)


# What is shown --------------------------------------------------------------------------------------


def test_the_first_look_has_the_numbers_and_no_rates(plain):
    plain.width = 200
    sub = subscription(delivered=1234567, dropped=1, filtered=2, errors=3, pending=4, high_water=5)
    text = shown(plain, stats_of(sub, published=1234571, pending=4, high_water=5))
    assert text.splitlines()[0] == "shop: open, 2 workers"
    assert rows(text)[1:] == [
        HEADER,
        (TICK, "1,234,571", "4", "5"),
        ("shop.book", "queued", "block", "1,234,567", "4", "5", "1", "2", "3"),
    ]


def test_several_classes_are_one_topic(plain):
    plain.width = 200
    found = rows(shown(plain, stats_of(subscription(), published=7, event_class=(Tick, dict))))
    assert found[2][:2] == (f"{TICK} | dict", "7")


def test_rates_are_those_since_the_look_before(plain):
    plain.width = 200
    looks = [stats_of(subscription(delivered=count), published=2 * count) for count in (100, 350)]
    found = rows(shown(plain, *looks))
    assert found[2][:3] == (TICK, "500", "700")
    assert found[3][:5] == ("shop.book", "queued", "block", "250", "350")


def test_subscriptions_of_the_same_name_have_rates_of_their_own(plain):
    plain.width = 200
    looks = [stats_of(subscription(delivered=1), subscription(delivered=count)) for count in (10, 30)]
    assert [row[3] for row in rows(shown(plain, *looks))[3:]] == ["0", "20"]


def test_a_subscription_that_is_new_or_another_has_no_rate(plain):
    plain.width = 200
    before = stats_of(subscription(delivered=100))
    after = stats_of(subscription(delivered=5), subscription(handler="shop.new", delivered=5))
    assert [row[3:] for row in rows(shown(plain, before, after))[3:]] == [("5", "0", "0", "0", "0", "0")] * 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.5 s"), (0.0125, "12.5 ms"), (0.0000251, "25.1 us"), (0.0000001, "0.1 us")]
)
def test_the_mean_time_of_a_call_has_a_fitting_unit(plain, seconds, text):
    plain.width = 200
    assert rows(shown(plain, stats_of(subscription(handler_seconds=seconds))))[3][-1] == text


def test_a_cancelled_subscription_and_an_open_type_id_say_so(plain):
    plain.width = 200
    found = rows(shown(plain, stats_of(subscription(active=False), event_class=None)))
    assert found[2][0] == "0x00000007"
    assert found[3][0] == "shop.book (cancelled)"


def test_names_that_a_terminal_cannot_show_are_escaped(plain):
    plain.width = 200
    assert r"a\x1b[31m[bold]" in shown(plain, stats_of(subscription(handler="a\x1b[31m[bold]")))


@pytest.mark.parametrize("width", [80, 100, 109, 110, 160])
def test_in_a_terminal_it_fits_the_width(make_terminal, width):
    sub = subscription(
        handler="a_shop.with_a.very_long.name.Orders.book",
        policy="drop_newest",
        delivered=12345678,
        dropped=99999,
        errors=100000,
        filtered=1234567890,
        pending=50000,
        high_water=50000,
        handler_seconds=0.9999,
    )
    text = shown(make_terminal(width), stats_of(sub, published=12345678))
    assert max(len(line) for line in text.splitlines()) <= width
    assert "Orders.book" in text  # the beginning of a name is cut, not the end
    for number in ("12.3M", "99,999", "100k", "1.23G", "50,000", "999.9 ms"):
        assert number in text
    assert ("drop_newest" in text) == (width >= 110)


# watch ----------------------------------------------------------------------------------------------


def test_watch_prints_one_plain_table_where_there_is_no_terminal(bus, recorder, plain):
    bus.subscribe(Tick, recorder)
    bus.publish(Tick(1.0))
    recorder.wait_for(1)
    top.watch(bus, seconds=0.01, console=plain)
    lines = text_of(plain).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("ringcast: open, ")
    assert [row[0] for row in rows(text_of(plain))[1:]] == ["event, handler", TICK, "conftest.Recorder"]


def test_watch_leaves_the_console_as_it_was(bus, plain):
    plain.width = 90
    top.watch(bus, seconds=0.01, console=plain)
    assert plain.width == 90


def test_watch_shows_the_numbers_live_in_a_terminal(bus, make_terminal):
    console = make_terminal(120)

    def handle(tick: Tick) -> None: ...

    bus.subscribe(handle)
    bus.publish(Tick(1.0))
    top.watch(bus, seconds=0.05, interval=0.01, console=console)
    text = text_of(console)
    assert text.count("ringcast: open") >= 2
    assert "handle" in text


def test_watch_ends_when_the_dispatcher_is_closed(bus, make_terminal, spawn, deadline):
    class Looked(io.StringIO):
        """Tells when something is written."""

        written = threading.Event()

        def write(self, text):
            self.written.set()
            return super().write(text)

    console = Console(file=Looked(), force_terminal=True, width=120, height=40)
    watching = spawn(lambda: top.watch(bus, interval=0.01, console=console))
    assert Looked.written.wait(deadline)
    bus.close()
    watching.result(deadline)
    assert "ringcast: closed, 0 workers" in text_of(console)


@pytest.mark.parametrize("arguments", [{"seconds": 0}, {"seconds": -1.0}, {"interval": 0}, {"interval": float("nan")}])
def test_watch_refuses_times_that_are_none(bus, arguments):
    with pytest.raises(ValueError, match="must be more than 0"):
        top.watch(bus, **arguments)


# The command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--seconds", "0.3"], ["--seconds", "0.3", "--once"]])
def test_the_command_prints_one_table_of_its_example(capsys, arguments):
    assert main(["top", *arguments]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    found = rows(output.out)
    assert found[0][0].startswith("exchange: open, ")
    assert found[1] == HEADER
    names = [row[0].removeprefix("ringcast.top.") for row in found[2:]]
    assert [name for name in names if "." not in name] == ["Quote", "Order", "Alarm"]
    methods = ("keep_price", "draw_chart", "record", "book", "check_large", "notify")
    assert {f"Exchange.{method}" for method in methods} <= set(names)


def test_the_example_has_subscribers_of_each_kind(eventually):
    with top.Exchange().running() as bus:

        def handlers():
            return {sub.handler.rpartition(".")[2]: sub for topic in bus.stats().topics for sub in topic.subscriptions}

        eventually(lambda: handlers()["check_large"].errors and handlers()["check_large"].filtered)
        eventually(lambda: handlers()["draw_chart"].dropped and handlers()["record"].dropped)
        assert handlers()["keep_price"].mode == "direct"
        assert handlers()["book"].dropped == 0
        assert handlers()["book"].policy == "block"


def test_ctrl_c_ends_it_with_130_and_leaves_no_thread(capsys, monkeypatch):
    def interrupt(dispatcher, seconds, console):
        raise KeyboardInterrupt

    monkeypatch.setattr(top, "_print_once", interrupt)
    assert main(["top", "--once"]) == 130
    assert capsys.readouterr().err == "ringcast: interrupted\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_that_is_none_is_refused(capsys, seconds):
    with pytest.raises(SystemExit) as usage:
        main(["top", f"--seconds={seconds}"])
    assert usage.value.code == 2
    assert "not a number of seconds" in capsys.readouterr().err


def test_without_rich_it_says_what_to_install(run_python):
    result = run_python(
        "import sys; sys.modules['rich'] = None; from ringcast.__main__ import main; sys.exit(main(['top']))"
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "ringcast top: rich is missing; pip install 'ringcast[demo]'\n"


def test_as_a_program(run_python):
    result = run_python(
        "import sys, runpy; sys.argv = ['ringcast', 'top', '--seconds', '0.3']; "
        "runpy.run_module('ringcast', run_name='__main__', alter_sys=True)"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "exchange: open" in result.stdout
