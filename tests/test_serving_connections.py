"""serving/connections.py where a worker runs out of files, and with TLS; test_service.py has how connections spread."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from course import ROOT
from course.base.processes import running
from course.harness import http

SERVER = """
import json, resource, socket, sys
import uvicorn
from serving.connections import spread_connections

async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})

spread_connections()
options = json.loads(sys.argv[2])
if files := options.pop("files", None):
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
config = uvicorn.Config(application, lifespan="off", log_level="warning", **options)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


@contextlib.contextmanager
def serving(log: Path, **options: object) -> Iterator[tuple[str, int]]:
    """The address of a worker. It may still start: until then, callers wait in the socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", SERVER, str(listener.fileno()), json.dumps(options)]
        with running(command, cwd=ROOT, env=os.environ, log=log, pass_fds=[listener.fileno()]):
            yield listener.getsockname()


def test_a_worker_out_of_files_says_so_now_and_then_and_goes_on_when_it_has_some(tmp_path):
    log = tmp_path / "log"
    with serving(log, files=40) as address:
        assert http.get(f"http://{address[0]}:{address[1]}").status_code == 200
        with contextlib.ExitStack() as callers:
            for _ in range(60):
                callers.enter_context(socket.create_connection(address))
            time.sleep(1.5)
            said = log.read_text().count("A connection could not be accepted: [Errno 24] Too many open files")
        assert 1 <= said <= 16, log.read_text()[-500:]
        assert http.get(f"http://{address[0]}:{address[1]}", timeout=10).status_code == 200


def test_with_tls_a_caller_who_never_answers_the_handshake_keeps_nobody_waiting(tmp_path):
    files = {"keyout": tmp_path / "key.pem", "out": tmp_path / "certificate.pem"}
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-keyout", files["keyout"], "-out", files["out"]]
    subprocess.run(command, check=True, capture_output=True)
    tls = {"ssl_keyfile": str(files["keyout"]), "ssl_certfile": str(files["out"])}
    with serving(tmp_path / "log", **tls) as address, socket.create_connection(address):
        assert http.get(f"https://{address[0]}:{address[1]}", timeout=20).status_code == 200
