"""The schedulers event by event: what both share, and the weak points of the original that ours does not have.

Letters in brackets are the experiments of the original's behaviour that a test shows the other side of.
"""

from dataclasses import replace

import pytest

from ringcast_router.config import loads
from ringcast_router.config.model import Config, Fair, Group, Matrix, Model, Queue
from ringcast_router.errors import Refused
from ringcast_router.planning import make_planner
from ringcast_router.scheduling import make_scheduler
from ringcast_router.scheduling.interface import AbortSwap, Grant, Reject, Request, StartSwap, Stop
from ringcast_router.simulation import Costs, Job, World

BOTH = pytest.mark.parametrize("scheduler", ["fifo", "fair"])
ALONE = Group(swap=False, exclusive=False)


def config_of(names="abc", *, limit=0, **settings):
    models = {name: Model(name, concurrency_limit=limit) for name in names}
    fair = Fair(max_wait=3.0, min_residence=1.0, linger=0.0)
    return replace(Config(models=models, fair=fair), **settings)


def world_of(config, scheduler="fair", *, load=1.0, stop=0.0, **more):
    config = replace(config, scheduler=scheduler)
    return World(make_scheduler(config, make_planner(config)), Costs(load, stop, more.pop("costs", {})), **more)


class Desk:
    """A scheduler by itself: one event a line."""

    def __init__(self, config, scheduler="fair"):
        config = replace(config, scheduler=scheduler)
        self.scheduler = make_scheduler(config, make_planner(config))
        self.now = 0.0
        self.last = 0

    def ask(self, model, priority=0):
        self.last += 1
        return self.scheduler.on_request(Request(self.last, model, self.now, priority), self.now)

    def ready(self, model, ticket):
        """The swap's servers do what they have to do."""
        self.scheduler.on_state(model, "starting", self.now)
        self.scheduler.on_state(model, "ready", self.now)
        return self.scheduler.on_swap_done(ticket, "", self.now, 1.0)

    def state(self, model, state):
        return self.scheduler.on_state(model, state, self.now)


def granted(effects):
    return [effect.request.id for effect in effects if isinstance(effect, Grant)]


def rejected(effects):
    return [(effect.request.id, effect.status, effect.code) for effect in effects if isinstance(effect, Reject)]


def started(effects):
    return [(effect.model, effect.evict) for effect in effects if isinstance(effect, StartSwap)]


def ticket_of(effects):
    return next(effect.ticket for effect in effects if isinstance(effect, StartSwap))


def states(world):
    return {server.model for server in world.servers.values() if server.state != "stopped"}


# Gathering, and waiting


@BOTH
def test_a_burst_abcabc_takes_three_loads(scheduler):
    world = world_of(config_of(), scheduler)
    world.add([Job(0, name, 0.3) for name in "abcabc"])
    world.run()
    assert world.swaps == 3
    served = sorted(world.visits, key=lambda visit: (visit.granted, visit.id))
    assert "".join(visit.job.model for visit in served) == "aabbcc"


def starve(scheduler, priority=0):
    """Two clients keep A busy for 20 s, B asks at 0.4 s; return how long B waits."""
    world = world_of(config_of("ab"), scheduler, load=0.3)
    for seconds in (0.4, 0.37):  # so one is in flight always
        world.add_agent(iter([Job(0.0, "a", seconds)] * round(20 / seconds)))
    world.add([Job(0.4, "b", 0.1, priority)])
    world.run()
    asked = next(visit for visit in world.visits if visit.job.model == "b")
    return asked.granted - asked.came


def test_a_busy_model_starves_nobody():
    assert starve("fair") < 5.0 - 0.4
    assert starve("fifo") > 19.0


def test_in_fair_priority_helps_against_a_busy_model_no_more_than_age():
    """[s] At priority 100 the wait of the original is 12 of 12 s; here it is bounded with and without."""
    assert starve("fair", priority=100) < 5.0


def test_a_matrix_loads_two_that_fit_in_parallel():
    """[v]"""
    matrix = Matrix(sets=(("s", "(a | b) & (e | f)"),))
    world = world_of(config_of("abef", router="matrix", matrix=matrix), load=2.0)
    world.add([Job(0, "b"), Job(0, "f")])
    world.run()
    assert [visit.granted for visit in world.visits] == [2.0, 2.0]


@BOTH
def test_exclusive_is_one_way_also_while_it_loads(scheduler):
    """[w] As in the original: the non-exclusive A comes up beside the exclusive C."""
    groups = {"n": replace(ALONE, members=("a",)), "x": Group(members=("c",))}
    world = world_of(config_of("ac", groups=groups), scheduler)
    world.add([Job(0, "c"), Job(0.5, "a")])
    world.run()
    assert states(world) == {"a", "c"}


