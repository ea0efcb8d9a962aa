"""The demo: `python -m ringcast demo` surveys a folder, and says why where it cannot."""

import os
import re

import pytest

import ringcast
from ringcast import demo
from ringcast.__main__ import main


@pytest.fixture
def folder(tmp_path):
    """Two folders below the root, five files of two suffixes, one content twice, one empty file, a link."""
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "one.txt").write_bytes(b"x" * 1000)
    (tmp_path / "deep" / "two.txt").write_bytes(b"x" * 1000)
    (tmp_path / "deep" / "three.TXT").write_bytes(b"y" * 1000)
    (tmp_path / "deep" / "deeper" / "large.bin").write_bytes(b"z" * 5000)
    (tmp_path / "deep" / "deeper" / "empty").touch()
    (tmp_path / "link.txt").symlink_to(tmp_path / "one.txt")
    return tmp_path


def rows(text):
    """The lines of a report, each a tuple of its columns."""
    return [tuple(re.split(r" {2,}", line.strip())) for line in text.splitlines()]


def test_the_report_tells_what_is_in_the_folder(folder, capsys):
    assert main(["demo", str(folder)]) == 0
    output = capsys.readouterr()
    found = rows(output.out)
    assert ("total", "5 files", "8.0 kB") in found
    assert ("suffix", ".txt", "3 files") in found
    assert ("suffix", ".bin", "1 files") in found
    assert ("largest", os.path.join("deep", "deeper", "large.bin"), "5.0 kB") in found
    assert ("duplicates", "1 contents more than once", "1.0 kB too much") in found
    assert ("folders", "3 folders") in found
    assert ("deepest", os.path.join("deep", "deeper"), "level 2") in found
    assert "left out: 1 links, 0 special files" in output.out
    assert output.err == ""  # no progress bar where there is no terminal


def test_the_report_has_the_counters_of_the_dispatcher(folder, capsys):
    assert main(["demo", str(folder)]) == 0
    output = capsys.readouterr().out
    for handler in ("Suffixes.count", "Total.add", "Largest.keep", "Duplicates.compare"):
        assert (handler, "FileFound", "5", "0", "0", "0") in rows(output)
    assert ("Deepest.keep", "FolderFound", "3", "0", "0", "0") in rows(output)
    assert "8 events published, all delivered in" in output


def test_without_a_folder_it_is_the_standard_library(folder, capsys, monkeypatch):
    monkeypatch.setattr(demo.sysconfig, "get_path", {"stdlib": str(folder)}.get)
    assert main(["demo"]) == 0
    assert f"Found in {folder}" in capsys.readouterr().out


def test_an_empty_folder_is_surveyed(tmp_path, capsys):
    assert main(["demo", str(tmp_path)]) == 0
    assert ("total", "0 files", "0 bytes") in rows(capsys.readouterr().out)


@pytest.mark.parametrize(("which", "reason"), [("missing", "no such folder"), ("one.txt", "not a folder")])
def test_what_is_no_folder_is_refused(folder, capsys, which, reason):
    path = str(folder / which)
    assert main(["demo", path]) == 1
    output = capsys.readouterr()
    assert output.err == f"ringcast demo: {reason}: {path!r}\n"
    assert output.out == ""


def test_a_folder_that_cannot_be_read_is_refused(folder, capsys, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(demo.os, "scandir", refuse)
    assert main(["demo", str(folder)]) == 1
    assert "cannot read the folder (Permission denied)" in capsys.readouterr().err


def test_a_folder_below_that_cannot_be_read_is_reported_and_the_rest_surveyed(folder, capsys, monkeypatch):
    scandir = os.scandir

    def refuse_one(path):
        if path.endswith("deeper"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(demo.os, "scandir", refuse_one)
    assert main(["demo", str(folder)]) == 0
    output = capsys.readouterr().out
    assert ("total", "3 files", "3.0 kB") in rows(output)
    assert "could not be read: 1" in output
    assert f"{folder / 'deep' / 'deeper'}: Permission denied" in output


def test_a_file_that_cannot_be_read_is_an_error_of_its_handler_alone(folder, capsys, monkeypatch):
    def digest(self, path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(demo.Duplicates, "_digest", digest)
    assert main(["demo", str(folder)]) == 0
    found = rows(capsys.readouterr().out)
    errors = {row[0]: row[4] for row in found if len(row) == 6 and row[1] == "FileFound"}
    assert errors.pop("Duplicates.compare") != "0"
    assert set(errors.values()) == {"0"}


def test_names_that_a_terminal_cannot_show_are_escaped(tmp_path, capsys):
    (tmp_path / "a\x1b[31m[bold]\nb").write_bytes(b"x")
    assert main(["demo", str(tmp_path)]) == 0
    assert r"a\x1b[31m[bold]\nb" in capsys.readouterr().out


def test_ctrl_c_ends_it_with_130(folder, capsys, monkeypatch):
    def interrupt(self, entry, depth):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.Walk, "_look_at", interrupt)
    assert main(["demo", str(folder)]) == 130
    assert capsys.readouterr().err == "ringcast: interrupted\n"


def test_without_rich_it_says_what_to_install(run_python):
    result = run_python(
        "import sys; sys.modules['rich'] = None; from ringcast.__main__ import main; sys.exit(main(['demo']))"
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "ringcast demo: rich is missing; pip install 'ringcast[demo]'\n"


def test_usage(capsys):
    with pytest.raises(SystemExit) as version:
        main(["--version"])
    assert version.value.code == 0
    assert capsys.readouterr().out == f"ringcast {ringcast.__version__}\n"
    with pytest.raises(SystemExit) as nothing:
        main([])
    assert nothing.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_as_a_program(folder, run_python):
    result = run_python(
        f"import sys, runpy; sys.argv = ['ringcast', 'demo', {str(folder)!r}]; "
        "runpy.run_module('ringcast', run_name='__main__', alter_sys=True)"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "8 events published" in result.stdout
