"""The benchmark suite: `python -m ringcast bench`. Not imported by anything else of Ringcast.

    options.py      the command's arguments
    command.py      what the command does with them
    work.py         events, counting handlers, and what a way to deliver them is
    ways.py         Ringcast's ways, one for each mode
    peers.py        what a Python user would take instead
    throughput.py   time per event, the ways of a mode in turn; also for many subscribers and types
    latency.py      from `publish` to the handler at a fixed offered rate
    memory.py       bytes for an event that waits
    machine.py      what machine this is, and how quiet
    timing.py       how all of these are timed and repeated; medians, ratios, spread
    results.py      rows, JSON, comparison of two results
    tables.py       tables of text; as Markdown
    report.py       tables in the terminal (needs rich)
    plots.py        plots (needs matplotlib)

Every run checks that each handler has had each event: a way that loses one ends the benchmark.
"""
