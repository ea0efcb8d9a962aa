"""What YAML means here: scalars, anchors, merge keys, duplicates, and environment variables in the text."""

import math
import os
from itertools import pairwise

import pytest

from ringcast_router.config import load, loads, scalars
from ringcast_router.errors import ConfigError

# Each line is eight times the line before.
BOMB = "a: &a [0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in pairwise("abcdefghi")
)

BLOCK_BOMB = (
    "{a: &a {x: 0, y: 0}, "
    + "".join(
        f"{name}: &{name} {{{', '.join(f'k{number}: *{before}' for number in range(8))}}}, "
        for name, before in zip("bcdefghi", "abcdefgh", strict=True)
    )
    + "}"
)


def metadata(text, environ=None):
    """Return the metadata of a model, which may be anything, from flow YAML or an indented block."""
    head = "models:\n  m:\n    cmd: x ${PORT}\n    metadata:"
    return loads(f"{head} {text}\n", environ=environ or {}).models["m"].metadata


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-5", -5),
        ("+1", 1),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 8),
        ("-010", -8),
        ("08", 8.0),
        ("0b101", 5),
        ("1_000", 1000),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", float(2**64)),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("1.5E-3", 0.0015),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("2026-01-02", "2026-01-02T00:00:00Z"),
        ("2026-1-2", "2026-01-02T00:00:00Z"),
        ("2026-01-02 3:04:05.60 +01:30", "2026-01-02T03:04:05.6+01:30"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        *(
            (word, word)
            for word in ("on", "yes", "No", "y", "12:30", "tRUE", "nUll", "1.2.3", "0x", "1e", "-", ".", "_1")
        ),
    ],
)
def test_plain_scalar(text, value):
    resolved = scalars.resolve(text)
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (42, "42"),
        (0.5, "0.5"),
        (100000.0, "100000"),
        (1000000.0, "1e+06"),
        (1234567.5, "1.2345675e+06"),
        (-0.0001, "-0.0001"),
        (0.00001, "1e-05"),
        (1e100, "1e+100"),
        (0.0, "0"),
        (math.inf, "+Inf"),
        ("as it is", "as it is"),
    ],
)
def test_a_macro_is_written_as_go_writes_it(value, text):
    assert scalars.write(value) == text


def test_quotes_and_tags_decide_before_the_looks_do():
    assert metadata("{a: '1', b: \"true\", c: !!str 5, d: !!float 5, e: !own x}") == {
        "a": "1", "b": "true", "c": "5", "d": 5, "e": "x",
    }  # fmt: skip


def test_a_tag_that_the_value_does_not_fit_is_an_error():
    with pytest.raises(ConfigError, match="no !!int"):
        metadata("{a: !!int x}")


def test_anchors_stand_for_their_value():
    assert metadata("{a: &a {x: [1, 2]}, b: *a}") == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}}


@pytest.mark.parametrize(
    ("merged", "expected"),
    [
        ("{<<: *one, own: 3}", {"x": 1, "y": 1, "own": 3}),
        ("{x: 3, <<: *one}", {"x": 3, "y": 1}),
        ("{<<: *one, x: 3}", {"x": 3, "y": 1}),
        ("{<<: [*two, *one]}", {"x": 2, "y": 1}),
        ("{<<: [*one, *two]}", {"x": 1, "y": 1}),
        ("{<<: *nested}", {"x": 1, "y": 1, "z": 4}),
        ("{'<<': 7}", {"<<": 7}),
    ],
)
def test_merge_keys(merged, expected):
    text = "{one: &one {x: 1, y: 1}, two: &two {x: 2}, nested: &nested {<<: *one, z: 4}, m: " + merged + "}"
    assert metadata(text)["m"] == expected


