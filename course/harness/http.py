"""The HTTP client of the tests: httpx's, without proxies, and with bounds on how long and how large answers are.

httpx's own timeout begins again with each byte, so a server that sends one byte a second would hold a test forever.
"""

import threading
import time
from functools import partial
from typing import Any

import httpx

MOST = 32 * 2**20  # bytes, for all answers that one client gets


class Client(httpx.Client):
    """As httpx.Client; an answer that exceeds a bound closes it."""

    def __init__(self, *, timeout: float = 60, most: int = MOST, **options: Any) -> None:
        """timeout: seconds until an answer has arrived as a whole. most: bytes, for all answers together."""
        # No certificates: loopback has none, and to read the system's takes longer than most requests.
        super().__init__(timeout=timeout, trust_env=False, verify=False, **options)
        self.most = self.left = most

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request and read the whole answer; raises httpx.TransportError where it exceeds a bound."""
        if self.is_closed:
            raise httpx.ReadError("an earlier answer exceeded a bound", request=request)
        seconds, begun, answer = request.extensions["timeout"]["read"], time.monotonic(), None
        late = threading.Timer(seconds, self.close)
        late.daemon = True
        late.start()
        try:
            answer = super().send(request, **options | {"stream": True})
            body = b"".join(self._take(part) for part in answer.iter_bytes())
            decoded = ("content-encoding", "content-length", "transfer-encoding")
            headers = [pair for pair in answer.headers.multi_items() if pair[0] not in decoded]
            return httpx.Response(answer.status_code, headers=headers, content=body, request=answer.request)
        except (httpx.TransportError, RuntimeError) as error:
            if self.left < 0:
                self.close()
            elif time.monotonic() - begun >= seconds:
                raise httpx.ReadTimeout(f"the answer had not ended after {seconds:.0f} s", request=request) from error
            raise
        finally:
            late.cancel()
            if answer:
                answer.close()

    def _take(self, part: bytes) -> bytes:
        self.left -= len(part)
        if self.left < 0:
            raise httpx.ReadError(f"the answer is longer than {self.most // 2**20} MB")
        return part


def request(method: str, url: str, *, timeout: float = 60, **options: Any) -> httpx.Response:
    """Send one request, on a connection of its own; arguments and errors are those of httpx.request()."""
    with Client(timeout=timeout) as client:
        return client.request(method, url, **options)


get, post = partial(request, "GET"), partial(request, "POST")
