"""What programs that fork begin with: for test_fork and test_metrics."""

from limits import DEADLINE

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

def fork(child):
    '''Runs child() in a fork; gives its exit code.'''
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