@pytest.mark.parametrize(("scheduler", "stays"), [("fifo", {"e"}), ("fair", {"e", "n"})])
def test_a_request_to_a_ready_model(scheduler, stays):
    """[i] The original evicts the neighbour that came later; fair asks no planner for what is ready."""
    groups = {"x": Group(members=("e",)), "n": replace(ALONE, members=("n",))}
    world = world_of(config_of("en", groups=groups), scheduler)
    world.add([Job(0, "e"), Job(5, "n"), Job(10, "e")])
    world.run()
    assert states(world) == stays


@BOTH
def test_who_leaves_causes_no_load(scheduler):
    """[l]"""
    world = world_of(config_of("ab"), scheduler)
    world.add([Job(0, "a", 5.0)])
    world.add([Job(2, "b")])
    world.at(3, lambda: world.cancel(world.visits[1]))
    world.run()
    assert (world.swaps, states(world)) == (1, {"a"})


# Unloads, and servers that take their time to go


@BOTH
def test_an_unload_calls_a_swap_off_for_good(scheduler):
    """[d] X is slow to stop; Y is asked for and unloaded, then Z. In the original Y and Z run side by side for good."""
    world = world_of(config_of("xyz"), scheduler, costs={"x": (1.0, 5.0)})
    world.add([Job(0, "x"), Job(3, "y"), Job(5, "z")])
    world.at(4, lambda: world.unload(["y"]))
    world.run()
    assert [visit.code for visit in world.visits] == ["", "unloaded", ""]
    assert world.visits[2].granted == 9.0  # x was told to go at 3, went at 8; then a load
    assert states(world) == {"z"}


@BOTH
def test_an_unload_delays_no_neighbour(scheduler):
    """[e] The original serves nobody while the stubborn one is being stopped."""
    world = world_of(config_of("rs", groups={"g": replace(ALONE, members=("r", "s"))}), scheduler, stop=10.0)
    world.add([Job(0, "r"), Job(0, "s"), Job(5.5, "r")])
    world.at(5, lambda: world.unload(["s"]))
    world.run()
    assert world.visits[2].granted == 5.5


@BOTH
def test_a_swap_waits_for_what_is_stopping_already(scheduler):
    world = world_of(config_of("ab"), scheduler, stop=10.0)
    world.add([Job(0, "a"), Job(6, "b"), Job(7, "a")])
    world.at(5, lambda: world.unload(["a"]))
    world.run()
    assert world.visits[1].granted == 16.0


@BOTH
def test_a_swap_does_not_wait_for_who_may_stay_beside_it(scheduler):
    groups = {"g": replace(ALONE, members=("a", "b"))}
    world = world_of(config_of("ab", groups=groups), scheduler, stop=10.0)
    world.add([Job(0, "a"), Job(6, "b")])
    world.at(5, lambda: world.unload(["a"]))
    world.run()
    assert world.visits[1].granted == 7.0


@BOTH
def test_a_model_is_started_again_when_its_old_server_has_gone(scheduler):
    world = world_of(config_of("a"), scheduler, stop=10.0)
    world.add([Job(0, "a"), Job(6, "a")])
    world.at(5, lambda: world.unload(["a"]))
    world.run()
    assert world.visits[1].granted == 16.0


@BOTH
def test_what_an_aborted_swap_evicts_is_told_to_stop_all_the_same(scheduler):
    """Its own orders may not have been carried out yet."""
    desk = Desk(config_of("ab"), scheduler)
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.scheduler.on_serve_done(1, 1.0)
    desk.now = 2.0
    assert started(desk.ask("b")) == [("b", ("a",))]
    effects = desk.scheduler.on_unload(["b"], 2.0)
    assert [type(effect) for effect in effects] == [AbortSwap, Stop, Reject, Stop]
    assert effects[1] == Stop(("a",))


@BOTH
def test_dead_tickets_change_nothing(scheduler):
    desk = Desk(config_of("ab"), scheduler)
    ticket = ticket_of(desk.ask("a"))
    desk.scheduler.on_unload(["a"], 0.0)
    for error in ("", "late"):
        assert desk.scheduler.on_swap_done(ticket, error, 1.0) == []
        assert desk.scheduler.on_swap_done(99, error, 1.0) == []
    assert started(desk.ask("b")) == [("b", ())]


