"""Groups, matrix, scheduler, and what stands below `ringcast:`."""

import pytest

from ringcast_router.config import loads
from ringcast_router.config.model import Fair, Group, Key, Liveness, Matrix, Queue
from ringcast_router.errors import ConfigError

MODELS = "models: {a: {cmd: 'x ${PORT}', aliases: [other]}, b: {cmd: 'x ${PORT}'}, o/c: {cmd: 'x ${PORT}'}}\n"


def error(text):
    """Return the error of a file with three models and, from line 2 on, a text."""
    with pytest.raises(ConfigError) as caught:
        loads(MODELS + text)
    return caught.value


class TestGroups:
    @pytest.mark.parametrize("text", ["groups: {g: %s}", "routing: {router: {settings: {groups: {g: %s}}}}"])
    def test_both_forms_come_to_the_same(self, text):
        config = loads(MODELS + text % "{swap: false, members: [b]}")
        expected = {"g": Group(swap=False, members=("b",)), "(default)": Group(members=("a", "o/c"))}
        assert (config.groups, config.router, config.matrix) == (expected, "group", None)
        resolved = config.resolved()
        assert resolved["routing"]["router"]["settings"]["groups"] == resolved["groups"]
        assert resolved["routing"]["router"]["use"] == "group"

    def test_without_groups_all_models_are_in_the_default_one(self):
        assert loads(MODELS).groups == {"(default)": Group(members=("a", "b", "o/c"))}

    @pytest.mark.parametrize(
        ("groups", "key", "words"),
        [
            ("{g: {members: [a, a]}}", "g.members", "stands twice"),
            ("{g: {members: [a]}, h: {members: [a]}}", "h.members", "here and in g"),
        ],
    )
    @pytest.mark.parametrize("path", ["groups", "routing.router.settings.groups"])
    def test_a_model_is_in_one_group_once(self, path, groups, key, words):
        text = f"groups: {groups}" if path == "groups" else f"routing: {{router: {{settings: {{groups: {groups}}}}}}}"
        caught = error(text)
        assert (caught.key, caught.line) == (f"{path}.{key}", 2)
        assert words in caught.message


class TestMatrix:
    @pytest.mark.parametrize("text", ["matrix: %s", "routing: {router: {use: matrix, settings: {matrix: %s}}}"])
    def test_both_forms_come_to_the_same(self, text):
        matrix = "{vars: {c: o/c}, evict_costs: {c: 5, a: 2}, sets: {z: a & c, y: '+z | b'}}"
        config = loads(MODELS + text % matrix)
        assert config.matrix == Matrix({"c": "o/c"}, {"o/c": 5, "a": 2}, (("z", "a & c"), ("y", "+z | b")))
        assert config.router == "matrix"
        resolved = config.resolved()
        assert resolved["routing"]["router"] == {
            "use": "matrix",
            "settings": {"groups": {}, "matrix": resolved["matrix"]},
        }

    @pytest.mark.parametrize(
        ("matrix", "key", "words"),
        [
            ("{}", "sets", "at least one set"),
            ("{sets: {}}", "sets", "at least one set"),
            ("{vars: {c: nobody}, sets: {s: a}}", "vars.c", "no model 'nobody'"),
            ("{vars: {c: other}, sets: {s: a}}", "vars.c", "no model 'other'"),
            ("{vars: {c_d: a}, sets: {s: a}}", "vars.c_d", "1 to 32 letters"),
            (f"{{vars: {{{'c' * 33}: a}}, sets: {{s: a}}}}", f"vars.{'c' * 33}", "1 to 32 letters"),
            ("{evict_costs: {a: 0}, sets: {s: a}}", "evict_costs.a", "at least 1"),
            ("{evict_costs: {n: 1}, sets: {s: a}}", "evict_costs.n", "no var or model"),
            ("{sets: {s: a, t: ''}}", "sets.t", ""),
            ("{sets: {s: a, t: a &}}", "sets.t", ""),
            ("{sets: {s: a, t: (a}}", "sets.t", ""),
            ("{sets: {s: a, t: nobody}}", "sets.t", "neither a var nor"),
            ("{sets: {s: a, t: +nothing}}", "sets.t", "not defined"),
            ("{sets: {s: a, t: o/c}}", "sets.t", ""),
            ("{sets: [a]}", "sets", "mapping"),
        ],
    )
    @pytest.mark.parametrize("path", ["matrix", "routing.router.settings.matrix"])
    def test_what_cannot_be_names_the_place(self, path, matrix, key, words):
        text = (
            f"matrix: {matrix}"
            if path == "matrix"
            else f"routing: {{router: {{use: matrix, settings: {{matrix: {matrix}}}}}}}"
        )
        caught = error(text)
        assert (caught.key, caught.line) == (f"{path}.{key}", 2)
        assert words in caught.message

    def test_sets_that_refer_to_one_another_in_a_circle_are_an_error(self):
        caught = error("matrix: {sets: {s: +t, t: +s}}")
        assert caught.key.startswith("matrix.sets")
        assert caught.line == 2

    def test_of_one_that_is_not_used_the_types_alone_are_checked(self):
        text = "routing: {router: {use: group, settings: {matrix: {sets: {s: nobody}}}}}"
        assert loads(MODELS + text).router == "group"


