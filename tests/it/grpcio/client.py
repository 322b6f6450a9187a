"""A gRPC client of grpcio whose messages are bytes: makes some calls and looks at what comes of them.

client.py CASE TARGET CA [WORD...]   CA is `-` where there is no TLS; ends with 1 and says why when a call goes wrong
"""

import queue
import sys
import threading

import grpc

PATIENCE = 20
CODE = grpc.StatusCode


class Calls:
    """The service, over a connection of its own."""

    def __init__(self, target, ca):
        options = (
            ("grpc.default_authority", "test.example"),
            ("grpc.ssl_target_name_override", "test.example"),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
        )
        if ca == "-":
            self.channel = grpc.insecure_channel(target, options)
        else:
            credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
            self.channel = grpc.secure_channel(target, credentials, options)

    def unary(self, name, service="test.Tested"):
        return self.channel.unary_unary(f"/{service}/{name}")

    def __getattr__(self, name):
        kinds = {"Count": "stream_unary", "Repeat": "unary_stream", "Late": "unary_stream", "Chat": "stream_stream"}
        return getattr(self.channel, kinds.get(name, "unary_unary"))(f"/test.Tested/{name}")


class Given:
    """Messages that are given one by one."""

    def __init__(self):
        self.queue = queue.Queue()
        self.give = self.queue.put

    def end(self):
        self.queue.put(None)

    def __iter__(self):
        return iter(self.queue.get, None)


def same(got, expected):
    if got != expected:
        raise AssertionError(f"{got!r} is not {expected!r}")


def failure(call):
    """How a call fails, which it has to."""
    try:
        got = call()
        got = got if isinstance(got, bytes) else list(got)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"it went well: {got!r:.100}")


def calls(to):
    for size in (0, 100, 4 << 20):
        message = b"x" * size
        answer, call = to.Echo.with_call(message, metadata=(("x-sent", "a b"),), timeout=PATIENCE)
        assert answer == message, f"{len(answer)} of {size} bytes"
        same(dict(call.initial_metadata()).get("x-first"), "a b")
        trailing = dict(call.trailing_metadata())
        same((trailing.get("x-last"), trailing.get("x-bytes-bin")), ("1", b"\x00\xff"))
    failed = failure(lambda: to.Fail(b"", timeout=PATIENCE))
    same((failed.code(), failed.details()), (CODE.NOT_FOUND, "no such thing: \u00fc%"))
    same(dict(failed.trailing_metadata()).get("x-why"), "gone")
    failed = failure(lambda: to.unary("Nothing")(b"", timeout=PATIENCE))
    same(failed.code(), CODE.UNIMPLEMENTED)


def streams(to):
    numbers = [b"%d" % number for number in range(10_000)]
    same(to.Count(iter(numbers[:1000]), timeout=PATIENCE), b"1000")
    same(list(to.Repeat(b"1000", timeout=PATIENCE)), numbers[:1000])
    same(list(to.Chat(iter(numbers), timeout=PATIENCE)), [*numbers, b"10000 in all"])
    given = Given()
    answers = to.Chat(iter(given), timeout=PATIENCE)
    for number in numbers[:200]:
        given.give(number)
        same(next(answers), number)
    given.end()
    same(list(answers), [b"200 in all"])
    large = [bytes([number]) * (4 << 20) for number in range(3)]
    assert list(to.Chat(iter(large), timeout=PATIENCE))[:3] == large


def ends(to):
    left = float(to.Left(b"", timeout=PATIENCE))
    assert PATIENCE / 2 < left <= PATIENCE, f"{left} s are left of {PATIENCE}"
    same(failure(lambda: to.Hang(b"", timeout=0.3)).code(), CODE.DEADLINE_EXCEEDED)
    for begin in (lambda: to.Hang.future(b""), lambda: to.Chat(iter(Given()))):
        call, over = begin(), threading.Event()
        call.add_done_callback(lambda _: over.set())
        # It goes before this one, over the same connection.
        same(to.Echo(b"", timeout=PATIENCE), b"")
        call.cancel()
        assert over.wait(PATIENCE)
        same(call.code(), CODE.CANCELLED)
    answers = to.Late(b"", timeout=PATIENCE)
    same(next(answers), b"one")
    failed = failure(lambda: list(answers))
    same((failed.code(), failed.details()), (CODE.RESOURCE_EXHAUSTED, "no more"))


def quiet(to):
    given = Given()
    answers = to.Chat(iter(given), timeout=PATIENCE)
    given.give(b"a")
    same(next(answers), b"a")
    # So long is longer than any timeout of the proxy's.
    same(failure(lambda: to.Hang(b"", timeout=3)).code(), CODE.DEADLINE_EXCEEDED)
    given.give(b"b")
    same(next(answers), b"b")
    given.end()
    same(list(answers), [b"2 in all"])


def refused(to):
    for service, metadata, code, message in (
        ("test.Nowhere", (), CODE.UNIMPLEMENTED, "No route matches"),
        ("test.Dead", (), CODE.UNAVAILABLE, "No healthy backend"),
        ("test.Tested", (("x-api-key", "nobody"),), CODE.UNAUTHENTICATED, "Unknown API key"),
        ("test.Tested", (("x-api-key", "banned-key"),), CODE.PERMISSION_DENIED, "Client is blocked"),
        ("test.Tested", (("x-api-key", "poor-key"),), CODE.RESOURCE_EXHAUSTED, "Rate limit exceeded"),
    ):
        failed = failure(lambda: to.unary("Echo", service)(b"", metadata=metadata, timeout=PATIENCE))
        same((failed.code(), failed.details()), (code, message))
        pushback = dict(failed.trailing_metadata()).get("grpc-retry-pushback-ms")
        same(pushback is not None, code is CODE.RESOURCE_EXHAUSTED)


def pays(to):
    """One call and one long stream, of the client whose key is told."""
    metadata = (("x-api-key", "team-key"),)
    same(to.Echo(b"a", metadata=metadata, timeout=PATIENCE), b"a")
    numbers = [b"%d" % number for number in range(1000)]
    same(len(list(to.Chat(iter(numbers), metadata=metadata, timeout=PATIENCE))), 1001)


def check(to, service, status):
    to.Check(f"{service} {status}".encode(), timeout=PATIENCE)


if __name__ == "__main__":
    case, target, ca, *words = sys.argv[1:]
    globals()[case](Calls(target, ca), *words)