@BOTH
def test_a_server_that_dies_before_its_swap_is_told_is_not_taken_for_ready(scheduler):
    desk = Desk(config_of("a"), scheduler)
    ticket = ticket_of(desk.ask("a"))
    for state in ("starting", "ready", "stopping", "stopped"):
        assert desk.state("a", state) == []
    effects = desk.scheduler.on_swap_done(ticket, "", 1.0, 1.0)
    assert [code for _, _, code in rejected(effects)] == ["start_failed"]


@BOTH
def test_a_crash_is_healed_by_the_next_request(scheduler):
    world = world_of(config_of("a"), scheduler)
    world.add([Job(0, "a"), Job(5, "a")])
    world.at(4, lambda: world.crash("a"))
    world.run()
    assert world.visits[1].granted == 6.0


# Failures


def test_a_model_that_cannot_start_evicts_nobody_during_its_back_off():
    """[f] K cannot start; K W K W K W loads W four times in the original."""
    world = world_of(config_of("kw"), load_error=lambda model: "no such file" if model == "k" else "", stop=0.1)
    world.add([Job(0, "w", 0.1), *(Job(2.0 + n / 10, "kw"[n % 2], 0.01) for n in range(6)), Job(3.5, "k")])
    world.run()
    codes = [visit.code for visit in world.visits if visit.job.model == "k"]
    assert codes == ["start_failed", "start_failed", "start_failed", "backoff"]  # three came while the one try went on
    assert world.swaps == 3  # w, k, and w again


def test_back_off_doubles_and_is_reset_by_a_load_by_hand():
    desk = Desk(config_of("a"))
    for delay in (1.0, 2.0, 4.0):
        ticket = ticket_of(desk.ask("a"))
        effects = desk.scheduler.on_swap_done(ticket, "no such file", desk.now)
        assert [(e.status, e.code, e.retry_after) for e in effects] == [(503, "start_failed", delay)]
        desk.now += delay - 0.1
        (refused,) = desk.ask("a")
        assert (refused.status, refused.code) == (503, "backoff")
        assert "no such file" in refused.message
        assert desk.scheduler.explain("a", desk.now)["action"] == "refuse"
        desk.now += 0.1
    ticket = ticket_of(desk.ask("a"))
    desk.scheduler.on_swap_done(ticket, "no such file", desk.now)
    assert started(desk.scheduler.on_load("a", desk.now)) == [("a", ())]


# Limits, priorities, time-outs


def test_fifo_refuses_beyond_the_limit_and_fair_lets_them_wait():
    fifo, fair = Desk(config_of("a", limit=2), "fifo"), Desk(config_of("a", limit=2), "fair")
    for desk, refused in ((fifo, [(3, 429, "concurrency_limit")]), (fair, [])):
        assert rejected([*desk.ask("a"), *desk.ask("a"), *desk.ask("a")]) == refused
    assert granted(fair.ready("a", 1)) == [1, 2]
    assert (fair.scheduler.in_flight("a"), fair.scheduler.waiting("a")) == (2, 1)
    assert granted(fair.scheduler.on_serve_done(1, 1.0)) == [3]


@pytest.mark.parametrize(("queue", "models"), [(Queue(limit=2), "aaa"), (Queue(total=2), "abc")])
def test_a_full_queue_is_429(queue, models):
    desk = Desk(config_of(queue=queue))
    effects = [effect for model in models for effect in desk.ask(model)]
    assert rejected(effects) == [(3, 429, "queue_full")]
    assert effects[-1].retry_after >= 1.0


def test_a_full_queue_is_no_matter_to_who_is_served_at_once():
    desk = Desk(config_of("ab", queue=Queue(total=1)))
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.ask("b")
    assert desk.scheduler.waiting("b") == 1
    assert granted(desk.ask("a")) == [3]


def test_who_waits_too_long_is_told():
    desk = Desk(config_of("ab", queue=Queue(timeout=60.0)))
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.now = 1.0
    desk.ask("b")
    assert desk.scheduler.wake_at() == 61.0
    assert desk.scheduler.on_tick(60.9) == []
    assert rejected(desk.scheduler.on_tick(61.0)) == [(2, 503, "queue_timeout")]
    assert desk.scheduler.wake_at() is None


@BOTH
def test_the_larger_priority_goes_first(scheduler):
    config = config_of("abc", fifo_priority={"b": 1})  # fair has it at the model, where the loader puts it
    models = {**config.models, "b": replace(config.models["b"], priority=1)}
    desk = Desk(replace(config, models=models), scheduler)
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.ask("c")
    desk.ask("b")
    desk.ask("c", priority=2)
    order = [desk.scheduler.position(number) for number in (2, 3, 4)]
    assert order == [3, 2, 1]
    assert started(desk.scheduler.on_serve_done(1, 1.0)) == [("c", ("a",))]


