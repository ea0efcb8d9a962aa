"""Every key of the file: it is known, it arrives, a wrong value is an error that says where and what would be right."""

import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ringcast_router.config import describe, loads
from ringcast_router.config.decode import write_duration
from ringcast_router.config.model import Capabilities, Timeouts
from ringcast_router.errors import ConfigError

EVERY_KEY = r"""
healthCheckTimeout: 300
globalTTL: 600
unloadTimeout: 20
logLevel: debug
logTimeFormat: rfc3339
logToStdout: both
logRequests: true
metricsMaxInMemory: 500
captureBuffer: 10
store: {path: /var/lib/router/activity.db}
ui: {activity: {session_id: [X-Session, " x-session ", "", X-Thread]}}
performance: {disabled: true, every: 1m30s}
startPort: 9000
sendLoadingState: true
includeAliasesInList: true
macros: {size: 4096, run: "srv --port ${PORT}"}
apiKeys: [first, second]
models:
  big/chat:
    cmd: ${run} -c ${size}
    cmdStop: docker stop big
    proxy: http://127.0.0.1:${PORT}/base
    checkEndpoint: none
    ttl: 60
    unloadTimeout: 5
    healthCheckTimeout: 7
    aliases: [chat]
    env: [A=1]
    name: Big
    description: A large model
    useModelName: big
    unlisted: true
    concurrencyLimit: 4
    sendLoadingState: false
    macros: {size: 8192}
    metadata: {family: x}
    filters: {stripParams: "top_p", setParams: {temperature: 0.5}, setParamsByID: {"${MODEL_ID}:high": {effort: high}}}
    timeouts: {connect: 1, keepalive: 2, responseHeader: 3, tlsHandshake: 4, expectContinue: 5, idleConn: 6}
    compat: {ignoreWebsockets: true}
    capabilities: {in: [text, image], out: [audio], tools: true, reranker: true, context: 8192}
  old:
    cmd: ${run}
    filters: {strip_params: seed}
profiles: {evening: {description: Slow but good, pins: {chat: old, other: ~, third: big/chat}}}
selectors:
  pool: {strategy: spillover, targets: [chat, old], settings: {spillover: 2}, name: P, description: d, unlisted: true,
    metadata: {a: 1}}
peers:
  far:
    proxy: https://far.example
    apiKey: secret
    models: [far-model]
    filters: {stripParams: a, strip_params: b, setParams: {c: 1}}
    timeouts: {connect: 9, keepalive: 9, responseHeader: 9, tlsHandshake: 9, expectContinue: 9, idleConn: 9}
upstream: {ignorePaths: ['\.ico$']}
hooks: {on_startup: {preload: [chat]}}
routing:
  scheduler: {use: fifo, settings: {fifo: {priority: {chat: 3}}}}
  router:
    use: matrix
    settings:
      groups: {g: {swap: false, exclusive: false, persistent: true, members: [old]}}
      matrix: {vars: {b: big/chat}, evict_costs: {b: 5, old: 2}, sets: {all: b & old, one: +all | b}}
ringcast:
  scheduler: fair
  router: group
  fair: {max_wait: 20, min_residence: 5, linger: auto, max_batch: 8, priority: {old: 1}}
  queue: {limit: 10, total: 50, timeout: 60}
  keys:
    - {key: third, priority: 1, max_priority: 5, models: [chat], admin: false, rate: 10}
  resources: {gpu0: 24GiB, ram: 64GB}
  models:
    big/chat:
      {resources: {gpu0: 14.5GiB, ram: 8GB}, liveness: {every: 5, failures: 2}, sleep: {}, pinned: true, priority: 9}
"""

LEGACY = """
models: {a: {cmd: 'x ${PORT}'}}
groups: {g: {swap: true, exclusive: true, persistent: true, members: [a]}}
"""

