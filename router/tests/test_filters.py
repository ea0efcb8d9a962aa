"""What a model's filters make of a JSON body: the same as filtering the parsed document."""

import asyncio
import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_scan import VALUES

from ringcast_router.config.model import Filters, Model
from ringcast_router.errors import Refused
from ringcast_router.front import filters
from ringcast_router.front.body import IN_MEMORY, Body, Outgoing
from ringcast_router.front.scan import JSONScanner

NAMES = st.sampled_from(["model", "stream", "a", "b", "c", "ä", '"', "top_p", ""])
SETTINGS = st.dictionaries(st.sampled_from(["model", "a", "b", "ä", '"', "z"]), VALUES, max_size=4)


async def filtered(data: bytes, model: Model, requested: str) -> bytes:
    """Return what the model's server gets."""
    scanner = JSONScanner()
    scanner.feed(data)
    with Body() as body:
        await body._append(data)
        await body._complete()
        sent = body.outgoing(await filters.rewrite(body, scanner.close(), model, requested))
        if isinstance(sent, Outgoing):
            joined = b"".join([chunk async for chunk in sent])
            assert sent.size == len(joined)
            return joined
        return sent


def run(data: bytes, model: Model, requested: str = "m") -> Any:
    return json.loads(asyncio.run(filtered(data, model, requested)))


def on_parsed(document: dict[str, Any], model: Model, requested: str) -> dict[str, Any]:
    """Filter a parsed document: what the filters mean."""
    result = copy.deepcopy(document)
    if model.use_model_name:
        result["model"] = model.use_model_name
    for name in model.filters.strip_params.split(","):
        if name.strip() != "model":
            result.pop(name.strip(), None)
    for params in (model.filters.set_params, model.filters.set_params_by_id.get(requested, {})):
        result.update({name: value for name, value in params.items() if name != "model"})
    return result


@given(
    document=st.dictionaries(NAMES.filter(bool), VALUES, max_size=8),
    indent=st.sampled_from([None, 2]),
    use_model_name=st.sampled_from(["", "other", 'q"uote']),
    strip=st.lists(st.sampled_from(["model", "stream", " a ", "b", "ä", "absent", ""])),
    set_params=SETTINGS,
    by_id=st.dictionaries(st.sampled_from(["m", "alias"]), SETTINGS, max_size=2),
)
def test_filtering_bytes_is_filtering_the_document(
    document: dict[str, Any],
    indent: int | None,
    use_model_name: str,
    strip: list[str],
    set_params: dict[str, Any],
    by_id: dict[str, dict[str, Any]],
) -> None:
    model = Model("m", use_model_name=use_model_name, filters=Filters(",".join(strip), set_params, by_id))
    data = json.dumps(document, indent=indent).encode()
    assert run(data, model, "alias") == on_parsed(document, model, "alias")


@given(document=st.dictionaries(NAMES, VALUES, max_size=8), indent=st.sampled_from([None, 2]))
def test_without_filters_the_body_passes_byte_by_byte(document: dict[str, Any], indent: int | None) -> None:
    data = b"\xef\xbb\xbf " + json.dumps(document, indent=indent).encode() + b"\n"
    assert asyncio.run(filtered(data, Model("m", filters=Filters("absent")), "m")) == data


def test_members_that_stay_keep_their_bytes_and_what_is_set_comes_last() -> None:
    data = b'{ "b" : 1.50, "model":"x" , "a":"\\u00e4",\n"c":[ 1 ]}'
    model = Model("m", use_model_name="y", filters=Filters("absent", {"z": None, "d": "ä"}))
    expected = '{"b" : 1.50,"a":"\\u00e4",\n"c":[ 1 ],"model": "y","d": "ä","z": null}'.encode()
    assert asyncio.run(filtered(data, model, "m")) == expected


def test_every_copy_of_a_name_is_replaced() -> None:
    data = b'{"a":1,"model":"x","a":2,"model":"y"}'
    model = Model("m", use_model_name="z", filters=Filters("a"))
    assert asyncio.run(filtered(data, model, "m")) == b'{"model": "z"}'


@pytest.mark.parametrize(
    ("settings", "document", "expected"),
    [
        ({"k.e": False}, {}, {"k": {"e": False}}),
        ({"k.e": False}, {"k": {"f": 1}}, {"k": {"f": 1, "e": False}}),
        ({"k.e.g": 1, "k.h": 2}, {"k": {"e": 5}}, {"k": {"e": {"g": 1}, "h": 2}}),
        ({"k.e": 1}, {"k": [1]}, {"k": {"e": 1}}),
        ({"k": {"a": 1}, "k.b": 2}, {"k": 0}, {"k": {"a": 1, "b": 2}}),
        ({"k\\.e": 1}, {}, {"k.e": 1}),
        ({".": 1}, {}, {".": 1}),
    ],
)
def test_a_name_with_dots_is_a_path(settings: Mapping[str, Any], document: Any, expected: Any) -> None:
    assert run(json.dumps(document).encode(), Model("m", filters=Filters("", settings))) == expected


