"""Several files make one configuration. A pipe is a file, too."""

import os
import threading

import pytest
from limits import DEADLINE

from ringcast_router.config import load, loads, source
from ringcast_router.errors import ConfigError


@pytest.fixture
def files(tmp_path):
    """Return a function that writes texts to files and returns their paths."""

    def write(*texts):
        paths = [tmp_path / f"{number}.yaml" for number in range(1, len(texts) + 1)]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    return write


def test_mappings_merge_and_lists_follow_one_another(files):
    config = load(
        files(
            "apiKeys: [a]\nmacros: {x: 1}\nmodels: {b: {cmd: '${x} ${PORT}'}}\nhooks: {on_startup: {preload: [b]}}",
            "apiKeys: [b]\nmacros: {y: 2}\nmodels: {a: {cmd: '${y} ${PORT}'}}\nhooks: {on_startup: {preload: [a]}}",
        )
    )
    assert [key.key for key in config.keys] == ["a", "b"]
    assert config.preload == ("b", "a")
    assert [model.cmd for model in config.models.values()] == ["2 5800", "1 5801"]


def test_one_file_gives_what_its_text_gives(files):
    text = "models: {a: {cmd: 'x ${PORT}'}}"
    assert load(files(text)) == loads(text)


@pytest.mark.parametrize(
    "texts", [("startPort: 7", "startPort: 7"), ("startPort: 7", "startPort:"), ("", "startPort: 7")]
)
def test_scalars_that_agree_or_are_missing_pass(files, texts):
    assert load(files(*texts)).resolved()["startPort"] == 7


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ("startPort: 7", "\nstartPort: 8", "startPort"),
        ("startPort: 7", "\nstartPort: '7'", "startPort"),
        ("macros: {a: 1}", "\nmacros: {a: 2}", "macros.a"),
        ("models: {}", "\nmodels: []", "models"),
        ("apiKeys: [a]", "\napiKeys: a", "apiKeys"),
        ("models: {a: {cmd: x}}", "\nmodels: {a: {cmd: x}}", "models.a"),
        ("groups: {a: {}}", "\ngroups: {a: {}}", "groups.a"),
        ("profiles: {a: {}}", "\nprofiles: {a: {}}", "profiles.a"),
        ("selectors: {a: {}}", "\nselectors: {a: {}}", "selectors.a"),
        ("peers: {a: {}}", "\npeers: {a: {}}", "peers.a"),
        ("matrix: {vars: {a: x}}", "\nmatrix: {vars: {b: y}}", "matrix.vars"),
        *(
            (f"routing: {{router: {{settings: {{{name}: {{a: {{}}}}}}}}}}",) * 2
            + (f"routing.router.settings.{name}.a",)
            for name in ("groups", "matrix")
        ),
        ("ringcast: {models: {a: {}}}", "\nringcast: {models: {a: {}}}", "ringcast.models.a"),
    ],
)
def test_what_two_files_may_not_both_say(files, first, second, key):
    paths = files(first, second)
    with pytest.raises(ConfigError) as caught:
        load(paths)
    assert caught.value.key == key
    assert (caught.value.file, caught.value.line) == (str(paths[1]), 1 + second.count("\n"))
    assert f"{paths[0]}:1" in str(caught.value)


def test_errors_and_warnings_name_the_file_of_the_value(files):
    paths = files("models: {a: {cmd: 'x ${PORT}'}}", "\nunknown: 1\nmodels: {b: {cmd: x, ttl: often}}")
    with pytest.raises(ConfigError) as caught:
        load(paths)
    assert (caught.value.file, caught.value.line) == (str(paths[1]), 3)
    paths = files("models: {a: {cmd: 'x ${PORT}'}}", "\nunknown: 1\n")
    assert [warning.startswith(f"{paths[1]}:2: unknown") for warning in load(paths).warnings] == [True]


def test_each_file_has_its_own_anchors_and_variables(files):
    paths = files("x-a: &a {ttl: 1}\nmodels: {a: {<<: *a, cmd: 'x ${PORT}'}}", "startPort: ${env.P}\nglobalTTL: 3")
    config = load(paths, environ={"P": "7"})
    assert (config.models["a"].ttl, config.models["a"].port) == (1, 7)


def test_a_file_named_twice_is_an_error(files):
    path = files("startPort: 7")[0]
    with pytest.raises(ConfigError, match="named twice"):
        load([path, path.parent / "." / path.name])


def test_no_file_is_an_error():
    with pytest.raises(ConfigError, match="no configuration file"):
        load([])


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="No such file") as caught:
        load([tmp_path / "none.yaml"])
    assert caught.value.file == str(tmp_path / "none.yaml")


def test_a_file_that_is_not_utf_8_is_an_error(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("a: 1\nb: é\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        load([path])
    assert caught.value.line == 2


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfstartPort: 7\n")
    assert load([path]).resolved()["startPort"] == 7


@pytest.fixture
def pipe(tmp_path, monkeypatch):
    """Return a named pipe; waiting for who writes to it is over soon."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("named pipes are POSIX's")
    monkeypatch.setattr(source, "PATIENCE", 0.1)
    os.mkfifo(tmp_path / "pipe.yaml")
    return tmp_path / "pipe.yaml"


def test_a_pipe_is_read_to_its_end(pipe, monkeypatch):
    monkeypatch.setattr(source, "PATIENCE", DEADLINE)
    text = "models: {a: {cmd: 'x ${PORT}'}}\n" + "# much\n" * 100_000
    writing = threading.Thread(target=pipe.write_text, args=[text])
    writing.start()
    assert list(load([pipe]).models) == ["a"]
    writing.join()


@pytest.mark.parametrize("begun", [False, True])
def test_a_pipe_that_nobody_writes_to_its_end_is_an_error(pipe, begun):
    keeper = os.open(pipe, os.O_RDWR if begun else os.O_RDONLY | os.O_NONBLOCK)
    try:
        if begun:
            os.write(keeper, b"models: {a: ")
        with pytest.raises(ConfigError, match=r"no regular file, and nobody has written it to its end within 0.1 s"):
            load([pipe])
    finally:
        os.close(keeper)


def test_lines_end_as_they_do_in_any_editor(tmp_path):
    file = tmp_path / "1.yaml"
    file.write_bytes(b"\xef\xbb\xbfmodels:\r\n  a:\r\n    cmd: |\r\n      x\r\n      ${PORT}\r\n")
    assert load([file]).models["a"].cmd == "x\n5800\n"