# What this version accepts without serving it.
UNSERVED = [
    "metricsMaxInMemory",
    "captureBuffer",
    "store",
    "performance",
    "profiles",
    "selectors",
    "peers",
    "ringcast.keys[0].rate",
    "ringcast.resources",
    "ringcast.models.big/chat.resources",
    "ringcast.models.big/chat.sleep",
    "ringcast.models.big/chat.pinned",
]


@pytest.mark.parametrize("text", [EVERY_KEY, LEGACY, LEGACY.replace("groups:", "x:") + "matrix: {sets: {s: a}}"])
def test_every_key_is_known(text):
    unknown = [warning for warning in loads(text).warnings if "unknown" in warning and ": x:" not in warning]
    assert unknown == []


def test_every_key_that_is_not_served_yet_is_named_with_its_line():
    warnings = [warning for warning in loads(EVERY_KEY, file="c.yaml").warnings if "not served" in warning]
    assert sorted(warning.split(": ")[1] for warning in warnings) == sorted(UNSERVED)
    for warning in warnings:
        line = int(re.match(r"c\.yaml:(\d+):", warning)[1])
        assert warning.split(": ")[1].rpartition(".")[2].partition("[")[0] in EVERY_KEY.split("\n")[line - 1]


def test_nothing_else_is_warned_of():
    others = [warning for warning in loads(EVERY_KEY).warnings if "not served" not in warning]
    assert [warning.split(": ")[1] for warning in others] == ["logRequests", "models.big/chat.healthCheckTimeout"]


def test_a_file_that_uses_what_is_served_has_no_warning():
    assert loads(LEGACY).warnings == ()


class TestEveryKeyArrives:
    config = loads(EVERY_KEY)

    def test_of_the_whole_file(self):
        config = self.config
        assert (config.health_check_timeout, config.unload_timeout, config.log_level) == (300, 20, "debug")
        assert (config.log_time_format, config.log_to_stdout) == ("rfc3339", "both")
        assert (config.send_loading_state, config.include_aliases_in_list) == (True, True)
        assert (config.preload, config.ignore_paths) == (("big/chat",), (r"\.ico$",))
        assert config.resolved()["ui"] == {"activity": {"session_id": ["X-Session", "X-Thread"]}}
        assert config.resolved()["performance"] == {"disabled": True, "every": "1m30s"}
        assert config.resolved()["store"] == {"path": "/var/lib/router/activity.db"}

    def test_of_a_model(self):
        model = self.config.models["big/chat"]
        assert (model.cmd, model.cmd_stop, model.port) == ("srv --port 9000 -c 8192", "docker stop big", 9000)
        assert (model.proxy, model.check_endpoint) == ("http://127.0.0.1:9000/base", "none")
        assert (model.ttl, model.unload_timeout, model.health_check_timeout) == (60, 5, 300)
        assert (model.aliases, model.env) == (("chat", "big/chat:high"), ("A=1",))
        assert (model.name, model.description, model.use_model_name) == ("Big", "A large model", "big")
        assert (model.unlisted, model.concurrency_limit, model.limit, model.send_loading_state) == (True, 4, 4, False)
        assert (model.macros, model.metadata) == ((("size", 8192),), {"family": "x"})
        assert model.filters.strip_params == "top_p"
        assert model.filters.set_params == {"temperature": 0.5}
        assert model.filters.set_params_by_id == {"big/chat:high": {"effort": "high"}}
        assert model.timeouts == Timeouts(1, 2, 3, 4, 5, 6)
        assert model.ignore_websockets
        assert model.capabilities == Capabilities(("text", "image"), ("audio",), True, True, 8192)

    def test_of_a_model_with_defaults(self):
        model = self.config.models["old"]
        assert (model.ttl, model.unload_timeout, model.send_loading_state, model.limit) == (600, 20, True, 10)
        assert model.filters.strip_params == "seed"
        assert model.timeouts == Timeouts()

    def test_of_ours(self):
        config, model = self.config, self.config.models["big/chat"]
        assert (config.scheduler, config.router) == ("fair", "group")
        assert (config.fair.max_wait, config.fair.min_residence, config.fair.linger) == (20, 5, None)
        assert (config.fair.max_batch, config.queue.limit, config.queue.total, config.queue.timeout) == (8, 10, 50, 60)
        assert [(key.key, key.models, key.admin) for key in config.keys] == [
            ("first", None, True),
            ("second", None, True),
            ("third", frozenset({"big/chat"}), False),
        ]
        assert (config.keys[2].priority, config.keys[2].max_priority) == (1, 5)
        assert (model.liveness.every, model.liveness.failures, model.pinned, model.priority) == (5, 2, True, 9)
        assert model.resources == {"gpu0": 14.5 * 2**30, "ram": 8 * 10**9}
        assert config.fifo_priority == {"big/chat": 3}
        assert config.models["old"].priority == 1


