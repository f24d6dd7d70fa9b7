"""A pytest plugin that holds a suite of somebody else's against a committed list of what must fail.

The list (--expected) has lines `test | words | reason`. A test is a node id in which `*` stands for
anything; the words must occur in what it raises. A listed test that passes, or fails with other words,
fails the run; so does a line that names no test. Other tests must pass.

redis-py's fixtures empty the database and ask for its version, which a proxy in front of several
servers refuses: what they send, and only they, goes to the servers (--servers) themselves.
"""

import re
import signal
import sys

import pytest

SECONDS_PER_TEST = 20


class Line:
    """One line of the list."""

    def __init__(self, text: str) -> None:
        self.test, self.words, self.reason = (part.strip() for part in text.split(" | "))
        self.pattern = re.compile(".*".join(re.escape(part) for part in self.test.split("*")))
        self.used = False


def pytest_addoption(parser) -> None:
    parser.addoption("--servers", help="unix sockets of the redis servers behind the proxy, comma between them")
    parser.addoption("--expected", required=True, help="the list of tests that must fail")


def pytest_configure(config) -> None:
    with open(config.getoption("--expected"), encoding="utf-8") as file:
        rows = [row for row in file.read().splitlines() if row and not row.startswith("#")]
    config.pluginmanager.register(Expectations([Line(row) for row in rows]))
    if servers := config.getoption("--servers"):
        send_fixtures_commands_to(servers.split(","))


class Expectations:
    """Turns the failures that are listed into expected ones, and everything else unexpected into failures."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        self.of_test: dict[str, Line] = {}
        self.settled: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items) -> None:
        for item in items:
            found = [line for line in self.lines if line.pattern.fullmatch(item.nodeid)]
            if len(found) > 1:
                raise pytest.UsageError(f"{item.nodeid} is listed by {[line.test for line in found]}")
            for line in found:
                line.used = True
                self.of_test[item.nodeid] = line
        files = {item.nodeid.split("::")[0] for item in items}
        for line in self.lines:
            if not line.used and line.test.split("::")[0] in files:
                raise pytest.UsageError(f"listed, but there is no such test: {line.test}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        line = self.of_test.get(item.nodeid)
        if line is None:
            return report
        if report.skipped:
            self.settled.add(item.nodeid)
        elif report.failed and line.words not in call.excinfo.exconly():
            self.settled.add(item.nodeid)
            report.longrepr = f"listed to fail with {line.words!r}, but: {call.excinfo.exconly()}"
        elif report.failed and item.nodeid in self.settled:
            # What cleans up fails as the test did: one test, counted once.
            report.outcome = "passed"
        elif report.failed:
            self.settled.add(item.nodeid)
            report.outcome = "skipped"
            report.wasxfail = line.reason
        elif report.when == "teardown" and item.nodeid not in self.settled:
            report.outcome = "failed"
            report.longrepr = f"passes, but is listed to fail with {line.words!r} ({line.reason})"
        return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    def give_up(signum, frame):
        # No TimeoutError: a client would take that for its socket's, and try again.
        pytest.fail(f"{item.nodeid} has taken {SECONDS_PER_TEST} seconds")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS_PER_TEST)
    try:
        return (yield)
    finally:
        signal.alarm(0)


def send_fixtures_commands_to(sockets: list[str]) -> None:
    import redis

    servers = [redis.Redis(unix_socket_path=path) for path in sockets]
    flushdb, info = redis.Redis.flushdb, redis.Redis.info

    def asked_by_a_fixture() -> bool:
        return sys._getframe(2).f_globals["__name__"] == "tests.conftest"

    def flushdb_of_all(self, *args, **kwargs):
        if asked_by_a_fixture():
            return all([flushdb(server) for server in servers])
        return flushdb(self, *args, **kwargs)

    def info_of_one(self, *args, **kwargs):
        return info(servers[0] if asked_by_a_fixture() else self, *args, **kwargs)

    redis.Redis.flushdb, redis.Redis.info = flushdb_of_all, info_of_one
