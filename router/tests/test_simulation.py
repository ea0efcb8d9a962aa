"""The simulation: traces from files, synthetic loads, and what is reported."""

import time

import pytest

from ringcast_router.config.model import Config, Model
from ringcast_router.errors import ConfigError
from ringcast_router.simulation import Costs, Job, Trace, agents, bursts, compare, read, run, zipf

CONFIG = Config(models={"a": Model("a", aliases=("first",)), "b": Model("b")})


@pytest.fixture
def file(tmp_path):
    def write(text, name="trace.jsonl"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_jsonl_trace_has_requests_and_costs(file):
    lines = [
        '{"at": 2, "model": "b", "seconds": 3, "priority": 4}',
        "",
        '{"model": "a", "load": 20}',
        '{"at": 1, "model": "first"}',
    ]
    trace = read(file("\n".join(lines)), CONFIG, Costs(7, 2))
    assert trace.jobs == [Job(1.0, "a", 1.0, 0), Job(2.0, "b", 3.0, 4)]
    assert (trace.costs.of("a"), trace.costs.of("b")) == ((20.0, 2.0), (7.0, 2.0))


def test_a_csv_trace_has_columns(file):
    trace = read(file("at,model,seconds\n2,b,3\n1,a,\n", "trace.csv"), CONFIG)
    assert trace.jobs == [Job(1.0, "a"), Job(2.0, "b", 3.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"at": 1, "model": "a"}\n{"at": 1}', ":2: 'model' is missing"),
        ('{"at": 1, "model": "nobody"}', ":1: there is no model 'nobody'"),
        ('{"at": "soon", "model": "a"}', ":1: could not convert"),
        ('{"at": -1, "model": "a"}', ":1: at must be a time of at least 0 seconds, not -1"),
        ('{"at": NaN, "model": "a"}', ":1: at must be a time"),
        ('{"at": Infinity, "model": "a"}', ":1: at must be a time"),
        (f'{{"at": {"9" * 400}, "model": "a"}}', ":1: int too large"),
        ('{"at": 1, "model": "a", "seconds": -2}', ":1: seconds must be a time"),
        ('{"at": 1, "model": "a", "priority": 1e400}', ":1: cannot convert"),
        ('{"model": "a", "load": -5}', ":1: load must be a time"),
        ('{"model": "a", "stop": NaN}', ":1: stop must be a time"),
        ("{", ":1: not JSON"),
        ("[" * 100_000, ":1: not JSON"),
        ("[]", ":1: each line is an object"),
    ],
)
def test_a_wrong_line_is_named(file, text, said):
    with pytest.raises(ConfigError, match=said):
        read(file(text), CONFIG)


def test_a_request_may_take_no_time(file):
    (job,) = read(file('{"at": 1, "model": "a", "seconds": 0}'), CONFIG).jobs
    assert job.seconds == 0


def test_a_field_of_csv_that_is_too_long_is_said(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(f"at,model\n1,{'a' * 200_000}\n")
    with pytest.raises(ConfigError, match="cannot be read: field larger"):
        read(path, CONFIG)


def test_a_missing_trace_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "nowhere.jsonl", CONFIG)


def test_a_report_counts_swaps_waits_and_loading():
    """A loads from 0 to 10 and serves until 11; it stops until 12, B loads until 22."""
    report = run(CONFIG, Trace([Job(0, "a"), Job(10.5, "b")], Costs(10, 1)), "fifo")
    assert (report.requests, report.served, report.refused, report.swaps) == (2, 2, {}, 2)
    assert (report.waits, report.loading, report.duration) == ([10.0, 11.5], 21.0, 23.0)
    assert (report.wait(0.5), report.wait(0.99), report.wait(1)) == (10.0, 11.5, 11.5)
    assert "wait, longest      11.50 s" in str(report)


def test_the_schedulers_stand_beside_each_other():
    table = compare(CONFIG, bursts(CONFIG, 12)).splitlines()
    assert table[0].split() == ["fifo", "fair"]
    assert next(line for line in table if line.startswith("swaps")).split() == ["swaps", "2", "2"]


@pytest.mark.parametrize("load", [zipf(CONFIG, 50, seed=3), bursts(CONFIG, 50), agents(CONFIG, 50, clients=4)])
def test_synthetic_loads_have_as_many_requests_as_asked_for(load):
    assert run(CONFIG, load, "fair").requests == 50


def test_zipf_is_the_same_for_the_same_seed_and_prefers_the_first():
    first, again, other = zipf(CONFIG, 300, seed=1), zipf(CONFIG, 300, seed=1), zipf(CONFIG, 300, seed=2)
    assert first.jobs == again.jobs != other.jobs
    wanted = [job.model for job in first.jobs]
    assert wanted.count("a") > wanted.count("b")


def test_fair_bounds_the_wait_that_fifo_does_not():
    """Two clients never leave A in peace, a third asks for B."""
    busy = [[Job(0.0, "a", seconds)] * round(300 / seconds) for seconds in (1.0, 0.73)]
    load = Trace(costs=Costs(10, 1), agents=[*busy, [Job(1.0, "b", 1.0)] * 3])
    fifo, fair = run(CONFIG, load, "fifo"), run(CONFIG, load, "fair")
    assert fair.wait(1) < 90 < fifo.wait(1)
    assert fair.swaps > fifo.swaps


def test_ten_thousand_requests_take_seconds():
    config = Config(models={f"m{n}": Model(f"m{n}") for n in range(50)})
    began = time.perf_counter()
    assert run(config, zipf(config, 10_000, rate=1.0), "fair").requests == 10_000
    assert time.perf_counter() - began < 20