def test_the_text_of_the_resolved_configuration_is_yaml_that_says_what_holds():
    config = loads(EVERY_KEY)
    told = yaml.safe_load(describe(config))
    ours = told.pop("ringcast")
    assert told == config.resolved()
    assert (ours["scheduler"], ours["fair"]["linger"], ours["models"]["old"]["priority"]) == ("fair", "auto", 1)
    assert "&id" not in describe(config)


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("helthCheckTimeout: 20", "helthCheckTimeout", "healthCheckTimeout"),
        ("health_check_timeout: 20", "health_check_timeout", "healthCheckTimeout"),
        ("models: {a: {cmd: 'x ${PORT}', TTL: 3}}", "models.a.TTL", "ttl"),
        ("models: {a: {cmd: 'x ${PORT}', timeouts: {conect: 3}}}", "models.a.timeouts.conect", "connect"),
        ("groups: {g: {members: [], preload: true}}", "groups.g.preload", None),
        ("groups: {g: {menbers: []}}", "groups.g.menbers", "members"),
        ("ringcast: {fair: {maxWait: 3}}", "ringcast.fair.maxWait", "max_wait"),
        ("zzz: 1", "zzz", None),
    ],
)
def test_an_unknown_key_is_warned_of_with_line_and_the_nearest_known_key(text, key, near):
    (warning,) = loads("\n\n" + text, file="c.yaml").warnings
    assert warning.startswith(f"c.yaml:3: {key}: unknown key")
    assert (f"did you mean `{near}`?" in warning) if near else ("did you mean" not in warning)


INTEGERS = [
    "healthCheckTimeout", "globalTTL", "unloadTimeout", "metricsMaxInMemory", "captureBuffer", "startPort",
    "models.m.ttl",
    "models.m.unloadTimeout", "models.m.concurrencyLimit", "models.m.timeouts.connect", "models.m.capabilities.context",
    "matrix.evict_costs.m", "routing.scheduler.settings.fifo.priority.m", "ringcast.fair.max_batch",
    "ringcast.queue.limit",
]  # fmt: skip
BOOLEANS = [
    "sendLoadingState", "includeAliasesInList", "logRequests", "performance.disabled", "models.m.unlisted",
    "models.m.sendLoadingState", "models.m.compat.ignoreWebsockets", "models.m.capabilities.tools", "groups.g.swap",
    "ringcast.models.m.pinned",
]  # fmt: skip
STRINGS = [
    "logLevel",
    "logTimeFormat",
    "models.m.name",
    "models.m.cmdStop",
    "models.m.useModelName",
    "ringcast.scheduler",
]
LISTS = ["apiKeys", "models.m.aliases", "models.m.env", "groups.g.members", "hooks.on_startup.preload", "ringcast.keys"]
MAPPINGS = [
    "models",
    "models.m",
    "models.m.metadata",
    "groups",
    "groups.g",
    "routing",
    "ringcast",
    "ringcast.fair",
    "ui",
]


