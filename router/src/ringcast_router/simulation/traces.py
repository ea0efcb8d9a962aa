"""Loads for the simulation: traces from files, and synthetic ones."""

import csv
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from ringcast_router.config.model import Config
from ringcast_router.errors import ConfigError
from ringcast_router.simulation.world import Costs, Job


@dataclass(frozen=True)
class Trace:
    """A load.

    Attributes:
        jobs: Requests that come at their own times, the earliest first.
        costs: How long loads and stops take.
        agents: For each agent its requests, one after another; their `at` is the pause after the one before.
    """

    jobs: Sequence[Job] = ()
    costs: Costs = field(default_factory=Costs)
    agents: Sequence[Sequence[Job]] = ()


def read(path: str | Path, config: Config, costs: Costs | None = None) -> Trace:
    """Read a trace.

    A JSONL file has an object a line, for a request `{"at": 12.5, "model": "small", "seconds": 3, "priority": 0}`: when
    it comes, for which model or alias, how long it is served (default 1), its priority (default 0). A line without
    `at`, `{"model": "small", "load": 20, "stop": 2}`, says how long loading and stopping a model take. A file whose
    name ends in `.csv` has the columns `at`, `model` and, where wanted, `seconds` and `priority`. Times are in seconds,
    in any order.

    Args:
        path: The file.
        config: Says which models there are.
        costs: How long loads and stops take where the trace says nothing.

    Raises:
        ConfigError: The file cannot be read, or a line is wrong; the error names the line.
    """
    costs = costs or Costs()
    models = dict(costs.models)
    jobs = []
    for line, row in _rows(path):
        try:
            model = config.model_id(str(row["model"]))
            if model is None:
                raise ValueError(f"there is no model {row['model']!r}")
            if "at" in row:
                at, seconds = _seconds(row, "at", 0.0), _seconds(row, "seconds", 1.0)
                jobs.append(Job(at, model, seconds, int(row.get("priority") or 0)))
            else:
                load, stop = costs.of(model)
                models[model] = _seconds(row, "load", load), _seconds(row, "stop", stop)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ConfigError(what, file=str(path), line=line) from None
    jobs.sort(key=lambda job: job.at)
    return Trace(jobs, Costs(costs.load, costs.stop, models))


def _seconds(row: Mapping[str, Any], key: str, default: float) -> float:
    value = row.get(key)
    number = default if value is None or value == "" else float(value)  # a column of a CSV file may be empty
    if not 0 <= number < math.inf:
        raise ValueError(f"{key} must be a time of at least 0 seconds, not {value!r}")
    return number


def _rows(path: str | Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            if str(path).endswith(".csv"):
                reader = csv.DictReader(file)
                for row in reader:
                    yield reader.line_num, row
                return
            for line, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise ConfigError(f"not JSON: {error}", file=str(path), line=line) from None
                if not isinstance(row, dict):
                    raise ConfigError("each line is an object in braces", file=str(path), line=line)
                yield line, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read: {error}", file=str(path)) from None


def zipf(
    config: Config,
    requests: int,
    *,
    rate: float = 1.0,
    skew: float = 1.0,
    seconds: float = 1.0,
    costs: Costs | None = None,
    seed: int = 0,
) -> Trace:
    """Return requests at random times, most for a few models (Zipf's law).

    Args:
        config: Says which models there are; the first named is the most wanted.
        requests: How many.
        rate: How many come in a second, on average.
        skew: The n-th model is wanted n**-skew times as often as the first.
        seconds: How long a request is served, on average (exponential).
        costs: How long loads and stops take.
        seed: The same seed gives the same load.
    """
    dice = random.Random(seed)
    models = list(config.models)
    weights = list(accumulate((n + 1) ** -skew for n in range(len(models))))
    at = 0.0
    jobs = []
    for model in dice.choices(models, cum_weights=weights, k=requests):
        at += dice.expovariate(rate)
        jobs.append(Job(at, model, dice.expovariate(1 / seconds)))
    return Trace(jobs, costs or Costs())


def bursts(
    config: Config,
    requests: int,
    *,
    size: int = 12,
    pause: float = 60.0,
    seconds: float = 1.0,
    costs: Costs | None = None,
) -> Trace:
    """Return bursts ABCABC...: `size` requests at once, which ask for all models in turn, then `pause` seconds."""
    models = list(config.models)
    jobs = [Job(n // size * pause, models[n % len(models)], seconds) for n in range(requests)]
    return Trace(jobs, costs or Costs())


def agents(
    config: Config,
    requests: int,
    *,
    clients: int = 6,
    pause: float = 0.5,
    seconds: float = 1.0,
    costs: Costs | None = None,
) -> Trace:
    """Return clients that ask for all models in turn, each from another one on, and wait for one answer at a time."""
    models = list(config.models)
    share = [requests // clients + (n < requests % clients) for n in range(clients)]
    plans = [[Job(pause, models[(n + i) % len(models)], seconds) for i in range(share[n])] for n in range(clients)]
    return Trace((), costs or Costs(), plans)
