"""examples/native: an extension with a native handler and a native publisher, built and run."""

import shutil
import subprocess
import sys

import pytest
from conftest import EXAMPLES


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The example with its extension, in a folder of its own."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    if not any(map(shutil.which, ("cc", "gcc", "clang", "cl"))):
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("native") / "example"
    shutil.copytree(EXAMPLES / "native", folder, ignore=shutil.ignore_patterns("build", "*.c", "*.so"))
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_c_and_python_see_every_trade(built):
    done = run(built, "example.py", "100000")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("100000 trades in ")
    # sum of price * size over sum of sizes, as the example's generator makes them
    value = sum((100 + number % 7) * (1 + number % 3) for number in range(100_000))
    volume = sum(1 + number % 3 for number in range(100_000))
    assert f"average price {value / volume:.4f}, largest 106.0" in done.stdout


def test_a_record_type_of_another_layout_is_refused(built):
    program = """
import vwap
from ringcast import Dispatcher, record
@record
class Other:
    price: float
with Dispatcher() as bus:
    try:
        vwap.simulate(bus, Other, 1)
    except TypeError as error:
        print(error)
"""
    done = run(built, "-c", program)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Other is not laid out as the struct Trade\n"


def test_the_average_ends_with_its_subscription(built):
    program = """
import gc, vwap, weakref
from example import Trade
from ringcast import Dispatcher
with Dispatcher() as bus:
    average = vwap.Vwap(bus, Trade)
    bus.publish(Trade(2.0, 3, 0))
    with average.subscription:
        pass
    bus.publish(Trade(4.0, 5, 0))
    assert bus.wait_idle(5)
    print(average.trades, average.price)
"""
    done = run(built, "-c", program)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 2.0\n"
