"""`fifo` against 1,080 recorded scripts of llama-swap: every effect of every step.

One difference is deliberate: an unload of a model whose swap is under way calls the swap off for good. llama-swap goes
on and starts the model, so from the first `swapdone` of such a swap on (the *cut*) the worlds differ.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ringcast_router.config import loads
from ringcast_router.planning import make_planner
from ringcast_router.scheduling import make_scheduler
from ringcast_router.scheduling.interface import Grant, Reject, Request, StartSwap, Stop

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases" / "fifo.jsonl").read_text().splitlines()]
NO_TICKET = -1


class Recorded:
    """The world of the records: stops and starts take no time; the end of a swap is told by the script."""

    def __init__(self, text):
        config = replace(loads(text), scheduler="fifo")  # also where the text names none
        self.scheduler = make_scheduler(config, make_planner(config))
        self.now = 0.0
        self.tickets = {}  # of the latest swap of each model that has not ended
        self.stopped = set(config.models)
        self.granted = {}  # model -> ids, the oldest first
        self.waiting = set()

    def step(self, step):
        """Do one step of a script; return the log of its effects."""
        self.now += 1.0
        scheduler, now = self.scheduler, self.now
        tells = False
        match step:
            case ["req", name, model]:
                self.waiting.add(int(name))
                effects = scheduler.on_request(Request(int(name), model, now), now)
                tells = scheduler.position(int(name)) > 0
            case ["cancel", name]:
                tells = int(name) in self.waiting
                self.waiting.discard(int(name))
                effects = scheduler.on_cancel(int(name), now)
            case ["swapdone", model, *error]:
                ticket = self.tickets.pop(model, NO_TICKET)
                tells = ticket != NO_TICKET
                effects = scheduler.on_swap_done(ticket, *error or [""], now)
                if tells:
                    (self.stopped.add if error else self.stopped.discard)(model)
            case ["done", model]:
                effects = scheduler.on_serve_done(self.granted[model].pop(0), now) if self.granted.get(model) else []
                tells = scheduler.in_flight(model) == 0
            case ["unload", models]:
                effects = scheduler.on_unload(models, now)
                tells = True
            case ["state", model, "stopped"]:
                effects = scheduler.on_state(model, "stopped", now)
                self.stopped.add(model)
            case ["shutdown"]:
                effects = scheduler.on_shutdown(now)
        log, stops = self.carry_out(effects)
        for model in stops:  # what was told to stop has stopped, as the original saw it
            assert scheduler.on_state(model, "stopped", now) == []
        if tells:
            places = {str(name): scheduler.position(name) for name in self.waiting}
            log += [["pos", name, place] for name, place in sorted(places.items()) if place]
        return log

    def carry_out(self, effects):
        log, stops = [], []
        for effect in effects:
            match effect:
                case Grant(request):
                    self.waiting.discard(request.id)
                    self.granted.setdefault(request.model, []).append(request.id)
                    log.append(["grant", str(request.id), request.model])
                case Reject(request, status):
                    self.waiting.discard(request.id)
                    log.append(["reject" if status in (404, 429) else "error", str(request.id)])
                case StartSwap(ticket, model, evict):
                    log.append(["start", model, [name for name in evict if name not in self.stopped]])
                    self.tickets[model] = ticket
                    stops += evict
                    self.stopped.update(evict)
                    self.stopped.discard(model)
                case Stop(models):
                    log.append(["stop", list(models)])
                    for model in models:
                        self.tickets.pop(model, None)
                    stops += models
                    self.stopped.update(models)
        return log, stops


def steps_of(log):
    """Split a recorded log at its `--`; leave out the texts of errors, which may differ."""
    steps = []
    for entry in log:
        if entry[0] == "--":
            steps.append([])
        else:
            steps[-1].append(entry[:2] if entry[0] in ("error", "reject") else entry)
    return steps


def cut_of(script, steps):
    """Return the index of the step from which on the worlds differ, or the length of the script."""
    live = set()
    for index, (step, effects) in enumerate(zip(script, steps, strict=True)):
        match step:
            case ["swapdone", model, *error]:
                if model not in live and not error:
                    return index
                live.discard(model)
            case ["unload", models]:
                live.difference_update(models)
            case ["shutdown"]:
                live.clear()
        live.update(entry[1] for entry in effects if entry[0] == "start")
    return len(script)


def in_any_order(step, effects):
    """Errors of different swaps come in a random order of the original within an unload and a shutdown."""
    if step[0] not in ("unload", "shutdown"):
        return effects
    errors = sorted(entry for entry in effects if entry[0] == "error")
    return errors + [entry for entry in effects if entry[0] != "error"]


@pytest.mark.parametrize("part", range(8))
def test_every_effect_is_as_recorded(part):
    for case in CASES[part::8]:
        world = Recorded(case["config"])
        steps = steps_of(case["log"])
        cut = cut_of(case["script"], steps)
        for index, step in enumerate(case["script"][:cut]):
            got = in_any_order(step, world.step(step))
            wanted = in_any_order(step, steps[index])
            assert got == wanted, f"step {index}, {step}, of {case['script']} with\n{case['config']}"


def test_few_of_the_scripts_are_cut():
    cut = [case for case in CASES if cut_of(case["script"], steps_of(case["log"])) < len(case["script"])]
    assert len(CASES) == 1080
    assert len(cut) == 50
