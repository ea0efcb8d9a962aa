"""examples/access_log.py: an access log, read by one thread and used by four subscribers."""

import io
import subprocess

import pytest


@pytest.fixture
def example(load_example):
    return load_example("access_log")


def line(client, status, size="512"):
    return f'{client} - - [10/Oct/2025:13:55:36 +0000] "GET /index.html HTTP/1.1" {status} {size} "-" "curl"\n'


def test_the_report_counts_all_requests_by_status(example):
    lines = [line("10.0.0.1", 200), line("10.0.0.2", 304, "-"), line("10.0.0.1", 200), "no log line\n"]
    report = example.watch_log(lines, io.StringIO(), print)
    assert report == "3 requests (200: 2, 304: 1), 1024 bytes, 1 lines left out"


def test_failures_are_written_in_the_order_of_the_log(example):
    file = io.StringIO(newline="")
    example.watch_log([line("10.0.0.1", status) for status in (200, 500, 304, 404)], file, print)
    rows = [row.split(",") for row in file.getvalue().splitlines()]
    assert [row[-1] for row in rows] == ["500", "404"]
    assert rows[0] == ["10/Oct/2025:13:55:36 +0000", "10.0.0.1", "GET", "/index.html", "500"]


def test_a_client_that_fails_often_is_told(example):
    suspects = []
    lines = [line("10.0.0.1", 404)] * example.OFTEN + [line("10.0.0.2", 404)] * (example.OFTEN - 1)
    example.watch_log(lines, io.StringIO(), suspects.append)
    assert suspects == [example.Suspect("10.0.0.1", example.OFTEN)]


def test_a_slow_teller_holds_nothing_up_and_is_told_the_newest(example, gate):
    suspects = []

    def tell(suspect):
        gate.hold()
        suspects.append(suspect)

    class Log:
        """Ends only when the teller has been stuck in its first call while all the rest was read."""

        def __iter__(self):
            yield from [line("10.0.0.1", 404)] * example.OFTEN
            gate.wait_until_held()
            yield from [line("10.0.0.1", 404)] * (100 * example.OFTEN)
            gate.open()

    example.watch_log(Log(), io.StringIO(), tell)
    assert suspects[0] == example.Suspect("10.0.0.1", example.OFTEN)
    assert suspects[-1] == example.Suspect("10.0.0.1", 101 * example.OFTEN)


def test_as_a_program(run_example, tmp_path):
    log, failures = tmp_path / "access.log", tmp_path / "failures.csv"
    log.write_text(line("10.0.0.1", 200) + line("10.0.0.2", 404) * 10)
    told, report = run_example("access_log", str(log), str(failures))
    assert told == "10.0.0.2: 10 failures"
    assert report == "11 requests (200: 1, 404: 10), 5632 bytes, 0 lines left out"
    assert len(failures.read_text().splitlines()) == 10


def test_without_arguments_it_says_how_it_is_used(start_example, deadline):
    process: subprocess.Popen[str] = start_example("access_log")
    output, errors = process.communicate(timeout=2 * deadline)
    assert (process.returncode, output, errors) == (1, "", "usage: python access_log.py LOG FAILURES\n")
