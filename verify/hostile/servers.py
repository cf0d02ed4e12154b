"""ASGI applications that do what no service should; which one, the variable HOSTILE says."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np

KIND = os.environ["HOSTILE"]
KEPT = []

if KIND == "never_ready":
    time.sleep(600)
if KIND == "elsewhere":
    os.execv(sys.executable, [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "0"])
if KIND == "drip_head":
    with socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1]))) as listener:
        while True:
            connection, _ = listener.accept()
            with suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nname: ")
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.1)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if KIND == "deaf":
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            subprocess.Popen([sys.executable, __file__], env={"HOSTILE": "never_ready"}, start_new_session=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if KIND == "drip":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # uvicorn would wait for the end of the answer
    while "drip" in (KIND, scope["path"].strip("/")):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0.1)
    while scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
        await asyncio.sleep(0.01)
    if scope["path"] == "/greedy":
        for _ in range(6):
            if not os.fork():
                KEPT.append(np.ones(15 * 2**20))  # 120 MB
                time.sleep(600)
        time.sleep(600)
    await send({"type": "http.response.body", "body": b"ready"})