def file_with(key, value):
    """Return a file with a model m and, in line 3, one more value at a path."""
    names = key.split(".")
    if names[:2] == ["models", "m"] and len(names) > 2:
        return f"models:\n  m:\n    {_flow(names[2:], value)}\n    cmd: x ${{PORT}}\n"
    model = "" if names[0] == "models" else "models: {m: {cmd: 'x ${PORT}'}}"
    sets = ", sets: {s: m}" if names[0] == "matrix" else ""
    return f"{model}\n\n{_flow(names, value, sets)}\n"


def _flow(names, value, more=""):
    text = str(value)
    for name in reversed(names[1:]):
        text = f"{{{name}: {text}}}"
    return f"{names[0]}: {text[:-1] + more + '}' if more else text}"


@pytest.mark.parametrize("key", INTEGERS)
class TestIntegers:
    @pytest.mark.parametrize("value", ["many", "'30'", "true", "[1]", "{a: 1}", ".nan", ".inf"])
    def test_refuse(self, key, value):
        with pytest.raises(ConfigError, match="must be a whole number, not") as caught:
            loads(file_with(key, value))
        assert (caught.value.key, caught.value.line) == (key, 3)

    @pytest.mark.parametrize("value", ["20", "20.9", "0x14", "2e1"])
    def test_take(self, key, value):
        loads(file_with(key, value))


@pytest.mark.parametrize("key", BOOLEANS)
class TestBooleans:
    @pytest.mark.parametrize("value", ["1", "maybe", "Yes", "[true]"])
    def test_refuse(self, key, value):
        with pytest.raises(ConfigError, match="must be true or false, not") as caught:
            loads(file_with(key, value))
        assert (caught.value.key, caught.value.line) == (key, 3)

    @pytest.mark.parametrize("value", ["true", "FALSE", "yes", "on", "n", "'off'", "~"])
    def test_take(self, key, value):
        loads(file_with(key, value))


@pytest.mark.parametrize("key", STRINGS)
class TestStrings:
    @pytest.mark.parametrize("value", ["[a]", "{a: 1}"])
    def test_refuse(self, key, value):
        with pytest.raises(ConfigError, match="must be a string, not a") as caught:
            loads(file_with(key, value))
        assert (caught.value.key, caught.value.line) == (key, 3)

    @pytest.mark.parametrize("value", ["010", "1e3", "true", "2026-01-02", "'x'", "~"])
    def test_take(self, key, value):
        loads(file_with(key, value))


@pytest.mark.parametrize("value", ["010", "1e3", "true", "2026-01-02"])
def test_a_string_field_takes_what_is_written(value):
    assert loads(file_with("models.m.name", value)).models["m"].name == value


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize("value", ["a", "7", "{a: 1}"])
def test_lists_refuse(key, value):
    with pytest.raises(ConfigError, match="must be a list, not") as caught:
        loads(file_with(key, value))
    assert (caught.value.key, caught.value.line) == (key, 3)