def test_models_may_share_settings_by_a_merge_key():
    config = loads(
        "x-common: &common\n  cmd: srv --name ${MODEL_ID} --port ${PORT}\n  ttl: 60\n"
        "models:\n  a:\n    <<: *common\n  b:\n    <<: *common\n    ttl: 5\n"
    )
    assert [(model.cmd, model.ttl) for model in config.models.values()] == [
        ("srv --name a --port 5800", 60),
        ("srv --name b --port 5801", 5),
    ]
    assert ["x-common" in warning for warning in config.warnings] == [True]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("models:\n  a: {cmd: x}\n  a: {cmd: y}\n", 3, "twice, first in line 2"),
        ("startPort: 1\nlogLevel: info\nstartPort: 1\n", 3, "twice, first in line 1"),
        ("a: &a [*a]\n", 1, "contains itself"),
        ("models: {\n", 2, "not YAML"),
        ("a: b: c\n", 1, "not YAML"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: {<<: 5}\n", 1, "takes a mapping"),
        ("[a]: 1\n", 1, "a key must be a word"),
        ("- a\n", 1, "must hold a mapping"),
        ("just words\n", 1, "must hold a mapping"),
        ("a: b\nc: \x01\n", 2, "not YAML"),
    ],
)  # fmt: skip
def test_errors_of_the_text_name_the_line(text, line, words):
    with pytest.raises(ConfigError, match=words) as caught:
        loads(text, file="c.yaml")
    assert (caught.value.file, caught.value.line) == ("c.yaml", line)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("models:\n  a:\n    cmd: x\n    cmd: y\n", "models.a.cmd", "twice, first in line 3"),
        ("models:\n  a: {cmd: x}\n\n  a: {cmd: y}\n", "models.a", "twice, first in line 2"),
        ("ringcast:\n  keys:\n    - key: a\n    - {key: b, key: c}\n", "ringcast.keys[1].key", "twice"),
        ("apiKeys:\n  - a\n\n  - '${env.NOPE}'\n", "apiKeys[1]", "NOPE is not set"),
        ("models:\n  a:\n\n    cmd: x ${env.NOPE}\n", "models.a.cmd", "NOPE is not set"),
        ("models:\n  a:\n\n    '${env.NOPE}': 1\n", "models.a.${env.NOPE}", "NOPE is not set"),
        ("models:\n  a:\n\n    cmd: ${env.LINES}\n", "models.a.cmd", "line break"),
        ("models:\n  a:\n\n    cmd: ${env.BYTES}\n", "models.a.cmd", "not text in UTF-8"),
        ("a:\n\n\n  - [${env.NOPE}]\n", "", "NOPE is not set"),
        ("models:\n  a:\n\n    ttl: !!int x\n", "models.a.ttl", "no !!int"),
        ("models:\n  a:\n    cmd: x\n    <<: 5\n", "models.a.<<", "takes a mapping"),
        ("models:\n  a: 1\n\n  b: &b {metadata: *b}\n", "models.b.metadata", "contains itself"),
        ("models:\n  a:\n\n    [x]: 1\n", "models.a", "a key must be a word"),
    ],
)
def test_errors_of_the_text_name_file_line_and_key(text, key, words):
    with pytest.raises(ConfigError, match=words) as caught:
        loads(text, file="c.yaml", environ={"LINES": "a\nb", "BYTES": "\udcff"})
    assert (caught.value.file, caught.value.line, caught.value.key) == ("c.yaml", 4, key)
    assert str(caught.value).startswith(f"c.yaml:4: {key}: " if key else "c.yaml:4: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "more than 100,000 values"),
        (f"models: {{a: {{metadata: {BLOCK_BOMB}}}}}", "more than 100,000 values"),
        (f"a: &a {'x' * 100_000}\nmodels: {{m: {{metadata: [{', '.join(['*a'] * 101)}]}}}}", "10,000,000 characters"),
        (f"a: &a {{{'x' * 1000}: 1}}\nmodels: {{m: {{metadata: [{', '.join(['*a'] * 10_001)}]}}}}", "characters"),
    ],
    ids=["lists", "mappings", "long values", "long keys"],
)
def test_aliases_that_multiply_are_an_error_that_names_the_place(text, words):
    with pytest.raises(ConfigError, match=f"with its aliases replaced, .*{words}") as caught:
        loads(text, file="c.yaml")
    assert caught.value.key
    assert caught.value.line


