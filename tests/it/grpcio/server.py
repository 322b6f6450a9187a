"""A gRPC server of grpcio whose messages are bytes.

server.py [CERT KEY]   says `listening PORT` once it does, then `begun METHOD` and `over METHOD` for each call
"""

import os
import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

checks = health.HealthServicer()


def say(*words):
    # In one piece: print may be cut in on by another thread between two words.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def echo(message, context):
    context.send_initial_metadata((("x-first", dict(context.invocation_metadata()).get("x-sent", "")),))
    context.set_trailing_metadata((("x-last", "1"), ("x-bytes-bin", b"\x00\xff")))
    return message


def fail(message, context):
    context.set_trailing_metadata((("x-why", "gone"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: \u00fc%")


def left(message, context):
    return str(context.time_remaining()).encode()


def hang(message, context):
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(60)
    return b""


def count(messages, context):
    return str(sum(1 for _ in messages)).encode()


def repeat(message, context):
    for number in range(int(message)):
        yield b"%d" % number


def late(message, context):
    yield b"one"
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")


def chat(messages, context):
    number = 0
    for message in messages:
        number += 1
        yield message
    yield b"%d in all" % number


def check(message, context):
    name, status = message.decode().split()
    checks.set(name, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    return b""


def told(name, behave):
    def call(message, context):
        say("begun", name)
        if not context.add_callback(lambda: say("over", name)):
            say("over", name)  # before it had begun
        return behave(message, context)

    return call


KINDS = {
    grpc.unary_unary_rpc_method_handler: (echo, fail, left, hang, check),
    grpc.stream_unary_rpc_method_handler: (count,),
    grpc.unary_stream_rpc_method_handler: (repeat, late),
    grpc.stream_stream_rpc_method_handler: (chat,),
}
methods = {
    behave.__name__.title(): kind(told(behave.__name__.title(), behave))
    for kind, all in KINDS.items()
    for behave in all
}
options = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))
server = grpc.server(futures.ThreadPoolExecutor(16), options=options)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Tested", methods),))
health_pb2_grpc.add_HealthServicer_to_server(checks, server)
if len(sys.argv) > 1:
    cert, key = (open(name, "rb").read() for name in sys.argv[1:3])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(((key, cert),)))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
say("listening", port)
server.wait_for_termination()
