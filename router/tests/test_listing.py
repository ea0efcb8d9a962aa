"""Which models there are, as `/v1/models`, `/models` and `/running` say it."""

import pytest

CONFIG = """
models:
  Zeta:
    cmd: {zeta}
    name: " The last "
    description: of all
    aliases: [last, final]
    ttl: 600
    metadata: {{family: greek, context_length: 5, nested: {{a: [1, null]}}}}
    capabilities: {{in: [text, image], out: [text], tools: true, context: 8192}}
  alpha:
    cmd: {alpha}
    metadata: {{architecture: mine}}
  hidden:
    cmd: {hidden}
    unlisted: true
"""


@pytest.fixture
async def served(serve, responder):
    def text(extra=""):
        return extra + CONFIG.format(**{name: responder(name) for name in ("zeta", "alpha", "hidden")})

    return lambda extra="": serve(text(extra))


async def records(served):
    answer = await served.get("/v1/models")
    assert answer.status == 200
    assert answer.json["object"] == "list"
    return {record.pop("id"): record for record in answer.json["data"]}


async def test_models_are_sorted_by_id_and_unlisted_ones_are_left_out(served):
    served = await served()
    answer = await served.get("/v1/models")
    assert [record["id"] for record in answer.json["data"]] == ["Zeta", "alpha"]


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_a_record_has_what_the_model_declares(served, path):
    served = await served()
    zeta = next(record for record in (await served.get(path)).json["data"] if record["id"] == "Zeta")
    assert zeta.pop("created") > 1_700_000_000
    assert zeta == {
        "id": "Zeta",
        "object": "model",
        "owned_by": "ringcast-router",
        "name": "The last",
        "description": "of all",
        "architecture": {
            "input_modalities": ["text", "image"],
            "output_modalities": ["text"],
            "modality": "text+image->text",
        },
        "capabilities": {"vision": True, "function_calling": True},
        "supported_parameters": ["tools", "tool_choice"],
        "context_length": 8192,
        # Metadata that would contradict declared capabilities is left out.
        "meta": {
            "llamaswap": {
                "family": "greek",
                "nested": {"a": [1, None]},
                "type": "model",
                "aliases": ["last", "final"],
            }
        },
        "status": {"value": "unloaded"},
    }


async def test_without_capabilities_metadata_passes_as_it_is(served):
    alpha = (await records(await served()))["alpha"]
    assert alpha["meta"] == {"llamaswap": {"architecture": "mine", "type": "model"}}
    assert not alpha.keys() & {"name", "description", "architecture", "capabilities", "context_length"}


@pytest.mark.parametrize(
    ("takes", "gives", "able"),
    [
        ("text", "text", set()),
        ("image", "text", {"vision"}),
        ("audio", "text", {"audio_transcriptions"}),
        ("text", "audio", {"audio_speech"}),
        ("text", "image", {"image_generation"}),
        ("image", "image", {"vision", "image_to_image"}),
    ],
)
async def test_abilities_follow_from_what_goes_in_and_comes_out(serve, responder, takes, gives, able):
    served = await serve(f"models: {{m: {{cmd: '{responder('m')}', capabilities: {{in: [{takes}], out: [{gives}]}}}}}}")
    assert set((await records(served))["m"].get("capabilities", {})) == able


async def test_aliases_are_listed_where_the_configuration_asks_for_it(served):
    found = await records(await served("includeAliasesInList: true\n"))
    assert list(found) == ["Zeta", "alpha", "final", "last"]
    assert found["last"]["meta"]["llamaswap"]["modelID"] == "Zeta"
    assert found["last"]["meta"]["llamaswap"]["type"] == "alias"


async def test_a_key_that_may_use_some_models_is_shown_these(served):
    served = await served("apiKeys: [all]\nringcast:\n  keys: [{key: some, models: [alpha]}]\n")
    for key, expected in (("all", ["Zeta", "alpha"]), ("some", ["alpha"])):
        answer = await served.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
        assert [record["id"] for record in answer.json["data"]] == expected


async def test_pages_of_other_origins_may_read_the_list(served):
    served = await served()
    answer = await served.get("/v1/models", headers={"Origin": "https://example.org"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://example.org"


async def test_a_loaded_model_is_told_as_loaded_and_as_running(served):
    served = await served()
    assert (await served.get("/running")).json == {"running": []}
    assert (await served.ask("last")).status == 200
    assert (await records(served))["Zeta"]["status"] == {"value": "loaded"}
    model = served.router.config.models["Zeta"]
    assert (await served.get("/running")).json == {
        "running": [
            {
                "model": "Zeta",
                "state": "ready",
                "cmd": model.cmd,
                "proxy": model.proxy,
                "ttl": 600,
                "name": " The last ",
                "description": "of all",
            }
        ]
    }
    assert str(model.proxy.rpartition(":")[2]) in model.cmd
