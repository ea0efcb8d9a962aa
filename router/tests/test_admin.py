"""The administrative endpoints: unload, load, plan, reload, ending a request, health, version."""

import asyncio

import pytest

from ringcast_router import __version__
from ringcast_router.errors import ConfigError, Refused
from ringcast_router.planning import GroupPlanner


@pytest.fixture
async def served(serve, responder):
    """Three models, of which one may be loaded at a time; C ignores SIGTERM."""
    return await serve(
        f"""
unloadTimeout: 1
models:
  A: {{cmd: "{responder("A")}", aliases: [first]}}
  B: {{cmd: "{responder("B")}"}}
  C: {{cmd: "{responder("C", ignore_term=True)}"}}
groups: {{all: {{swap: false, members: [A, B, C]}}}}
"""
    )


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", "/unload", "OK"),
        ("POST", "/api/models/unload", '{"msg": "ok"}'),
        ("POST", "/api/models/unload/A", "OK"),
        ("POST", "/api/models/unload/first", "OK"),
    ],
)
async def test_unload_answers_when_the_servers_are_stopped(served, method, path, text):
    await asyncio.gather(*(served.ask(model) for model in "AB"))
    answer = await served.request(method, path)
    assert (answer.status, answer.text) == (200, text)
    assert served.state("A") == "stopped"
    assert served.state("B") == ("ready" if "unload/" in path else "stopped")


async def test_a_look_at_the_headers_of_unload_unloads_nothing(served):
    await served.ask("A")
    answer = await served.request("HEAD", "/unload")
    assert (answer.status, served.state("A")) == (405, "ready")


async def test_unload_of_a_stubborn_server_answers_when_it_is_killed_and_delays_nobody(served):
    await asyncio.gather(*(served.ask(model) for model in "AC"))
    unload = asyncio.create_task(served.post("/api/models/unload/C"))
    await served.until("C", "stopping")
    answer = await served.ask("A")
    assert answer.status == 200
    assert served.state("C") == "stopping"  # A was answered meanwhile
    assert (await unload).status == 200
    assert served.state("C") == "stopped"


async def test_load_answers_when_the_model_is_ready(served):
    answer = await served.post("/api/models/load/first")
    assert (answer.status, answer.text) == (200, "OK")
    assert served.state("A") == "ready"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/models/unload/nobody"),
        ("POST", "/api/models/load/nobody"),
        ("GET", "/api/plan?model=nobody"),
    ],
)
async def test_an_unknown_model_is_a_404_that_names_it(served, method, path):
    answer = await served.request(method, path)
    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"
    assert "'nobody'" in answer.json["error"]["message"]


async def test_plan_says_what_a_request_would_meet_and_changes_nothing(served):
    assert (await served.get("/api/plan?model=first")).json["action"] == "start"
    assert served.state("A") == "stopped"
    await served.ask("A")
    answer = await served.get("/api/plan?model=A")
    assert answer.json["model"] == "A"
    assert answer.json["action"] == "serve"
    assert answer.json["evict"] == []


async def test_plan_without_a_model_says_how_to_ask(served):
    answer = await served.get("/api/plan")
    assert answer.status == 400
    assert "/api/plan?model=" in answer.json["error"]["message"]


async def test_reload_keeps_unchanged_models_and_says_so(served):
    await served.ask("A")
    pid = served.router.processes["A"].pid
    served.file.write_text(served.file.read_text() + "\n# a comment\n")
    answer = await served.post("/api/reload")
    assert answer.status == 200
    assert set(answer.json["kept"]) == {"A", "B", "C"}
    assert answer.json["drained"] == []
    assert served.router.processes["A"].pid == pid


async def test_reload_of_a_bad_file_changes_nothing_and_says_why(served):
    await served.ask("A")
    before = served.router.config
    served.file.write_text("models: [this, is, no, mapping]\n")
    answer = await served.post("/api/reload")
    assert answer.status == 422
    assert served.file.name in answer.json["error"]["message"]
    assert served.router.config is before
    assert (await served.ask("A")).status == 200


class Unlucky:
    """A planner, or scheduler, that can be made `lucky` times, as one that reads a file which is gone later."""

    lucky = 0
    error: type[Exception] = ValueError

    def __init__(self, *arguments):
        Unlucky.lucky -= 1
        if Unlucky.lucky < 0:
            raise self.error("no luck today")
        self.planner = GroupPlanner(arguments[0])

    def plan(self, target, view):
        return self.planner.plan(target, view)

    on_request = None


