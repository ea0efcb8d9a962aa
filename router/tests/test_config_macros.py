"""Macros and ports: what `${name}` stands for, and where."""

import tracemalloc

import pytest

from ringcast_router.config import loads
from ringcast_router.errors import ConfigError


def model(text, head=""):
    """Return the only model of a file, whose settings are given as flow YAML."""
    return loads(f"{head}\nmodels: {{m: {text}}}").models["m"]


def test_a_macro_may_use_those_before_it():
    head = "macros: {a: 1, b: 'x${a}', c: '${b} ${a}'}"
    assert model("{cmd: '${c} ${PORT}'}", head).cmd == "x1 1 5800"


def test_a_macro_cannot_use_those_after_it():
    with pytest.raises(ConfigError, match=r"\$\{a\} uses \$\{b\}, which is defined after it") as caught:
        model("{cmd: '${a} ${PORT}'}", "macros: {a: '${b}', b: 1}")
    assert caught.value.key == "models.m.cmd"
    assert "did you mean" not in caught.value.message


def test_a_macro_of_the_file_cannot_use_one_that_only_a_model_has():
    head = "macros: {args: '-c ${size}'}"
    settings = "{cmd: 'x ${args} ${PORT}', macros: {size: 1}}"
    with pytest.raises(ConfigError, match=r"define \$\{size\} before \$\{args\}"):
        model(settings, head)
    assert model(settings, "macros: {size: 0, args: '-c ${size}'}").cmd == "x -c 1 5800"  # as the error advises


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("macros: {Small: 1}\nmodels: {m: {cmd: 'x ${small} ${PORT}'}}", r"mean \$\{Small\}\?"),
        ("macros: {small: 1}\nmodels: {m: {cmd: 'x ${SMALL} ${PORT}'}}", r"mean \$\{small\}\?"),
        ("models: {m: {cmd: 'x ${PORT} ${model_id}'}}", r"mean \$\{MODEL_ID\}\?"),
        ("models: {m: {cmd: 'x ${PORT} ${zzz}'}}", r"define it in `macros`"),
        ("apiKeys: ['${MODEL_ID}']", "known only in a model"),
        ("models: {m: {cmd: 'x ${PORT} ${PID}'}}", "known only in `cmdStop`"),
        ("macros: {a: $, b: 1}\nmodels: {m: {cmd: 'x ${PORT} ${a}{b}'}}", r"write it out"),
    ],
)
def test_the_error_about_a_macro_says_what_is_right_and_never_the_name_itself(text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        loads(text)
    asked, _, meant = caught.value.message.partition("; did you mean ")
    assert not meant or meant.strip("?") not in asked


class TestGrowth:
    """Macros of macros, and many values with one long macro: an error before the memory is needed."""

    def laughs(self, levels, times):
        steps = [f"m0: {'x' * times}", *(f"m{n}: '{('${m' + str(n - 1) + '}') * times}'" for n in range(1, levels))]
        return f"macros: {{{', '.join(steps)}}}", f"${{m{levels - 1}}}"

    @pytest.mark.parametrize("where", ["cmd", "cmdStop", "proxy", "name", "env", "metadata", "setParamsByID", "alias"])
    def test_nested_macros_are_bounded_wherever_they_stand(self, where):
        head, use = self.laughs(levels=9, times=10)
        settings = {
            "cmd": f"cmd: 'x ${{PORT}} {use}'",
            "proxy": f"cmd: x, proxy: '{use}'",
            "env": f"cmd: 'x ${{PORT}}', env: ['A={use}']",
            "metadata": f"cmd: 'x ${{PORT}}', metadata: {{a: ['{use}']}}",
            "setParamsByID": f"cmd: 'x ${{PORT}}', filters: {{setParamsByID: {{'{use}': {{a: 1}}}}}}",
            "alias": f"cmd: 'x ${{PORT}}', aliases: ['{use}']",
        }.get(where, f"cmd: 'x ${{PORT}}', {where}: '{use}'")
        tracemalloc.start()
        try:
            with pytest.raises(ConfigError, match=r"macro \$\{m\d\} makes this too long: .*10,000,000") as caught:
                model(f"{{{settings}}}", head)
            assert tracemalloc.get_traced_memory()[1] < 100_000_000
        finally:
            tracemalloc.stop()
        assert caught.value.key.startswith("models.m.")
        assert caught.value.line == 2

    def test_what_all_values_together_grow_by_is_bounded(self):
        values = ", ".join(["'${long}'"] * 101)
        with pytest.raises(ConfigError, match=r"macro \$\{long\}") as caught:
            loads(f"macros: {{long: {'x' * 100_000}}}\napiKeys: [{values}]")
        assert caught.value.key == "apiKeys[100]"

    def test_a_long_command_is_fine(self):
        head, use = self.laughs(levels=6, times=10)
        assert len(model(f"{{cmd: 'x ${{PORT}} {use}'}}", head).cmd) == 1_000_007


def test_a_model_s_macro_stands_in_the_place_of_the_global_one():
    head = "macros: {size: 1, args: '-c ${size}'}"
    assert model("{cmd: 'srv ${args} ${PORT}', macros: {size: 2}}", head).cmd == "srv -c 2 5800"


def test_a_value_that_is_one_macro_keeps_its_type():
    found = model(
        "{cmd: 'x ${PORT}', ttl: '${t}', unlisted: '${u}', metadata: {p: '${PORT}', q: ':${PORT}', f: '${f}'}}",
        "macros: {t: 60, u: true, f: 0.5}",
    )
    assert (found.ttl, found.unlisted, found.metadata) == (60, True, {"p": 5800, "q": ":5800", "f": 0.5})


def test_macros_stand_in_every_value_and_in_the_keys_of_set_params_by_id():
    found = model(
        "{cmd: 'x ${PORT}', cmdStop: 'stop ${a} ${PID}', proxy: 'http://${a}:${PORT}', checkEndpoint: '/${a}',"
        " name: '${a}', description: '${MODEL_ID}', useModelName: '${a}', env: ['A=${a}'], aliases: ['${a}-1'],"
        " filters: {stripParams: '${a}', setParams: {'${a}': '${a}'},"
        " setParamsByID: {'${MODEL_ID}:${a}': {k: ['${a}']}}}}",
        "macros: {a: v}",
    )
    assert (found.cmd_stop, found.proxy, found.check_endpoint) == ("stop v ${PID}", "http://v:5800", "/v")
    assert (found.name, found.description, found.use_model_name) == ("v", "m", "v")
    assert (found.env, found.aliases, found.filters.strip_params) == (("A=v",), ("v-1", "m:v"), "v")
    assert found.filters.set_params == {"${a}": "v"}
    assert found.filters.set_params_by_id == {"m:v": {"k": ["v"]}}


def test_global_macros_stand_outside_of_models_too():
    config = loads("macros: {t: 77, k: secret}\nglobalTTL: ${t}\napiKeys: ['${k}']\nmodels: {m: {cmd: 'x ${PORT}'}}")
    assert config.models["m"].ttl == 77
    assert [key.key for key in config.keys] == ["secret"]


def test_below_ringcast_they_mean_nothing():
    config = loads("macros: {k: secret}\nringcast: {keys: [{key: '${k}'}]}")
    assert [key.key for key in config.keys] == ["${k}"]


def test_comment_lines_of_commands_are_removed_before():
    found = loads("models:\n  m:\n    cmd: |\n      srv\n      # ${nope}\n      --port ${PORT}\n").models["m"]
    assert found.cmd == "srv\n--port 5800\n"


@pytest.mark.parametrize("field", ["cmd", "cmdStop", "checkEndpoint", "name", "useModelName", "env", "metadata"])
def test_a_macro_that_does_not_exist_is_an_error_with_place_and_the_nearest(field):
    value = {"env": "['A=${smal}']", "metadata": "{a: '${smal}'}"}.get(field, "'${smal}'")
    settings = f"{{cmd: 'x ${{PORT}}', {field}: {value}}}" if field != "cmd" else "{cmd: '${smal} ${PORT}'}"
    with pytest.raises(ConfigError, match=r"\$\{small\}\?") as caught:
        model(settings, "macros: {small: 1}")
    assert caught.value.key.startswith(f"models.m.{field}")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("macros", "words"),
    [
        ("{PORT: 1}", "taken"),
        ("{MODEL_ID: 1}", "taken"),
        ("{PID: 1}", "taken"),
        ("{'a b': 1}", "letters, digits"),
        (f"{{{'a' * 64}: 1}}", "63"),
        ("{a: '${a}'}", "names itself"),
        ("{a: [1]}", "a string, a number or a boolean"),
        ("{a: ~}", "a string, a number or a boolean"),
        ("[a]", "mapping"),
    ],
)
@pytest.mark.parametrize("where", ["macros", "models.m.macros"])
def test_macros_that_cannot_be(macros, words, where):
    text = f"macros: {macros}" if where == "macros" else f"models: {{m: {{cmd: 'x ${{PORT}}', macros: {macros}}}}}"
    with pytest.raises(ConfigError, match=words) as caught:
        loads(text)
    assert caught.value.key.startswith(where)


