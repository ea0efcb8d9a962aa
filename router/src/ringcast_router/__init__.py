"""An HTTP router that starts, swaps and stops model servers on demand.

The way of a request, file by file: `front/` takes it from the network and finds its model; `owner.py` hands it to the
scheduler (`scheduling/`), which asks a planner (`planning/`) what must make room; `processes/` stops and starts the
model servers; `front/` passes the request on. Every change of state is published as an event of `events.py`.
"""

__version__ = "0.1.0"