@pytest.mark.parametrize("error", [ValueError, TypeError, ConfigError])
@pytest.mark.parametrize(("kind", "lucky"), [("router", 0), ("router", 1), ("scheduler", 0)])
async def test_a_plug_in_that_cannot_be_made_leaves_the_old_configuration_whole(
    served, monkeypatch, kind, error, lucky
):
    """One that can be made once is made no second time: a check beforehand could not promise the second."""
    monkeypatch.setattr(Unlucky, "lucky", lucky)
    monkeypatch.setattr(Unlucky, "error", error)
    await served.ask("A")
    router = served.router
    before, processes = router.config, dict(router.processes)
    pid = processes["A"].pid
    models = served.file.read_text().replace("B:", "D:").replace("B]", "D]")
    served.file.write_text(f"ringcast: {{{kind}: '{__name__}:Unlucky'}}\n{models}")
    answer = await served.post("/api/reload")
    if lucky:
        assert answer.status == 200
        assert set(router.processes) == {"A", "C", "D"}
    else:
        assert answer.status == 422
        message = answer.json["error"]["message"]
        assert "no luck today" in message
        assert "\n" not in message
        assert router.config is before
        assert router.owner.config is before
        assert router.processes == processes
        assert (await served.ask("B")).status == 200
    assert router.processes["A"].pid == pid
    assert (await served.ask("A")).status == 200


async def test_a_reload_that_fails_in_an_unforeseen_way_changes_nothing_and_says_so(served, caplog):
    before = served.router.config
    served.router._read = lambda: 1 / 0
    answer = await served.post("/api/reload")
    assert answer.status == 422
    assert "ZeroDivisionError: division by zero" in answer.json["error"]["message"]
    assert "Traceback" in caplog.text
    assert served.router.config is before
    assert (await served.ask("A")).status == 200


async def test_a_waiting_request_that_is_ended_is_not_granted_after_all(served, monkeypatch):
    """Its turn comes before its task is told: the end of A's request and that of the waiting one come in one step."""
    owner = served.router.owner
    await served.ask("A")
    monkeypatch.setattr(type(served.router.config.models["A"]), "limit", 1)
    first, second = owner.submit("A"), owner.submit("A")
    waiting = asyncio.create_task(second.granted())
    await asyncio.sleep(0)
    second.abort(Refused(503, "ended", type="server_error", code="request_cancelled"))
    first.end()
    with pytest.raises(Refused) as refused:
        await waiting
    assert refused.value.code == "request_cancelled"
    second.end()
    assert owner.pending() == []
    assert owner.scheduler.in_flight("A") == 0
    assert (await served.ask("A")).status == 200


async def test_a_waiting_request_is_ended_with_an_answer(serve, responder, until):
    served = await serve(f"models: {{A: {{cmd: '{responder('A', load=600)}'}}}}\nunloadTimeout: 1")
    waiting = served.begin("A")
    await until(lambda: served.router.owner.pending())
    (pending,) = served.router.owner.pending()
    assert (await served.post(f"/api/inflight/{pending.id}/cancel")).json == {"msg": "ok"}
    answer = await waiting
    assert answer.status == 503
    assert answer.json["error"]["code"] == "request_cancelled"
    assert served.router.owner.pending() == []


async def test_a_request_that_is_being_served_is_ended_and_refused(served, until):
    serving = served.begin("A", wait=600)
    await until(lambda: any(pending.is_granted for pending in served.router.owner.pending()))
    (pending,) = served.router.owner.pending()
    assert (await served.post(f"/api/inflight/{pending.id}/cancel")).status == 200
    answer = await serving
    assert (answer.status, answer.json["error"]["code"]) == (503, "request_cancelled")
    assert served.router.owner.pending() == []


async def test_ending_a_request_that_is_not_there_is_a_404(served):
    answer = await served.post("/api/inflight/12345/cancel")
    assert answer.status == 404
    assert "12345" in answer.json["error"]["message"]


@pytest.mark.parametrize("path", ["/health", "/wol-health"])
async def test_health_is_ok_also_without_a_loaded_model(served, path):
    answer = await served.get(path)
    assert (answer.status, answer.text) == (200, "OK")


async def test_version_has_the_shape_of_the_original(served):
    assert (await served.get("/api/version")).json == {"version": __version__, "commit": "", "build_date": ""}


async def test_the_root_says_what_there_is(served):
    answer = await served.get("/")
    assert answer.status == 200
    assert __version__ in answer.text
    for line in ("/v1/models", "/running", "/unload", "/logs/stream"):
        assert line in answer.text


async def test_browsers_get_no_icon_and_no_error(served):
    assert (await served.get("/favicon.ico")).status == 204


async def test_a_key_without_admin_may_not_administer(serve, responder):
    served = await serve(
        f"ringcast: {{keys: [{{key: k, admin: false}}]}}\nmodels: {{A: {{cmd: '{responder('A')}'}}}}\n"
    )
    key = {"Authorization": "Bearer k"}
    assert (await served.get("/unload", headers=key)).status == 403
    assert (await served.get("/v1/models", headers=key)).status == 200
    assert (await served.get("/health")).status == 200
