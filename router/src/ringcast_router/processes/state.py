"""The states of a model's server.

| from | to | when |
| --- | --- | --- |
| stopped | starting | a start is asked for |
| starting | ready | the server answers its health check |
| starting | stopped | the start failed, or a stop was asked for |
| ready | stopping | a stop is asked for, or the server no longer answers |
| ready | stopped | the server has ended by itself |
| stopping | stopped | the server has ended, as asked |
| stopping | starting | the server had not answered: it is started again |
| stopped | shutdown | the router ends; final |
"""

from enum import StrEnum


class State(StrEnum):
    """The state of a model's server; the words are those of the original's API."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    SHUTDOWN = "shutdown"