class TestForms:
    @pytest.mark.parametrize("legacy", ["groups: {g: {members: [a]}}", "matrix: {sets: {s: a}}"])
    @pytest.mark.parametrize(
        "router", ["use: group", "settings: {groups: {g: {members: [b]}}}", "settings: {matrix: {sets: {s: a}}}"]
    )
    def test_legacy_and_new_together_are_an_error(self, legacy, router):
        assert "stands beside `routing.router`" in error(f"{legacy}\nrouting: {{router: {{{router}}}}}").message

    def test_groups_and_matrix_together_are_an_error_in_the_legacy_form(self):
        assert error("groups: {g: {members: [a]}}\nmatrix: {sets: {s: a}}").key == "matrix"

    def test_of_groups_and_matrix_in_the_new_form_use_picks_one(self):
        settings = "settings: {groups: {g: {members: [a]}}, matrix: {sets: {s: a}}}"
        config = loads(MODELS + f"routing: {{router: {{use: matrix, {settings}}}}}")
        assert config.router == "matrix"
        config = loads(MODELS + f"routing: {{router: {{{settings}}}}}")
        assert (config.router, config.matrix, config.groups["g"].members) == ("group", None, ("a",))

    def test_empty_groups_beside_the_new_form_do_no_harm(self):
        assert loads(MODELS + "groups: {}\nrouting: {router: {use: group}}").router == "group"

    @pytest.mark.parametrize(
        ("router", "words"), [("use: matrix", "matrix is missing"), ("use: best", "must be group or matrix")]
    )
    def test_a_router_that_cannot_be(self, router, words):
        caught = error(f"routing: {{router: {{{router}}}}}")
        assert caught.key == "routing.router.use"
        assert words in caught.message


class TestScheduler:
    def test_is_fair_where_the_file_names_none(self):
        config = loads(MODELS)
        assert (config.scheduler, config.warnings) == ("fair", ())
        assert config.resolved()["routing"]["scheduler"]["use"] == "fifo"  # as the original has it

    def test_is_fifo_where_the_file_says_so_with_one_line_that_names_fair(self):
        config = loads(MODELS + "routing: {scheduler: {use: fifo}}")
        assert config.scheduler == "fifo"
        assert ["scheduler: fair" in warning for warning in config.warnings] == [True]

    def test_is_what_ringcast_says_before_all(self):
        config = loads(MODELS + "routing: {scheduler: {use: fifo}}\nringcast: {scheduler: fair}")
        assert (config.scheduler, config.warnings) == ("fair", ())
        assert loads("ringcast: {scheduler: 'own.module:Class', router: 'own:Planner'}").scheduler == "own.module:Class"

    def test_the_original_s_key_takes_the_original_s_values(self):
        assert error("routing: {scheduler: {use: fair}}").key == "routing.scheduler.use"

    def test_priorities_may_name_aliases_and_must_name_models(self):
        text = "routing: {scheduler: {settings: {fifo: {priority: {other: 5, b: -1}}}}}"
        assert loads(MODELS + text).fifo_priority == {"a": 5, "b": -1}
        caught = error("routing: {scheduler: {settings: {fifo: {priority: {nobody: 5}}}}}")
        assert (caught.key, caught.line) == ("routing.scheduler.settings.fifo.priority.nobody", 2)


