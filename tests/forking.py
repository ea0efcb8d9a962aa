"""What tests that fork share: those that fork themselves, and those that run a program which does."""

import inspect
import os
import signal
import sys
import traceback
import warnings

from limits import DEADLINE


def fork(child):
    """Runs child() in a fork; gives its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12: fork while there are threads
        pid = os.fork()
    if pid == 0:
        signal.alarm(int(2 * DEADLINE))
        code = 1
        try:
            child()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


PRELUDE = f"DEADLINE = {DEADLINE}\n"
PRELUDE += """
import asyncio, gc, os, signal, sys, threading, time, traceback, warnings, weakref
warnings.simplefilter("ignore", DeprecationWarning)   # since 3.12: fork while there are threads
import ringcast
from ringcast import Dispatcher

class Tick:
    def __init__(self, number=0):
        self.number = number

class Other(Tick):
    pass

"""
PRELUDE += inspect.getsource(fork)
PRELUDE += """
class Slow:
    '''A handler that is stuck until it is opened.'''
    def __init__(self):
        self.held, self.opened, self.got = threading.Event(), threading.Event(), []
    def __call__(self, event):
        self.held.set()
        assert self.opened.wait(DEADLINE)
        self.got.append(event.number)

def numbers(subscription):
    return subscription.delivered, subscription.dropped, subscription.filtered, subscription.pending

"""
