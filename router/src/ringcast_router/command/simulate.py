"""Compare the schedulers under a load, in virtual time.

Plays a load with the schedulers fifo and fair, and prints what each makes of it: swaps, waits, and the time that
loading took. No server is started; the models and what may run together are those of the configuration. The load is a
trace, or one of these, made up:

  zipf     requests at random times, most for a few models
  bursts   requests for all models in turn, all at once, again and again
  agents   clients that ask for all models in turn, each one request at a time

A trace is a file of JSON lines {"at": 12.5, "model": "small", "seconds": 3, "priority": 0}; a line without `at`,
{"model": "small", "load": 20, "stop": 2}, says what loading and stopping a model takes. Or a .csv file with the columns
at, model, seconds, priority. All times are in seconds.
"""

import argparse
import math
from collections.abc import Callable

from ringcast_router.command import files
from ringcast_router.config import Config
from ringcast_router.errors import ConfigError
from ringcast_router.simulation import COMPARED, Costs, Trace, agents, bursts, compare, read, zipf

EXAMPLE = """\
examples:
  ringcast-router simulate --config config.yaml
  ringcast-router simulate --config config.yaml --load zipf --rate 0.1 --load-time 20
  ringcast-router simulate --config config.yaml --trace requests.jsonl --scheduler fair
"""

Load = Callable[[Config, argparse.Namespace, Costs], Trace]

LOADS: dict[str, Load] = {
    "zipf": lambda config, given, costs: zipf(
        config, given.requests, rate=given.rate, seconds=given.seconds, costs=costs, seed=given.seed
    ),
    "bursts": lambda config, given, costs: bursts(config, given.requests, seconds=given.seconds, costs=costs),
    "agents": lambda config, given, costs: agents(
        config, given.requests, clients=given.clients, seconds=given.seconds, costs=costs
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `simulate`."""
    files.add_arguments(parser)
    load = parser.add_argument_group("the load")
    load.add_argument("--trace", metavar="FILE", help="play this trace; without it a load is made up")
    load.add_argument("--load", choices=LOADS, default="agents", help="which load is made up (default: agents)")
    load.add_argument("--requests", type=_count, default=1000, metavar="N", help="how many requests (1000)")
    load.add_argument("--clients", type=_count, default=6, metavar="N", help="how many clients; of agents (6)")
    load.add_argument("--rate", type=_positive, default=0.2, metavar="R", help="requests a second; of zipf (0.2)")
    load.add_argument("--seconds", type=_positive, default=1.0, metavar="S", help="what a request takes (1)")
    load.add_argument("--seed", type=int, default=0, metavar="N", help="of the dice of zipf (0)")
    load.add_argument("--load-time", type=_positive, default=10.0, metavar="S", help="what loading a model takes (10)")
    load.add_argument("--stop-time", type=_positive, default=1.0, metavar="S", help="what stopping a model takes (1)")
    parser.add_argument(
        "--scheduler",
        metavar="NAME",
        action="append",
        help="a scheduler to compare, or package.module:Class; may be given several times (default: fifo, fair)",
    )


def run(options: argparse.Namespace) -> int:
    """Compare the schedulers; return the exit status.

    Raises:
        ConfigError: The configuration or the trace cannot be used.
    """
    config = files.Files.of(options).read()
    if not config.models:
        raise ConfigError("there is no model to simulate: add one under `models`")
    costs = Costs(options.load_time, options.stop_time)
    trace = read(options.trace, config, costs) if options.trace else LOADS[options.load](config, options, costs)
    print(compare(config, trace, options.scheduler or COMPARED))
    return 0


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value
