"""What a new configuration keeps of the old one: the servers of models that have not changed, and their ports."""

from collections.abc import Collection

from ringcast_router.config.build import build
from ringcast_router.config.model import Config, Model


def keep(old: Config, new: Config, live: Collection[int] = ()) -> tuple[Config, frozenset[str]]:
    """Let models keep their ports over a reload, though the order of the ids would shift them.

    A model has changed where its resolved `cmd`, `cmdStop`, `env`, `proxy` or `checkEndpoint` has. A model that is new
    gets no port that a model of the old configuration has, since that one's server may still be running; nor a port on
    which a server of an earlier configuration drains. Where `startPort` changes, all ports do.

    Args:
        old: The configuration in force.
        new: The one to come, as `load` gave it.
        live: The ports of all servers that have not stopped.

    Returns:
        The configuration to come with the ports of the old one, and the ids of the models that have not changed.

    Raises:
        ConfigError: There are not enough ports for those that are new.
    """
    before = {name: model.port for name, model in old.models.items() if model.port}
    after = {name: model.port for name, model in new.models.items() if model.port}
    held = {*before.values(), *live}
    if new.source is not None and held and any(before.get(name) != port for name, port in after.items()):
        same_start = old.settings.get("startPort") == new.settings.get("startPort")
        kept = {name: port for name, port in before.items() if name in after} if same_start else {}
        new = build(new.source, kept, held)
    same = (
        name for name in old.models.keys() & new.models.keys() if _serves(old.models[name]) == _serves(new.models[name])
    )
    return new, frozenset(same)


def _serves(model: Model) -> tuple[object, ...]:
    """Return what decides how a model's server is started, stopped and reached."""
    return model.cmd, model.cmd_stop, model.env, model.proxy, model.check_endpoint
