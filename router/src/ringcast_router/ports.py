"""Free ports of this machine, for the demo and the tests."""

import random
import socket

LOOPBACK = "127.0.0.1"


def free_ports(count: int = 1) -> int:
    """Return the first of `count` ports in a row on which nobody listens on the loopback interface.

    They lie below the range from which systems take ports for outgoing connections.

    Raises:
        OSError: There are none.
    """
    for _ in range(1000):
        first = random.randrange(20_000, 32_000 - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise OSError(f"no {count} free ports in a row")


def _is_free(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True