@pytest.mark.parametrize(
    ("strip", "document", "expected"),
    [
        ("k.e", {"k": {"e": 1, "f": 2}}, {"k": {"f": 2}}),
        ("k.e", {"k": 1}, {"k": 1}),
        ("k.e", {}, {}),
        ("k.e.f", {"k": {"e": 1}}, {"k": {"e": 1}}),
        ("k.e.f,k.g", {"k": {"e": {"f": 1}, "g": 2}}, {"k": {"e": {}}}),
    ],
)
def test_stripping_a_path_leaves_the_rest(strip: str, document: Any, expected: Any) -> None:
    assert run(json.dumps(document).encode(), Model("m", filters=Filters(strip))) == expected


def test_settings_by_id_go_by_the_name_that_the_client_used() -> None:
    model = Model("m", filters=Filters("", {"a": 1}, {"low": {"a": 2}, "m": {"a": 3}}))
    assert [run(b"{}", model, name)["a"] for name in ("low", "m", "other")] == [2, 3, 1]


def test_a_body_on_disk_is_filtered_in_pieces() -> None:
    image = "A" * (3 * IN_MEMORY)
    data = json.dumps({"seed": 1, "image": image, "model": "alias", "tail": [1, 2]}).encode()
    model = Model("m", use_model_name="real", filters=Filters("seed", {"n": 2}))
    assert run(data, model) == {"image": image, "tail": [1, 2], "model": "real", "n": 2}


def test_a_nested_value_that_must_change_may_not_be_huge_or_broken() -> None:
    model = Model("m", filters=Filters("", {"k.e": 1}))
    with pytest.raises(Refused) as huge:
        run(json.dumps({"k": {"x": "x" * (IN_MEMORY + 1)}}).encode(), model)
    with pytest.raises(Refused) as broken:
        run(b'{"k":{"e" 1}}', model)
    assert (huge.value.status, broken.value.status) == (413, 400)


EXACT = [
    "1e999",
    "-1E400",
    "1.0",
    "1.50",
    "1E+2",
    "-0.0",
    "0.1000000000000000055",
    "9" * 4000,
    '"\\u00e4\\/"',
    "[ 1,\n2.0]",
]


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize(
    "model",
    [
        Model("m", use_model_name="x"),
        Model("m", filters=Filters(set_params={"a.b": 1})),
        Model("m", filters=Filters(set_params={"a.d.b": 1})),
        Model("m", filters=Filters(strip_params="a.old")),
        Model("m", filters=Filters(strip_params="a.d.old, old", set_params={"a.b": 1, "b": 2})),
    ],
)
def test_values_beside_what_changes_keep_their_bytes_on_every_level(model: Model, text: str) -> None:
    inner = f'{{ "v" : {text} , "old":{text}}}'
    data = f'{{"model":"m","v" : {text} ,"old":1,"a" : {{"v" : {text} ,"old":{text},"d":{inner}}}, "v2": {text}}}'
    sent = asyncio.run(filtered(data.encode(), model, "m")).decode()
    assert sent.count(f'"v" : {text}') == 3
    assert f'"v2": {text}' in sent
    assert json.loads(sent.replace(text, "0")) == run(data.replace(text, "0").encode(), model)


def test_a_nested_object_that_nothing_changes_in_stays_where_it_is() -> None:
    model = Model("m", filters=Filters("a.x, a.d.x, a.v.x, b.x"))
    data = b'{"a":{"d" : {"v":1.0}, "v":2.0},"a":{"d" : {"v":1.0}, "v":2.0}, "z":1}'
    assert asyncio.run(filtered(data, model, "m")) == data


def test_of_nested_members_of_one_name_the_last_counts() -> None:
    model = Model("m", filters=Filters("a.x", {"a.d.y": 1}))
    data = b'{"a":{"x":1},"a":{"x":1,"d":{"z":1},"x":2,"d":{"z":1.0}}}'
    assert asyncio.run(filtered(data, model, "m")) == b'{"a":{"d":{"z":1.0,"y": 1}}}'


@pytest.mark.parametrize("depth", [10, 980, 5000, 9990])
def test_a_deeply_nested_value_beside_what_changes_passes(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    model = Model("m", filters=Filters(set_params={"a.b": 1}))
    assert asyncio.run(filtered(b'{"a":{"c":' + deep + b"}}", model, "m")) == b'{"a":{"c":' + deep + b',"b": 1}}'


def test_a_lone_surrogate_beside_what_changes_stays_an_escape() -> None:
    model = Model("m", filters=Filters(set_params={"a.b": 1}))
    sent = asyncio.run(filtered(b'{"a":{"c":"\\ud800"}}', model, "m"))
    assert json.loads(sent) == {"a": {"c": "\ud800", "b": 1}}
