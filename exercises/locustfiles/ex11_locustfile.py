"""Exercise 11: many callers at a time, with locust.

locust -f exercises/locustfiles/ex11_locustfile.py --host http://localhost:3000 --payload image
    and then http://localhost:8089; or without the web page: --headless --users 32 --spawn-rate 32 --run-time 10s
"""

import io
import json

import numpy as np
from locust import FastHttpUser, HttpUser, between, events, task  # TODO 5: HttpUser and between go, see below.

from course import ROOT
from serving.images import open_image, preprocess

CAT = ROOT / "data" / "cat.png"


@events.init_command_line_parser.add_listener
def add_options(parser) -> None:
    """What is sent: an option of the command line, and a field of the web page."""
    parser.add_argument("--payload", choices=["image", "json", "npy"], default="image", help="What each request holds")


@events.test_start.add_listener
def prepare(environment, **_) -> None:
    """Prepare the request once for each process: a caller that computes takes processor time from the server."""
    environment.host = (environment.host or "").rstrip("/")  # the path begins with one
    Caller.request = request_for(environment.parsed_options.payload)


def request_for(payload: str) -> dict:
    """What locust posts: {"url": str, "headers": {"Content-Type": str}, "data": bytes}.

    payload: `image`, the photograph as a file; `json`, the preprocessed tensor as a nested list; `npy`, the same tensor
        as numpy.save() writes it.
    """
    # TODO 6: /classify takes the file itself (image/png); /predict takes {"image": nested list} (application/json);
    # /predict_npy takes the bytes of a .npy file (application/octet-stream).
    raise NotImplementedError("Return the path, the headers and the body of a request.")


# TODO 7: this is the load test that everybody writes first. HttpUser takes processor time from the server beside it.
class Caller(HttpUser):
    """Sends the next request as soon as it has the answer to the last one: a `wait_time` would hide a fast server."""

    wait_time = between(1, 2)  # TODO 8: 32 users who wait send 21 requests a second, however fast the server is.
    request: dict

    @task
    def send(self) -> None:
        """Send the request; anything but 2xx is a failure, and its body says why."""
        # TODO 9: self.client.post(...), with catch_response=True, so that you can say what a failure was.
        raise NotImplementedError("Send self.request, and call response.failure(...) unless the status is 2xx.")