@pytest.mark.parametrize("ours", ["fair: {priority: {b: 0}}", "models: {b: {priority: 0}}"])
def test_a_priority_of_zero_is_a_priority(ours):
    """It goes before the one of the original's file, as any other does."""
    config = loads(
        "models: {a: {cmd: 'x ${PORT}'}, b: {cmd: 'x ${PORT}'}, c: {cmd: 'x ${PORT}'}}\n"
        "routing: {scheduler: {settings: {fifo: {priority: {b: 9, c: 5}}}}}\n"
        f"ringcast: {{{ours}}}\n"
    )
    desk = Desk(config)
    desk.ready("a", ticket_of(desk.ask("a")))
    for model in "bc":
        assert desk.ask(model) == []
    assert started(desk.scheduler.on_serve_done(1, 0.0) + desk.scheduler.on_tick(5.0)) == [("c", ("a",))]


def test_priority_passes_nobody_who_is_overdue():
    desk = Desk(config_of("abc"))
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.ask("c")
    desk.now = 4.0
    desk.ask("b", priority=9)
    assert started(desk.scheduler.on_serve_done(1, desk.now)) == [("c", ("a",))]


def test_an_idle_model_lingers_for_its_last_client():
    desk = Desk(config_of("ab", fair=Fair(min_residence=10.0, linger=2.0)))
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.now = 1.0
    desk.scheduler.on_serve_done(1, desk.now)
    assert started(desk.ask("b")) == []
    assert desk.scheduler.explain("b", 1.0)["blocked_by"] == [{"model": "a", "reason": "linger", "until": 3.0}]
    assert desk.scheduler.wake_at() == 3.0
    assert desk.scheduler.on_tick(2.9) == []
    assert started(desk.scheduler.on_tick(3.0)) == [("b", ("a",))]


def test_after_a_shutdown_nothing_wakes_the_scheduler():
    desk = Desk(config_of("ab", fair=Fair(min_residence=10.0, linger=2.0)))
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.scheduler.on_serve_done(1, 1.0)
    desk.now = 1.0
    desk.ask("b")
    assert desk.scheduler.wake_at() == 3.0
    desk.scheduler.on_shutdown(1.0)
    assert desk.scheduler.wake_at() is None


def test_an_evicted_model_serves_its_batch_first():
    """Of a burst for one model none is left behind because others wait."""
    desk = Desk(config_of("ab", limit=1, fair=Fair(max_wait=0.5, min_residence=0.0, linger=0.0, max_batch=2)))
    ticket = ticket_of(desk.ask("a"))
    desk.ask("b")
    desk.ask("a")
    desk.ask("a")
    desk.now = 5.0
    assert granted(desk.ready("a", ticket)) == [1]
    assert granted(desk.scheduler.on_serve_done(1, 6.0)) == [3]  # in the batch
    effects = desk.scheduler.on_serve_done(3, 7.0)  # the gate is closed to the last
    assert (granted(effects), started(effects)) == ([], [("b", ("a",))])


# Loads, reloads, shutdown


@BOTH
def test_a_load_that_no_request_asked_for(scheduler):
    desk = Desk(config_of("ab"), scheduler)
    effects = desk.scheduler.on_load("a", 0.0)
    assert effects[0].request is None
    assert desk.scheduler.waiting("a") == 0
    assert desk.ready("a", ticket_of(effects)) == []
    assert desk.scheduler.on_load("a", 1.0) == []
    assert desk.scheduler.in_flight("a") == 0


def test_a_busy_model_starves_no_load():
    """A load that no request asked for closes the gate like a request, also where nobody else waits."""
    desk = Desk(config_of("ab"))
    desk.ready("a", ticket_of(desk.ask("a")))
    assert desk.scheduler.on_load("b", desk.now) == []
    assert granted(desk.ask("a")) == [2]
    desk.now = 4.0
    assert desk.ask("a") == []
    desk.scheduler.on_serve_done(1, 5.0)
    assert started(desk.scheduler.on_serve_done(2, 6.0)) == [("b", ("a",))]