@pytest.mark.parametrize("key", MAPPINGS)
@pytest.mark.parametrize("value", ["a", "7", "[a]"])
def test_mappings_refuse(key, value):
    text = f"\n\nmodels: {{m: {value}}}" if key == "models.m" else file_with(key, value)
    with pytest.raises(ConfigError, match="must be a mapping") as caught:
        loads(text)
    assert (caught.value.key, caught.value.line) == (key, 3)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("startPort", "0", "at least 1"),
        ("globalTTL", "-1", "at least 0"),
        ("unloadTimeout", "-1", "at least 0"),
        ("logToStdout", "nowhere", "proxy, upstream, both, none"),
        ("apiKeys", "['']", "empty"),
        ("apiKeys", "[a, 'b c']", "spaces"),
        ("performance.every", "soon", "a duration such as"),
        ("performance.every", "5", "a duration such as"),
        ("performance.every", "4s", "at least 5s"),
        ("store.path", "''", "name a file"),
        ("upstream.ignorePaths", "['(']", "no regular expression"),
        ("models.m.ttl", "-2", "at least -1"),
        ("models.m.unloadTimeout", "-1", "at least 0"),
        ("models.m.proxy", "'::bad'", "a URL such as"),
        ("models.m.proxy", "localhost:80", "a URL such as"),
        ("models.m.proxy", "'ftp://h:80'", "a URL such as"),
        ("models.m.proxy", "'http://'", "a URL such as"),
        ("models.m.proxy", "''", "a URL such as"),
        ("models.m.proxy", "http://h:65536", "a port from 1 to 65535"),
        ("models.m.proxy", "http://h:0", "a port from 1 to 65535"),
        ("models.m.proxy", "'http://[::1]:99999'", "a port from 1 to 65535"),
        ("models.m.proxy", "http://a..b:80", "a host of valid labels"),
        ("models.m.proxy", f"http://{'x' * 64}:80", "a host of valid labels"),
        ("models.m.proxy", "'http://[1.2:3]:80'", "a URL such as"),
        ("models.m.aliases", "[a, a]", "twice"),
        ("models.m.capabilities.in", "[text, smell]", "text, audio, image"),
        ("models.m.capabilities.context", "-1", "at least 0"),
        ("models.m.metadata", "{a: .nan}", "JSON has no"),
    ],
)
def test_values_that_cannot_be(key, value, words):
    with pytest.raises(ConfigError, match=words) as caught:
        loads(file_with(key, value))
    assert caught.value.key.startswith(key)
    assert caught.value.line == 3


@pytest.mark.parametrize(
    "proxy",
    ["http://h", "https://h:1/a?b", "http://[::1]:80/x", "HTTP://h", "http://my_host:65535", "http://10.0.0.1:80/"],
)
def test_urls_that_can_be(proxy):
    assert loads(file_with("models.m.proxy", f"'{proxy}'")).models["m"].proxy == proxy


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("models.m.concurrencyLimit", "-1", "treated as 0"),
        ("models.m.env", "[plain]", "NAME=value"),
        ("models.m.env", "['=x']", "NAME=value"),
        ("logLevel", "loud", "acts as info"),
        ("hooks.on_startup.preload", "[n]", "no model 'n'"),
        ("groups.g.members", "[n]", "no model 'n'"),
    ],
)
def test_values_that_are_warned_of(key, value, words):
    (warning,) = loads(file_with(key, value), file="c.yaml").warnings
    assert warning.startswith(f"c.yaml:3: {key}: ")
    assert words in warning


def test_the_short_health_check_is_lengthened_and_no_unload_timeout_means_the_default():
    config = loads("healthCheckTimeout: 5\nunloadTimeout: 0\nmodels: {m: {cmd: 'x ${PORT}'}}")
    assert (config.health_check_timeout, config.unload_timeout) == (15, 10)
    assert (config.models["m"].health_check_timeout, config.models["m"].unload_timeout) == (15, 10)


class TestNames:
    def test_an_alias_of_two_models_is_an_error(self):
        with pytest.raises(ConfigError, match="alias of a already") as caught:
            loads("models:\n  b: {cmd: 'x ${PORT}', aliases: [n]}\n  a: {cmd: 'x ${PORT}', aliases: [n]}")
        assert (caught.value.key, caught.value.line) == ("models.b.aliases", 2)

    def test_an_alias_may_equal_an_id_which_wins(self):
        config = loads("models: {a: {cmd: 'x ${PORT}', aliases: [b]}, b: {cmd: 'x ${PORT}'}}")
        assert (config.model_id("b"), config.model_id("a"), config.model_id("c")) == ("b", "a", None)

    def test_keys_of_set_params_by_id_become_aliases_but_for_the_own_id(self):
        filters = "filters: {setParamsByID: {z: {}, y: {}, a: {}, n: {}}}"
        config = loads(f"models: {{a: {{cmd: 'x ${{PORT}}', aliases: [n], {filters}}}}}")
        assert config.models["a"].aliases == ("n", "y", "z")

    @pytest.mark.parametrize(("name", "words"), [("b", "id of another"), ("n", "alias of b already")])
    def test_keys_of_set_params_by_id_that_stand_for_another_model_are_errors(self, name, words):
        with pytest.raises(ConfigError, match=words) as caught:
            loads(
                f"models:\n  a: {{cmd: 'x ${{PORT}}', filters: {{setParamsByID: {{{name}: {{}}}}}}}}\n"
                "  b: {cmd: 'x ${PORT}', aliases: [n]}"
            )
        assert caught.value.key == "models.a.filters.setParamsByID"