class TestPorts:
    def test_follow_the_order_of_the_ids_and_go_to_those_that_use_one(self):
        config = loads(
            "startPort: 9000\nmodels:\n  b: {cmd: 'x ${PORT}'}\n  c: {cmd: x, proxy: 'http://h:1'}\n"
            "  a: {cmd: '${run}'}\n  d: {cmd: 'x ${PORT} ${PORT}'}\nmacros: {run: 'x ${PORT}'}\n"
        )
        assert {name: found.port for name, found in config.models.items()} == {"a": 9000, "b": 9001, "c": 0, "d": 9002}
        assert config.models["d"].cmd == "x 9002 9002"

    @pytest.mark.parametrize("settings", ["{cmd: x}", "{}", "~", "{cmd: x, proxy: 'http://h:${PORT}'}"])
    def test_a_proxy_with_a_port_needs_a_command_with_it(self, settings):
        with pytest.raises(ConfigError, match="`cmd` does not") as caught:
            model(settings)
        assert caught.value.key == "models.m.proxy"

    def test_elsewhere_it_needs_a_command_with_it_too(self):
        with pytest.raises(ConfigError, match="only in a model whose `cmd` uses it"):
            model("{cmd: x, proxy: 'http://h:1', metadata: {p: '${PORT}'}}")

    def test_end_at_the_last_port_there_is(self):
        with pytest.raises(ConfigError, match="no port left"):
            loads("startPort: 65535\nmodels: {a: {cmd: 'x ${PORT}'}, b: {cmd: 'x ${PORT}'}}")


def test_on_windows_a_model_is_stopped_by_taskkill(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    assert model("{cmd: 'x ${PORT}'}").cmd_stop == "taskkill /f /t /pid ${PID}"
    assert model("{cmd: 'x ${PORT}', cmdStop: 'own'}").cmd_stop == "own"
