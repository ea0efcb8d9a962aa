"""examples/watch_files.py: changes of files as events."""

import signal
import sys
import threading

import pytest


@pytest.fixture
def example(load_example):
    return load_example("watch_files")


@pytest.fixture
def watch(example, bus, spawn, make_recorder, deadline, tmp_path):
    """Watches the test's folder for the time of the test, from when changes are seen."""
    ready, stop = make_recorder(), threading.Event()
    bus.subscribe(example.Watching, ready)
    watching = spawn(example.watch, bus, tmp_path, stop)
    assert ready.wait_for(1) == [example.Watching(tmp_path)]
    yield
    stop.set()
    watching.result(deadline)


def test_each_kind_of_change_has_its_own_subscriber(example, bus, watch, make_recorder, tmp_path):
    added, modified, deleted = make_recorder(), make_recorder(), make_recorder()
    bus.subscribe(example.FileAdded, added)
    bus.subscribe(example.FileModified, modified)
    bus.subscribe(example.FileDeleted, deleted)
    path = tmp_path / "one.txt"
    path.touch()
    assert added.wait_for(1) == [example.FileAdded(path)]
    known = len(modified.events)  # a new file may count as modified too
    path.write_text("changed")
    assert modified.wait_for(known + 1)[-1] == example.FileModified(path)
    path.unlink()
    assert deleted.wait_for(1) == [example.FileDeleted(path)]
    assert added.events == [example.FileAdded(path)]


def test_one_subscriber_can_have_all_of_them(example, bus, watch, recorder, tmp_path):
    bus.subscribe(example.FileChanged, recorder, subclasses=True)
    (tmp_path / "one.txt").touch()
    assert recorder.wait_for(1)[0].path == tmp_path / "one.txt"
    assert isinstance(recorder.events[0], example.FileChanged)


def test_the_kinds_are_counted(example, bus, watch, recorder, tmp_path):
    tally = example.Tally()
    tally.subscribe(bus)
    bus.subscribe(example.FileAdded, recorder)
    (tmp_path / "one.txt").touch()
    recorder.wait_for(1)
    bus.close()
    assert tally.added == [tmp_path / "one.txt"]
    assert tally.deleted == []


def test_a_folder_that_is_not_there_is_refused(example, capsys, tmp_path):
    assert example.main([str(tmp_path / "missing")]) == 1
    assert capsys.readouterr().err == f"no such folder: {tmp_path / 'missing'}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
@pytest.mark.usefixtures("example")
def test_as_a_program(start_example, spawn, deadline, tmp_path):
    folder = tmp_path.resolve()
    process = start_example("watch_files", str(folder))
    assert spawn(process.stdout.readline).result(2 * deadline) == f"watching {folder}\n"
    (folder / "one.txt").touch()
    assert spawn(process.stdout.readline).result(deadline) == "FileAdded: one.txt\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=deadline)
    assert (process.returncode, errors) == (0, "")
    assert output.splitlines()[-1].startswith("1 added, ")