@BOTH
def test_a_reload_drains_what_has_changed_and_keeps_the_rest(scheduler):
    groups = {"g": replace(ALONE, members=("a", "b", "c"))}
    config = replace(config_of("abc", groups=groups), scheduler=scheduler)
    desk = Desk(config, scheduler)
    for model in "ab":
        desk.ready(model, ticket_of(desk.ask(model)))
    kept = ticket_of(desk.ask("c"))
    new = replace(config, models={name: config.models[name] for name in "ac"})
    assert desk.scheduler.on_reload(new, frozenset("c"), 1.0) == []  # both serve somebody still
    assert desk.ask("a") == []  # the old server of a takes no new grants
    assert rejected(desk.ask("b")) == [(5, 404, "model_not_found")]
    assert granted(desk.ready("c", kept)) == [3]
    assert desk.scheduler.on_serve_done(1, 2.0) == [Stop(("a",))]
    assert desk.state("a", "stopping") == []
    assert started(desk.state("a", "stopped")) == [("a", ())]
    assert desk.scheduler.on_serve_done(2, 2.0) == [Stop(("b",))]


@BOTH
def test_who_waits_for_a_removed_model_gets_404(scheduler):
    config = replace(config_of("ab"), scheduler=scheduler)
    desk = Desk(config, scheduler)
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.ask("b")
    effects = desk.scheduler.on_reload(replace(config, models={"a": config.models["a"]}), frozenset("a"), 1.0)
    assert rejected(effects) == [(2, 404, "removed")]


@BOTH
def test_a_reload_moves_those_who_joined_a_load_to_the_new_definition(scheduler):
    config = replace(config_of("a"), scheduler=scheduler)
    desk = Desk(config, scheduler)
    ticket = ticket_of(desk.ask("a"))
    desk.state("a", "starting")
    assert desk.scheduler.on_reload(config, frozenset(), 1.0) == [AbortSwap(ticket, "a")]
    again = ticket_of(desk.state("a", "stopped"))
    assert granted(desk.ready("a", again)) == [1]


@BOTH
def test_shutdown_tells_all_who_wait_and_refuses_who_comes(scheduler):
    desk = Desk(config_of("ab"), scheduler)
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.ask("b")
    assert rejected(desk.scheduler.on_shutdown(1.0)) == [(2, 503, "shutting_down")]
    assert rejected(desk.ask("a")) == [(3, 503, "shutting_down")]
    assert desk.scheduler.on_serve_done(1, 2.0) == []


# Questions


@BOTH
def test_a_plan_is_explained_and_changes_nothing(scheduler):
    desk = Desk(config_of("ab"), scheduler)
    assert desk.scheduler.explain("a", 0.0)["action"] == "start"
    ticket = ticket_of(desk.ask("a"))
    assert desk.scheduler.explain("a", 0.0)["action"] == "join"
    assert desk.scheduler.explain("b", 0.0)["blocked_by"] == [{"model": "a", "reason": "collision", "until": None}]
    desk.ready("a", ticket)
    assert desk.scheduler.explain("a", 0.0)["action"] == "serve"
    assert desk.scheduler.explain("b", 7.0) == {
        "model": "b",
        "state": "stopped",
        "action": "wait",
        "evict": [{"model": "a", "state": "ready", "inflight": 1, "rule": "swap in group (default)", "cost": 1.0}],
        "set": "",
        "cost": 0,
        "blocked_by": [{"model": "a", "reason": "inflight", "until": None}],
        "scheduler": scheduler,
        "as_of": 7.0,
    }
    with pytest.raises(Refused, match="no model 'nobody'") as refused:
        desk.scheduler.explain("nobody", 0.0)
    assert refused.value.status == 404


def test_a_closed_gate_and_a_reservation_are_explained():
    groups = {"g": Group(swap=False, members=("a", "c")), "h": Group(members=("b",))}
    desk = Desk(config_of("abc", groups=groups))
    desk.ready("a", ticket_of(desk.ask("a")))
    desk.ask("b")
    desk.now = 5.0
    assert desk.scheduler.explain("a", 5.0)["blocked_by"] == [{"model": "b", "reason": "gate", "until": None}]
    assert desk.scheduler.explain("c", 5.0)["blocked_by"] == [{"model": "b", "reason": "reservation", "until": None}]
    assert granted(desk.ask("a")) == []
    assert started(desk.ask("c")) == []  # it fits beside a, but b would have one more to wait for
    assert started(desk.scheduler.on_serve_done(1, 6.0)) == [("b", ("a",))]


def test_fifo_explains_that_it_would_refuse_at_the_limit():
    config = Config(models={"a": Model("a", concurrency_limit=1)}, scheduler="fifo")
    scheduler = make_scheduler(config, make_planner(config))
    assert scheduler.explain("a", 0.0)["action"] == "start"
    scheduler.on_request(Request(1, "a", 0.0), 0.0)
    assert scheduler.explain("a", 1.0)["action"] == "refuse"
    assert scheduler.on_request(Request(2, "a", 1.0), 1.0)[0].code == "concurrency_limit"
