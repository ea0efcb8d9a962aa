"""A native handler and a native publisher in Cython: the volume-weighted average price of trades.

Neither touches the interpreter: `add` is called with runs of trades without the GIL, and `simulate` publishes without it.
"""
cimport ringcast
from libc.stdint cimport int32_t, uint64_t, uintptr_t

cdef struct Trade:      # as the record type Trade of example.py
    double price
    int32_t size
    int32_t venue

cdef struct Totals:
    double value
    double volume
    uint64_t trades

ringcast.ringcast_import()


cdef void add(const void *records, size_t count, size_t stride, void *userdata) noexcept nogil:
    cdef const Trade *trades = <const Trade *>records
    cdef Totals *totals = <Totals *>userdata
    cdef size_t at
    for at in range(count):
        totals.value += trades[at].price * trades[at].size
        totals.volume += trades[at].size
    totals.trades += count


cdef class Vwap:
    """Keeps the average of all trades that are published from now on."""
    cdef Totals totals
    cdef readonly object subscription

    def __init__(self, dispatcher, trade_type):
        # the subscription keeps this object, which the totals are part of
        self.subscription = ringcast.ringcast_subscribe(dispatcher, trade_type, add, &self.totals, <void *>self)

    @property
    def trades(self):
        return self.totals.trades

    @property
    def price(self):
        return self.totals.value / self.totals.volume if self.totals.volume else None


def simulate(dispatcher, trade_type, uint64_t count):
    """Publishes `count` trades from C, without the GIL."""
    cdef ringcast.ringcast_topic *topic = ringcast.ringcast_topic_new(dispatcher, trade_type)
    cdef ringcast.ringcast_status status = ringcast.RINGCAST_OK
    cdef Trade trade
    cdef uint64_t number
    if ringcast.ringcast_record_size(topic) != sizeof(Trade):
        ringcast.ringcast_topic_free(topic)
        raise TypeError(f"{trade_type.__name__} is not laid out as the struct Trade")
    with nogil:
        for number in range(count):
            trade.price = 100 + <double>(number % 7)
            trade.size = 1 + number % 3
            trade.venue = number % 2
            status = ringcast.ringcast_publish(topic, &trade, 1, ringcast.RINGCAST_FOREVER, NULL)
            if status != ringcast.RINGCAST_OK:
                break
    ringcast.ringcast_topic_free(topic)
    if status != ringcast.RINGCAST_OK:
        raise RuntimeError(f"publishing ended with status {status}")