class TestWhatIsNotServedIsStillChecked:
    @pytest.mark.parametrize(
        ("text", "key"),
        [
            ("profiles: {p: [a, b]}", "profiles.p"),
            ("profiles: {p: {pins: {}}}", "profiles.p.pins"),
            ("profiles: {p: {pins: {a: nobody}}}", "profiles.p.pins.a"),
            ("selectors: {s: {targets: [a]}}", "selectors.s.strategy"),
            ("selectors: {s: {strategy: best, targets: [a]}}", "selectors.s.strategy"),
            ("selectors: {s: {strategy: pin}}", "selectors.s.targets"),
            ("selectors: {s: {strategy: pin, targets: [nobody]}}", "selectors.s.targets"),
            ("selectors: {s: {strategy: warm, targets: [remote]}}", "selectors.s.targets"),
            ("selectors: {a: {strategy: pin, targets: [a]}}", "selectors.a"),
            ("selectors: {s: {strategy: spillover, targets: [a], settings: {spillover: 0}}}",
             "selectors.s.settings.spillover"),
            ("peers: {q: {models: [x]}}", "peers.q.proxy"),
            ("peers: {q: {proxy: 'http://h'}}", "peers.q.models"),
        ],
    )  # fmt: skip
    def test_wrong(self, text, key):
        head = "models: {a: {cmd: 'x ${PORT}'}}\n"
        peers = "" if text.startswith("peers") else "\npeers: {p: {proxy: 'http://h', models: [remote]}}"
        with pytest.raises(ConfigError) as caught:
            loads(head + text + peers)
        assert (caught.value.key, caught.value.line) == (key, 2)

    def test_right(self):
        config = loads(
            "models: {a: {cmd: 'x ${PORT}', aliases: [b]}}\npeers: {p: {proxy: 'http://h', models: [remote]}}\n"
            "selectors: {s: {strategy: pin, targets: [remote, p/remote, b]}, t: {strategy: warm, targets: [b]}}\n"
            "profiles: {p: {pins: {x: s, y: remote, z: ''}}}\n"
        )
        assert config.resolved()["peers"]["p"]["timeouts"]["responseHeader"] == 60
        assert config.resolved()["profiles"]["p"] == {"description": "", "pins": {"x": "s", "y": "remote", "z": ""}}


@given(st.integers(5, 10**6), st.integers(0, 999))
def test_a_duration_is_read_as_it_is_written(seconds, thousandths):
    written = write_duration(seconds + thousandths / 1000)
    assert loads(f"performance: {{every: {written}}}").resolved()["performance"]["every"] == written


def test_only_the_reader_needs_more_than_the_standard_library():
    program = (
        "import sys\n"
        "from ringcast_router.config.build import build\n"
        "from ringcast_router.config.tree import Node\n"
        "import ringcast_router.config, ringcast_router.planning\n"
        "model = Node({'cmd': Node('x ${PORT}', 'x ${PORT}')})\n"
        "print(build(Node({'models': Node({'m': model})})).models['m'].cmd)\n"
        "known = sys.stdlib_module_names | {'ringcast_router', '__main__'}\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - known - set(sys.argv[1:])))\n"
    )
    # What the interpreter loads by itself at its start (such as hooks of editable installs) is not ours.
    bare = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    at_start = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True).stdout.split()
    done = subprocess.run([sys.executable, "-c", program, *at_start], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["x 5800", "[]"]
