"""pymemcache as applications use it, against a pool at the unix socket argv[1]."""

import sys

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheUnknownCommandError


def main(path: str) -> None:
    client = Client(path, timeout=10, connect_timeout=10, default_noreply=False)
    assert client.set("a", b"\x00\r\n\xff") and client.get("a") == b"\x00\r\n\xff"
    assert client.add("a", b"1") is False and client.add("b", b"1") is True
    assert client.append("b", b"2") and client.prepend("b", b"0") and client.get("b") == b"012"
    assert client.replace("missing", b"x") is False
    names = {f"key{i}": f"value{i}".encode() for i in range(300)}
    assert client.set_many(names) == []
    assert client.get_many([*names, "missing"]) == names
    value, unique = client.gets("a")
    assert client.cas("a", b"new", unique) is True and client.cas("a", b"late", unique) is False
    assert client.cas("missing", b"x", b"1") is None
    assert len(client.gets_many(["a", "b", "missing"])) == 2
    assert client.set("n", b"10") and client.incr("n", 5) == 15 and client.decr("n", 20) == 0
    assert client.incr("missing", 1) is None
    assert client.touch("a", 5000) is True and client.touch("missing", 1) is False
    # This version of the library has no method for it.
    assert client.raw_command("gat 5000 a", "END\r\n") == b"VALUE a 0 3\r\nnew\r\n"
    assert client.delete_many(list(names)) and client.get_many(list(names)) == {}
    assert client.version().count(b".") == 2

    # Requests without a reply leave the connection aligned.
    quick = Client(path, timeout=10, default_noreply=True)
    for i in range(500):
        quick.set("q", str(i).encode())
        quick.delete("missing")
        quick.incr("b", 1, noreply=True)
    assert quick.get("q") == b"499"

    big = bytes(range(256)) * 3000
    assert client.set("big", big) and client.get("big") == big
    assert b"version" in client.stats()
    refused(lambda: client.cache_memlimit(64))
    assert client.flush_all() and client.get("a") is None


def refused(call) -> None:
    try:
        call()
    except (MemcacheClientError, MemcacheUnknownCommandError):
        return
    raise AssertionError("not refused")


main(sys.argv[1])
