"""What blinker 1.9 offers, under the same names: ``import ringcast.compat.blinker as blinker``.

Receivers are called in the same order with the same arguments as blinker calls them. `send` is compiled.
"""

from ringcast.compat import _signals as base
from ringcast.compat._signals import ANY, NamedSignal, Namespace, Signal, default_namespace, signal

__all__ = ["ANY", "NamedSignal", "Namespace", "Signal", "base", "default_namespace", "signal"]
