"""redis-py as applications use it, against a pool at the unix socket argv[1]."""

import sys

import redis


def main(path: str) -> None:
    client = redis.Redis(unix_socket_path=path, protocol=2, client_name="peer", socket_timeout=10)
    assert client.ping()
    assert client.set("a", b"\x00\r\n\xff") and client.get("a") == b"\x00\r\n\xff"
    assert client.set("b", 5, ex=5000, nx=True) and client.set("b", 6, nx=True) is None
    assert client.incrby("b", 3) == 8 and 4900 < client.ttl("b") <= 5000
    names = {f"key{i}": f"value{i}".encode() for i in range(200)}
    assert client.mset(names)
    assert client.mget([*names, "missing"]) == [*names.values(), None]
    assert client.exists(*names) == 200 and client.delete(*names, "missing") == 200

    pipeline = client.pipeline(transaction=False)
    for i in range(1000):
        pipeline.set(f"p{i}", i).get(f"p{i}")
    assert pipeline.execute() == [x for i in range(1000) for x in (True, str(i).encode())]

    assert client.hset("h", mapping={"x": 1, "y": 2}) == 2
    assert client.hgetall("h") == {b"x": b"1", b"y": b"2"}
    assert client.rpush("l", 1, 2, 3) == 3 and client.lrange("l", 0, -1) == [b"1", b"2", b"3"]
    assert client.zadd("z", {"m": 1.5}) == 1 and client.zscore("z", "m") == 1.5
    assert sorted(client.sscan_iter("none")) == [] and dict(client.hscan_iter("h")) == {b"x": b"1", b"y": b"2"}
    script = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    refused("No matching script", lambda: client.evalsha(script.sha, 1, "b", 2))
    assert client.eval("return redis.call('incrby', KEYS[1], ARGV[1])", 1, "b", 2) == 10
    assert client.xadd("s", {"f": "v"}, id="1-1") == b"1-1"
    assert client.xread({"s": "0"}) == [[b"s", [(b"1-1", {b"f": b"v"})]]]

    # What a sharding proxy refuses it refuses with an error, and the connection goes on.
    refused("not supported", lambda: list(client.scan_iter()))
    # After that error the proxy closes, because of clients that cannot read it.
    client.connection_pool.disconnect()
    refused("not supported", client.keys)
    refused("not supported", client.flushall)
    refused("not supported", client.info)
    refused("not supported", lambda: client.blpop("l", timeout=1))
    refused("not supported", lambda: client.publish("c", "m"))
    # A transaction fails as a whole.
    refused("not supported", lambda: client.pipeline(transaction=True).set("t", 1).get("t").execute())
    assert client.get("t") is None
    refused("unknown command", lambda: client.execute_command("NOSUCH"))
    assert client.get("a") == b"\x00\r\n\xff"


def refused(words: str, call) -> None:
    try:
        call()
    except redis.ResponseError as error:
        assert words in str(error) or words in repr(error), error
    else:
        raise AssertionError(f"not refused: {words}")


main(sys.argv[1])
