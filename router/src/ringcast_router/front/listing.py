"""What models there are: `/v1/models`, `/models`, `/running`, and the list that the event feed sends."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from ringcast_router.config.model import Model
from ringcast_router.front.auth import allowed, key_of
from ringcast_router.front.keys import ROUTER
from ringcast_router.processes import State
from ringcast_router.router import Router

# Members of a model's metadata that the declared capabilities say better.
_OF_CAPABILITIES = frozenset({"architecture", "capabilities", "supported_parameters", "context_length"})


def routes() -> list[web.RouteDef]:
    """Return the routes of this module."""
    return [
        web.get("/v1/models", list_models),
        web.get("/models", list_models),
        web.get("/running", list_running),
    ]


async def list_models(request: web.Request) -> web.Response:
    """Answer with the models that the request's key may use and that are not unlisted, in OpenAI's shape, by id."""
    router = request.app[ROUTER]
    key = key_of(request)
    models = [model for model in router.config.models.values() if not model.unlisted and allowed(key, model.id)]
    records = model_records(models, states(router), with_aliases=router.config.include_aliases_in_list)
    return web.json_response({"object": "list", "data": records})


async def list_running(request: web.Request) -> web.Response:
    """Answer with the models whose servers are not stopped, sorted by id."""
    router = request.app[ROUTER]
    running = [
        {
            "model": model.id,
            "state": str(process.state),
            "cmd": model.cmd,
            "proxy": model.proxy,
            "ttl": model.ttl,
            "name": model.name,
            "description": model.description,
        }
        for process in router.processes.values()
        if process.state not in (State.STOPPED, State.SHUTDOWN)
        for model in (process.model,)
    ]
    return web.json_response({"running": sorted(running, key=lambda entry: entry["model"])})


def states(router: Router) -> dict[str, State]:
    """Return the state of each model's server."""
    return {name: process.state for name, process in router.processes.items()}


def model_records(models: Iterable[Model], now: Mapping[str, State], *, with_aliases: bool) -> list[dict[str, Any]]:
    """Return the entries of `/v1/models`.

    Args:
        models: The models to list.
        now: The state of each model's server.
        with_aliases: An alias gets an entry of its own.
    """
    created = int(time.time())
    records = []
    for model in models:
        loaded = now.get(model.id) in (State.STARTING, State.READY)
        own = {"type": "model", **({"aliases": list(model.aliases)} if model.aliases else {})}
        records.append(_record(model.id, model, created, loaded, own))
        if with_aliases:
            of_alias = {"type": "alias", "modelID": model.id}
            records += [_record(alias, model, created, loaded, of_alias) for alias in model.aliases if alias.strip()]
    return sorted(records, key=lambda record: str(record["id"]))


def model_status(router: Router) -> list[dict[str, Any]]:
    """Return every model with the state of its server, as the message `modelStatus` of the event feed has it."""
    now = states(router)
    entries = []
    for model in sorted(router.config.models.values(), key=lambda model: model.id):
        entry: dict[str, Any] = {
            "id": model.id,
            "name": model.name,
            "description": model.description,
            "state": str(now.get(model.id, State.STOPPED)),
            "unlisted": model.unlisted,
            "peerID": "",
        }
        if model.aliases:
            entry["aliases"] = list(model.aliases)
        if capabilities := _capabilities(model).get("capabilities"):
            entry["capabilities"] = capabilities
        entries.append(entry)
    return entries


def _record(name: str, model: Model, created: int, loaded: bool, own: Mapping[str, Any]) -> dict[str, Any]:
    declared = _capabilities(model)
    # What capabilities declare, metadata cannot contradict; without them metadata passes as it is.
    metadata = {key: value for key, value in model.metadata.items() if not declared or key not in _OF_CAPABILITIES}
    record: dict[str, Any] = {"id": name, "object": "model", "created": created, "owned_by": "ringcast-router"}
    for key, text in (("name", model.name.strip()), ("description", model.description.strip())):
        if text:
            record[key] = text
    return {
        **record,
        **declared,
        "meta": {"llamaswap": {**metadata, **own}},
        "status": {"value": "loaded" if loaded else "unloaded"},
    }


def _capabilities(model: Model) -> dict[str, Any]:
    """Return the members of a record that tell what a model takes and gives; {} where nothing is declared."""
    caps = model.capabilities
    found: dict[str, Any] = {}
    architecture: dict[str, Any] = {}
    if caps.input:
        architecture["input_modalities"] = list(caps.input)
    if caps.output:
        architecture["output_modalities"] = list(caps.output)
    if caps.input and caps.output:
        architecture["modality"] = f"{'+'.join(caps.input)}->{'+'.join(caps.output)}"
    if architecture:
        found["architecture"] = architecture
    abilities = {
        "vision": "image" in caps.input,
        "audio_transcriptions": "audio" in caps.input and "text" in caps.output,
        "audio_speech": "text" in caps.input and "audio" in caps.output,
        "image_generation": "text" in caps.input and "image" in caps.output,
        "image_to_image": "image" in caps.input and "image" in caps.output,
        "function_calling": caps.tools,
        "reranker": caps.reranker,
    }
    if able := {ability: True for ability, is_so in abilities.items() if is_so}:
        found["capabilities"] = able
    if caps.tools:
        found["supported_parameters"] = ["tools", "tool_choice"]
    if caps.context > 0:
        found["context_length"] = caps.context
    return found
