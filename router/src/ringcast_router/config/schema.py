"""All keys of a configuration: which there are, of what type, with what default."""

from ringcast_router.config.decode import (
    Decoder,
    anything,
    boolean,
    choice,
    duration,
    integer,
    macro_list,
    mapping,
    noted,
    number,
    optional,
    section,
    sequence,
    size,
    text,
    texts,
)

IGNORED_PATHS = r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$"
_MODALITY = choice("text", "audio", "image", default="text")


def _unserved(decoder: Decoder) -> Decoder:
    return noted(decoder, "accepted, but not served by this version")


def _timeouts(response_header: int) -> Decoder:
    return section(
        {
            "connect": integer(30),
            "keepalive": integer(30),
            "responseHeader": integer(response_header),
            "tlsHandshake": integer(10),
            "expectContinue": integer(1),
            "idleConn": integer(90),
        }
    )


_FILTERS = {"stripParams": text(), "strip_params": text(), "setParams": mapping(anything)}

MODEL = section(
    {
        "cmd": text(),
        "cmdStop": text(later=("PID",)),
        "proxy": text("http://localhost:${PORT}"),
        "checkEndpoint": text("/health"),
        "ttl": integer(-1, least=-1),
        "unloadTimeout": integer(0, least=0),
        "healthCheckTimeout": noted(integer(0), "the global healthCheckTimeout holds for every model"),
        "aliases": texts(),
        "env": texts(),
        "name": text(),
        "description": text(),
        "useModelName": text(),
        "unlisted": boolean(),
        "concurrencyLimit": integer(0),
        "sendLoadingState": boolean(None),
        "macros": macro_list,
        "metadata": mapping(anything),
        "filters": section({**_FILTERS, "setParamsByID": mapping(mapping(anything), keys_too=True)}),
        "timeouts": _timeouts(response_header=0),
        "compat": section({"ignoreWebsockets": boolean()}),
        "capabilities": section(
            {
                "in": sequence(_MODALITY),
                "out": sequence(_MODALITY),
                "tools": boolean(),
                "reranker": boolean(),
                "context": integer(0, least=0),
            }
        ),
    }
)

_GROUPS = mapping(
    section({"swap": boolean(True), "exclusive": boolean(True), "persistent": boolean(), "members": texts()})
)
_MATRIX = optional(section({"vars": mapping(text()), "evict_costs": mapping(integer(0)), "sets": mapping(text())}))
_PEER = section(
    {
        "proxy": text(),
        "apiKey": text(),
        "models": texts(),
        "filters": section(_FILTERS),
        "timeouts": _timeouts(response_header=60),
    }
)
_SELECTOR = section(
    {
        "strategy": text(),
        "targets": texts(),
        "settings": section({"spillover": integer(1, least=1)}),
        "name": text(),
        "description": text(),
        "unlisted": boolean(),
        "metadata": mapping(anything),
    }
)


def top(models: Decoder) -> Decoder:
    """Return the decoder of a whole file.

    Args:
        models: The decoder of `models`, whose members have macros and ports of their own.
    """
    return section(
        {
            "healthCheckTimeout": integer(120),
            "globalTTL": integer(0, least=0),
            "unloadTimeout": integer(10, least=0),
            "logLevel": text("info"),
            "logTimeFormat": text(),
            "logToStdout": choice("proxy", "upstream", "both", "none", default="proxy"),
            "logRequests": noted(boolean(), "has no effect any more"),
            "metricsMaxInMemory": _unserved(integer(1000)),
            "captureBuffer": _unserved(integer(5)),
            "store": _unserved(optional(section({"path": text()}))),
            "ui": section({"activity": section({"session_id": texts(("X-Session-ID", "X-Litellm-Session-Id"))})}),
            "performance": _unserved(section({"disabled": boolean(), "every": duration("5s")})),
            "startPort": integer(5800, least=1),
            "sendLoadingState": boolean(),
            "includeAliasesInList": boolean(),
            "macros": macro_list,
            "apiKeys": texts(),
            "models": models,
            "profiles": _unserved(mapping(section({"description": text(), "pins": mapping(text())}))),
            "selectors": _unserved(mapping(_SELECTOR)),
            "groups": _GROUPS,
            "matrix": _MATRIX,
            "routing": section(
                {
                    "scheduler": section(
                        {
                            "use": text(),
                            "settings": section({"fifo": section({"priority": mapping(integer(0))})}),
                        }
                    ),
                    "router": section({"use": text(), "settings": section({"groups": _GROUPS, "matrix": _MATRIX})}),
                }
            ),
            "hooks": section({"on_startup": section({"preload": texts()})}),
            "peers": _unserved(mapping(_PEER)),
            "upstream": section({"ignorePaths": texts()}),
            "ringcast": lambda node, key, scope: RINGCAST(node, key, scope.without_macros()),
        }
    )


RINGCAST = section(
    {
        "scheduler": text(),
        "router": text(),
        "fair": section(
            {
                "max_wait": number(30.0),
                "min_residence": number(None, auto=True),
                "linger": number(None, auto=True),
                "max_batch": integer(64, least=1),
                "priority": mapping(integer(0)),
            }
        ),
        "queue": section({"limit": integer(100, least=1), "total": integer(1000, least=1), "timeout": number(600.0)}),
        "keys": sequence(
            section(
                {
                    "key": text(),
                    "priority": integer(0),
                    "max_priority": integer(0),
                    "models": optional(texts()),
                    "admin": boolean(True),
                    "rate": _unserved(anything),
                }
            )
        ),
        "resources": _unserved(mapping(size)),
        "models": mapping(
            section(
                {
                    "resources": _unserved(mapping(size)),
                    "liveness": section({"every": number(10.0), "failures": integer(3, least=1)}),
                    "sleep": _unserved(anything),
                    "pinned": _unserved(boolean()),
                    "priority": optional(integer(0)),
                }
            )
        ),
    }
)
