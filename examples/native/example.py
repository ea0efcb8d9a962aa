"""Trades from C to C: a million of them are published and averaged without the GIL, while Python looks at them too.

Build it beside this file, and run it: `python setup.py build_ext --inplace && python example.py [COUNT]`.
"""

from __future__ import annotations

import sys
import time

import vwap

from ringcast import Dispatcher, RecordBatch, record
from ringcast.records import float64, int32


@record
class Trade:
    """One trade, laid out as the struct of the same name in vwap.pyx."""

    price: float64
    size: int32
    venue: int32


def main(count: int = 1_000_000) -> None:
    """Publish `count` trades from C and show what native and Python handlers made of them."""
    largest = 0.0

    with Dispatcher() as bus:
        average = vwap.Vwap(bus, Trade)  # C, in C

        @bus.on(Trade, batch=512)
        def watch(trades: RecordBatch[Trade]) -> None:  # C, in Python, 512 at a time
            nonlocal largest
            largest = max(largest, *trades["price"])

        start = time.perf_counter()
        vwap.simulate(bus, Trade, count)
    seconds = time.perf_counter() - start
    print(f"{average.trades} trades in {seconds:.2f} s, average price {average.price:.4f}, largest {largest:.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