def test_a_merge_key_with_many_mappings_is_read_in_one_go():
    many = ", ".join(f"{{k{number}: {number}}}" for number in range(20_000))
    found = metadata(f"{{<<: [{many}, {{k1: 0}}]}}")
    assert (len(found), found["k1"]) == (20_000, 1)


@pytest.mark.parametrize("depth", [101, 400, 5_000, 50_000])
def test_deep_nesting_is_an_error_and_no_crash(depth):
    with pytest.raises(ConfigError, match="nest"):
        loads("a: " + "[" * depth + "]" * depth)


def test_reasonable_nesting_is_fine():
    assert metadata("{a: " + "[" * 90 + "]" * 90 + "}")


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "~\n"])
def test_an_empty_file_is_a_configuration_of_defaults(text):
    assert loads(text).resolved() == loads("models: {}").resolved()


def test_of_several_documents_the_first_counts():
    assert loads("startPort: 7\n---\nstartPort: 8\n").resolved()["startPort"] == 7


class TestEnvironment:
    def test_is_put_in_before_parsing(self):
        environ = {"N": "5", "L": "a, b", "K": "name"}
        assert metadata("{n: ${env.N}, l: [${env.L}], ${env.K}: 1}", environ) == {"n": 5, "l": ["a", "b"], "name": 1}

    def test_quotes_and_backslashes_are_right_within_double_quotes(self):
        assert metadata('{a: "${env.V}"}', {"V": r'C:\x "y"'}) == {"a": r'C:\x "y"'}

    def test_comments_need_no_variable(self):
        assert loads("# ${env.MISSING}\nstartPort: 7 # ${env.MISSING}\n", environ={}).resolved()["startPort"] == 7

    def test_a_value_is_not_searched_again(self):
        assert metadata("{a: '${env.A}'}", {"A": "${env.B}", "B": "x"}) == {"a": "${env.B}"}

    @pytest.mark.parametrize(
        ("environ", "words"),
        [({}, "HOME_OF is not set"), ({"HOME_OF": "a\nb"}, "line break"), ({"HOME_OF": "\0"}, "null")],
    )
    def test_a_variable_that_cannot_be_put_in_is_an_error_with_its_line(self, environ, words):
        with pytest.raises(ConfigError, match=words) as caught:
            loads("startPort: 7\napiKeys:\n  - ${env.HOME_OF}\n", environ=environ, file="c.yaml")
        assert caught.value.line == 3

    def test_names_with_a_dot_are_no_macros(self):
        assert metadata("{a: '${env.} ${other.x}'}") == {"a": "${env.} ${other.x}"}


HUGE = "9" * 5_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"startPort: {HUGE}", "startPort: must be a whole number"),
        (f"startPort: -{HUGE}", "startPort: must be a whole number"),
        (f"startPort: 0x{'f' * 5_000}", "startPort: must be a whole number"),
        (f"models: {{a: {{cmd: x, proxy: 'http://a:1', ttl: {HUGE}}}}}", "ttl: must be a whole number"),
        (f"ringcast: {{resources: {{vram: {HUGE}GiB}}}}", "vram: must be at most"),
        (f"ringcast: {{fair: {{max_wait: {HUGE}}}}}", "max_wait: must be a number"),
        (f"upstream: {{ignorePaths: ['{'(' * 3_000}{')' * 3_000}']}}", "ignorePaths: .* no regular expression"),
        (f"performance: {{every: {HUGE}h}}", "every: must be at most"),
        ("apiKeys: ['${env.BYTES}']", "BYTES is not text in UTF-8"),
    ],
)
def test_what_is_too_large_or_no_text_is_named_with_its_key(text, words):
    with pytest.raises(ConfigError, match=words):
        loads(f"{text}\n", environ={"BYTES": os.fsdecode(b"\xff\xfe")}, file="c.yaml")


def test_a_circle_of_links_is_no_file(tmp_path):
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load([tmp_path / "a.yaml"])


@pytest.mark.parametrize("text", ["9" * 100_000, "'" + "1.1" * 50_000 + "'", "'" + "1s" * 50_000 + "x'"])
def test_a_long_text_that_is_no_duration_is_refused_at_once(text):
    with pytest.raises(ConfigError, match="must be a duration"):
        loads(f"performance: {{every: {text}}}")
