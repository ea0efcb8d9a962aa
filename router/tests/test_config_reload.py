"""What a reload keeps: the servers of models that have not changed, on their ports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringcast_router.config import keep, loads

COMMANDS = ("x ${PORT}", "y --port ${PORT} -v", "z")


def config(models, start=5800, tail=""):
    """Return the configuration of models that are given as a mapping of id to command or settings."""
    lines = [f"startPort: {start}", "models:" + ("" if models else " {}")]
    for name, settings in models.items():
        settings = settings if isinstance(settings, dict) else {"cmd": settings}
        lines.append(f"  {name}:")
        lines += [f"    {key}: {value}" for key, value in settings.items()]
        if "PORT" not in settings["cmd"]:
            lines.append("    proxy: http://localhost:1")
    return loads("\n".join([*lines, tail]))


def ports(of):
    return {name: model.port for name, model in of.models.items()}


def test_a_new_model_before_the_others_does_not_shift_their_ports():
    old = config({"b": "x ${PORT}", "c": "x ${PORT}"})
    new, kept = keep(old, config({"a": "x ${PORT}", "b": "x ${PORT}", "c": "x ${PORT}"}))
    assert kept == {"b", "c"}
    assert ports(new) == {"a": 5802, "b": 5800, "c": 5801}
    assert (new.models["a"].cmd, new.models["b"].cmd) == ("x 5802", "x 5800")
    assert new.models["b"].proxy == "http://localhost:5800"
    assert new.resolved()["models"]["b"]["cmd"] == "x 5800"


def test_a_removed_model_does_not_shift_the_ports_of_others():
    old = config({"a": "x ${PORT}", "b": "x ${PORT}"})
    new, kept = keep(old, config({"b": "x ${PORT}"}))
    assert (kept, ports(new)) == ({"b"}, {"b": 5801})


def test_the_port_of_a_removed_model_is_not_given_to_another_at_once():
    old = config({"a": "x ${PORT}"})
    new, kept = keep(old, config({"b": "x ${PORT}"}))
    assert (kept, ports(new)) == (frozenset(), {"b": 5801})
    assert ports(keep(new, config({"b": "x ${PORT}", "c": "x ${PORT}"}))[0]) == {"b": 5801, "c": 5800}


def test_the_port_of_a_server_that_drains_is_given_out_when_it_has_stopped():
    first = config({"a": "x ${PORT}", "z": "x ${PORT}"})
    second, _ = keep(first, config({"z": "x ${PORT}"}))
    third = config({"b": "x ${PORT}", "z": "x ${PORT}"})
    assert ports(keep(second, third, live={5800, 5801})[0]) == {"b": 5802, "z": 5801}
    assert ports(keep(second, third)[0]) == {"b": 5800, "z": 5801}
    assert ports(keep(config({}), config({"b": "x ${PORT}"}), live={5800})[0]) == {"b": 5801}


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ({"cmd": "y ${PORT}"}, False),
        ({"cmdStop": "stop"}, False),
        ({"env": "[A=1]"}, False),
        ({"proxy": "http://127.0.0.1:${PORT}"}, False),
        ({"checkEndpoint": "/ready"}, False),
        ({"ttl": 9}, True),
        ({"unloadTimeout": 9}, True),
        ({"aliases": "[other]"}, True),
        ({"name": "other"}, True),
        ({"concurrencyLimit": 3}, True),
        ({"filters": "{setParams: {a: 1}}"}, True),
        ({"metadata": "{port: '${PORT}'}"}, True),
        ({"unlisted": "true"}, True),
    ],
)
def test_what_changes_a_server_and_what_does_not(setting, kept):
    old = config({"m": "x ${PORT}"})
    new, same = keep(old, config({"a": "x ${PORT}", "m": {"cmd": "x ${PORT}", **setting}}))
    assert same == ({"m"} if kept else set())
    assert new.models["m"].port == 5800


def test_a_macro_or_global_setting_that_reaches_the_command_counts_and_others_do_not():
    old = config({"m": "x ${a} ${PORT}"}, tail="macros: {a: 1}")
    assert keep(old, config({"m": "x ${a} ${PORT}"}, tail="macros: {a: 2}"))[1] == frozenset()
    assert keep(old, config({"m": "x ${a} ${PORT}"}, tail="macros: {a: 1}\nglobalTTL: 9"))[1] == {"m"}


def test_another_first_port_moves_all():
    old = config({"a": "x ${PORT}", "b": "x ${PORT}"})
    new, kept = keep(old, config({"a": "x ${PORT}", "b": "x ${PORT}"}, start=7000))
    assert (kept, ports(new)) == (frozenset(), {"a": 7000, "b": 7001})


def test_warnings_are_told_once():
    new, _ = keep(config({"b": "x ${PORT}"}), config({"a": "x ${PORT}", "b": "x ${PORT}"}, tail="unknown: 1"))
    assert len(new.warnings) == 1


models = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(COMMANDS))


@given(st.lists(st.tuples(models, st.sampled_from([5800, 5802])), min_size=2, max_size=6))
def test_over_any_sequence_of_reloads(generations):
    in_force = config(*generations[0])
    for commands, start in generations[1:]:
        before, loaded = in_force, config(commands, start)
        in_force, kept = keep(before, loaded)
        given_ports = [port for port in ports(in_force).values() if port]
        assert len(set(given_ports)) == len(given_ports), "two models have one port"
        assert in_force.models.keys() == loaded.models.keys()
        for name, model in in_force.models.items():
            assert bool(model.port) == ("${PORT}" in commands[name])
            assert (str(model.port) in model.cmd) == bool(model.port)
            if name in kept:
                assert (model.cmd, model.port) == (before.models[name].cmd, before.models[name].port)
            else:
                others = {port for other, port in ports(before).items() if other != name and port}
                assert model.port not in others, "a server of the old configuration may still listen there"
        if before.settings["startPort"] == start:
            same = {name for name in commands if before.models.get(name) and _template(before, name) == commands[name]}
            assert kept == same


def _template(of, name):
    model = of.models[name]
    return model.cmd.replace(str(model.port), "${PORT}") if model.port else model.cmd
