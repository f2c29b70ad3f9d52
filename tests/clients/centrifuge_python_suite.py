"""The Python SDK's own tests, unchanged, against a server of the Centrifuge protocol.

Takes one argument, a JSON object: `address` (host:port) of the server, `expected`, the path of a list of expected
failures, and perhaps `only`, names of tests. The suite comes from the SDK's source distribution, which lies in the
folder `sdists` of `CURFEW_CLIENTS`. Its tests connect to port 8000 of this machine: connections to that port are led
to the server. Prints each test that went otherwise than the list says, and fails if there is one.
"""

import asyncio.base_events
import json
import os
import signal
import socket
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

from centrifuge_expected import read_list, report

SUITE_PORT = 8000
"""The port that the suite's files name."""

LONGEST_TEST = 30
"""Seconds. Tests of the suite wait for publications without a deadline."""


def lead_to(address, on_connection):
    """Leads connections of this process to the suite's port to the server instead, and tells of each."""
    host, port = address.rsplit(":", 1)
    server = (host, int(port))
    create_connection = asyncio.base_events.BaseEventLoop.create_connection
    connect = socket.create_connection

    def led_loop(loop, factory, host=None, port=None, **options):
        if port == SUITE_PORT:
            on_connection()
            host, port = server
        return create_connection(loop, factory, host, port, **options)

    def led_socket(address, *options, **named):
        return connect(server if address[1] == SUITE_PORT else address, *options, **named)

    asyncio.base_events.BaseEventLoop.create_connection = led_loop
    socket.create_connection = led_socket


class Results(unittest.TestResult):
    """What became of each test; one whose sub-tests fail has failed."""

    def __init__(self):
        super().__init__()
        self.outcomes = {}
        self.reasons = {}
        self.connected = set()
        self._running = None

    def on_connection(self):
        self.connected.add(self._running)

    def startTest(self, test):
        super().startTest(test)
        self._running = test.id()
        self.outcomes[test.id()] = "passes"
        signal.alarm(LONGEST_TEST)

    def stopTest(self, test):
        signal.alarm(0)
        super().stopTest(test)

    def _note(self, test, outcome, error=None):
        test = getattr(test, "test_case", test)
        # An error of a module's or a class's set-up has no test of its own.
        self.outcomes[test.id()] = outcome
        if error is not None:
            self.reasons.setdefault(test.id(), f"{error[0].__name__}: {error[1]}")

    def addError(self, test, err):
        super().addError(test, err)
        self._note(test, "fails", err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(test, "fails", err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "fails", err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._note(test, "is skipped")


def on_alarm(_signal, _frame):
    signal.alarm(LONGEST_TEST)
    raise TimeoutError(f"the test takes longer than {LONGEST_TEST} s")


def tests_of(suite):
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_of(each)
        else:
            yield each


def main(address, expected, only=None):
    [archive] = Path(os.environ["CURFEW_CLIENTS"], "sdists").glob("centrifuge_python-*.tar.gz")
    expected = read_list(expected)
    results = Results()
    lead_to(address, results.on_connection)
    signal.signal(signal.SIGALRM, on_alarm)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as archived:
            archived.extractall(folder, filter="data")
        [root] = Path(folder).iterdir()
        os.chdir(root)
        sys.path.insert(0, str(root))
        suite = unittest.defaultTestLoader.discover("tests", top_level_dir=str(root))
        tests = list(tests_of(suite))
        names = {test.id() for test in tests}
        if only is not None:
            tests = [test for test in tests if test.id() in only]
            expected = {name: reason for name, reason in expected.items() if name in only}
        unittest.TestSuite(tests).run(results)
    is_well = report(results.outcomes, results.reasons, expected, names)
    print(f"{len(results.connected)} of them connect to the server")
    # Threads and sockets of a test that hung must not keep the process.
    sys.stdout.flush()
    os._exit(0 if is_well and results.connected else 1)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