class TestRingcast:
    def test_defaults(self):
        config = loads(MODELS)
        assert (config.fair, config.queue, config.keys) == (Fair(), Queue(), ())
        assert config.models["a"].liveness == Liveness()

    @pytest.mark.parametrize(
        ("ours", "priority"),
        [
            ("{}", 1),
            ("{fair: {priority: {a: 2}}}", 2),
            ("{fair: {priority: {other: 2}}}", 2),
            ("{fair: {priority: {a: 2}}, models: {a: {priority: 3}}}", 3),
            ("{models: {a: {priority: 0}}}", 0),
        ],
    )
    def test_the_priority_nearest_to_the_model_holds(self, ours, priority):
        text = f"routing: {{scheduler: {{settings: {{fifo: {{priority: {{a: 1}}}}}}}}}}\nringcast: {ours}"
        config = loads(MODELS + text)
        assert (config.models["a"].priority, config.models["b"].priority) == (priority, 0)

    @pytest.mark.parametrize(("text", "value"), [("auto", None), ("~", None), ("0", 0.0), ("1.5", 1.5)])
    @pytest.mark.parametrize("key", ["min_residence", "linger"])
    def test_what_can_be_measured_may_be_auto(self, key, text, value):
        assert getattr(loads(f"ringcast: {{fair: {{{key}: {text}}}}}").fair, key) == value

    def test_keys_name_models_by_id_or_alias(self):
        config = loads(MODELS + "ringcast: {keys: [{key: k, models: [other, b]}, {key: n, models: []}]}")
        assert [key.models for key in config.keys] == [frozenset({"a", "b"}), frozenset()]

    def test_a_key_in_both_lists_has_what_ringcast_says(self):
        config = loads(MODELS + "apiKeys: [x, k]\nringcast: {keys: [{key: k, priority: 2, admin: false}]}")
        assert config.keys == (Key("x"), Key("k", priority=2, admin=False))

    def test_keys_may_come_from_the_environment(self):
        config = loads("ringcast: {keys: [{key: '${env.KEY}'}]}", environ={"KEY": "secret"})
        assert config.keys == (Key("secret"),)

    @pytest.mark.parametrize(
        ("ours", "key"),
        [
            ("{fair: {max_wait: soon}}", "fair.max_wait"),
            ("{fair: {max_wait: -1}}", "fair.max_wait"),
            ("{fair: {max_wait: auto}}", "fair.max_wait"),
            ("{fair: {linger: often}}", "fair.linger"),
            ("{fair: {min_residence: '5'}}", "fair.min_residence"),
            ("{fair: {max_batch: 0}}", "fair.max_batch"),
            ("{fair: {priority: {nobody: 1}}}", "fair.priority.nobody"),
            ("{queue: {limit: 0}}", "queue.limit"),
            ("{queue: {total: 0}}", "queue.total"),
            ("{queue: {timeout: -1}}", "queue.timeout"),
            ("{keys: [{priority: 1}]}", "keys[0].key"),
            ("{keys: [{key: 'a b'}]}", "keys[0].key"),
            ("{keys: [{key: a}, {key: a}]}", "keys[1].key"),
            ("{keys: [{key: a, models: [nobody]}]}", "keys[0].models"),
            ("{models: {nobody: {}}}", "models.nobody"),
            ("{models: {other: {}}}", "models.other"),
            ("{models: {a: {liveness: {failures: 0}}}}", "models.a.liveness.failures"),
            ("{models: {a: {liveness: {every: -1}}}}", "models.a.liveness.every"),
            ("{models: {a: {resources: {gpu: much}}}}", "models.a.resources.gpu"),
            ("{router: matrix}", "router"),
        ],
    )
    def test_what_cannot_be_names_the_place(self, ours, key):
        caught = error(f"ringcast: {ours}")
        assert (caught.key, caught.line) == (f"ringcast.{key}", 2)

    @pytest.mark.parametrize(
        ("text", "amount"),
        [
            ("5", 5),
            ("1K", 1000),
            ("1KiB", 1024),
            ("1Ki", 1024),
            ("2MB", 2_000_000),
            ("1.5 GiB", 1536 * 2**20),
            ("1TB", 10**12),
        ],
    )
    def test_amounts(self, text, amount):
        config = loads(MODELS + f"ringcast: {{models: {{a: {{resources: {{gpu: {text}}}}}}}}}")
        assert config.models["a"].resources == {"gpu": amount}
