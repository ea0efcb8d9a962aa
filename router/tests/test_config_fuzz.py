"""Whatever a file holds, reading it gives a configuration, or a ConfigError that names a line or a key."""

import copy

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringcast_router.config import describe, keep, loads
from ringcast_router.errors import ConfigError

FULL = yaml.safe_load(r"""
healthCheckTimeout: 20
globalTTL: 0
unloadTimeout: 3
logLevel: info
logTimeFormat: rfc3339
logToStdout: proxy
logRequests: true
metricsMaxInMemory: 100
captureBuffer: 5
store: {path: activity.db}
ui: {activity: {session_id: [X-A]}}
performance: {disabled: false, every: 10s}
startPort: 5800
sendLoadingState: false
includeAliasesInList: true
macros: {a: x, b: "${a}y", n: 3}
apiKeys: [k1]
models:
  m1:
    cmd: prog ${PORT} ${b}
    cmdStop: kill ${PID}
    proxy: http://localhost:${PORT}
    checkEndpoint: /health
    ttl: 3
    aliases: [al]
    env: [A=b]
    useModelName: u
    concurrencyLimit: 3
    sendLoadingState: true
    macros: {z: 1}
    metadata: {a: [1, 2, {b: c}]}
    filters: {stripParams: "a,b", setParams: {t: 1}, setParamsByID: {al2: {x: 1}}}
    timeouts: {connect: 1, keepalive: 1}
    compat: {ignoreWebsockets: true}
    capabilities: {in: [text], out: [text], tools: true, context: 100}
  m2: {cmd: "prog ${PORT}"}
profiles: {p: {description: d, pins: {a: m1}}}
selectors: {s: {strategy: warm, targets: [m1], settings: {spillover: 1}}}
routing:
  scheduler: {use: fifo, settings: {fifo: {priority: {m1: 1}}}}
  router:
    use: matrix
    settings:
      groups: {g: {swap: true, exclusive: true, persistent: false, members: [m1]}}
      matrix: {vars: {v: m1}, evict_costs: {v: 3}, sets: {s1: v|m2, s2: +s1&m1}}
hooks: {on_startup: {preload: [m1]}}
peers: {pe: {proxy: "http://a:1", apiKey: k, models: [x], timeouts: {connect: 1}}}
upstream: {ignorePaths: [a.*]}
ringcast:
  scheduler: fair
  router: group
  fair: {max_wait: 3, min_residence: auto, linger: 0, max_batch: 3, priority: {m1: 1}}
  queue: {limit: 1, total: 1, timeout: 1}
  keys: [{key: a, priority: 1, max_priority: 1, models: [m1], admin: true}]
  resources: {g: 1GiB}
  models: {m1: {resources: {g: 1GiB}, liveness: {every: 1, failures: 2}, pinned: true, priority: 1}}
""")

STRANGE = (
    "null", '""', "x", "-1", "0", "1.5", "1e400", ".nan", "-.inf", "true", "[]", "{}", "[null]", "[[1]]", "[{}]",
    "{a: null}", "{1: 2}", "{? [a] : b}", "9" * 5000, "9" * 400 + "s", f'"{"9" * 400}GiB"', '"\\0"', '"\\ud800"',
    '"${PORT}"', '"${PID}"', '"${a}"', '"${x}"', '"${n}"', '"${"', '"${}"', '"${MODEL_ID}"', '"${env.NOPE}"',
    '!!int "3"', "!!binary aGk=", "!!set {a}", "!foo bar", "!!float x", "!!timestamp 2001-01-01", "2026-13-45",
    '"\\n"', '"٣"', '"http://[::1"', '"http://a:99999"', '"http://a:٣"', '"((("', '"a{99999999}"', "m2", "al", "0x_1",
    "&x [*x]", "*nowhere", "5s5", "1e308GiB", f'"{"(" * 3000}m1{")" * 3000}"', f'"{"m1|" * 3000}m1"', "{<<: 5}",
)  # fmt: skip


STRANGE_KEYS = (
    "null",
    '""',
    "-1",
    ".nan",
    "true",
    '"\\0"',
    '"${PORT}"',
    '"${a}"',
    '"${env.NOPE}"',
    '!!int "3"',
    '"\\n"',
)


def paths(tree, path=()):
    yield path
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, member in members:
        yield from paths(member, (*path, name))


def with_gap(path, as_key):
    """Return the full file with `@@@` at a path, as the value or as the key."""
    tree = copy.deepcopy(FULL)
    if not path:
        return "@@@"
    parent = tree
    for name in path[:-1]:
        parent = parent[name]
    if as_key:
        parent["@@@"] = parent.pop(path[-1])
    else:
        parent[path[-1]] = "@@@"
    return yaml.safe_dump(tree, sort_keys=False, width=100_000).replace("'@@@'", "@@@")


def read(text):
    """Read a file; use what comes out of it, or look at the error. Return the configuration, if there is one."""
    try:
        config = loads(text, file="f.yaml", environ={"SET": "value"})
    except ConfigError as caught:
        error = caught
    else:
        kept, _ = keep(config, config)
        assert kept.models.keys() == config.models.keys()
        assert all(len(warning.splitlines()) == 1 for warning in config.warnings), config.warnings
        return config
    assert error.line or error.key, error
    assert str(error).startswith("f.yaml"), error
    assert len(str(error).splitlines()) == 1, error
    return None


PLACES = list(paths(FULL))


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)) or "file")
def test_strange_values_at_each_place_of_a_full_file(path):
    file = with_gap(path, as_key=False)
    for text in STRANGE[PLACES.index(path) % 4 :: 4]:  # all of them take a minute; each kind of key has many places
        read(file.replace("@@@", text))


@pytest.mark.parametrize(
    "path",
    [path for path in paths(FULL) if path and isinstance(path[-1], str)],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_strange_key_at_each_place_of_a_full_file(path):
    file = with_gap(path, as_key=True)
    for text in STRANGE_KEYS:
        read(file.replace("@@@", text))


SCALARS = st.one_of(st.sampled_from(STRANGE), st.text(alphabet="ab${}:-[]'\"#&*!|>%@\n 01.", max_size=12))
WORDS = st.sampled_from(sorted({str(name) for path in paths(FULL) for name in path if isinstance(name, str)}))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(WORDS, inner, max_size=5).map(
            lambda found: "{" + ", ".join(f"{name}: {value}" for name, value in found.items()) + "}"
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(WORDS, TREES, max_size=6))
def test_random_trees_of_known_keys(members):
    config = read("".join(f"{name}: {value}\n" for name, value in members.items()))
    assert config is None or describe(config)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(alphabet="ab${}.envSETPORT:-[]'\"#&*!|>%@,?<\n\t 01\x00\x85\ufeff\U0001f600", max_size=60))
def test_random_text(text):
    read(text)
