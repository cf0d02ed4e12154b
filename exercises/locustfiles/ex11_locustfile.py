"""Exercise 11: many callers at a time, with locust.

locust -f exercises/locustfiles/ex11_locustfile.py --host http://localhost:3000 --payload image
    and then http://localhost:8089; or without the web page: --headless --users 32 --spawn-rate 32 --run-time 10s
"""

import io
import json

import locust
import numpy as np

from course import ROOT
from serving.images import open_image, preprocess

CAT = ROOT / "data" / "cat.png"


@locust.events.init_command_line_parser.add_listener
def add_options(parser) -> None:
    """What is sent: an option of the command line, and a field of the web page."""
    parser.add_argument("--payload", choices=["image", "json", "npy"], default="image", help="What each request holds")


@locust.events.test_start.add_listener
def prepare(environment, **_) -> None:
    """Prepare the request, once for each process: while a user computes, the server beside it cannot."""
    Caller.request = request_for(environment.parsed_options.payload)


def request_for(payload: str) -> dict:
    """The path, the headers and the body of a request.

    Args:
        payload: `image`, the photograph as a file; `json`, the preprocessed tensor as a nested list;
            `npy`, the same tensor as numpy.save() writes it.

    Returns:
        {"url": str, "headers": {"Content-Type": str}, "data": bytes}
    """
    # TODO 5: /classify takes the file itself (image/png); /predict takes {"image": nested list} (application/json);
    # /predict_npy takes the bytes of a .npy file (application/octet-stream).
    raise NotImplementedError("Return the path, the headers and the body of a request.")


# TODO 6: this is the load test that everybody writes first. HttpUser takes processor time from the server beside it.
class Caller(locust.HttpUser):
    """Sends the next request as soon as the last one was answered: no `wait_time`, which would hide a fast server."""

    wait_time = locust.between(1, 2)  # TODO 7: with it, 32 users ask for 21 images a second, of any server
    request: dict

    @locust.task
    def send(self) -> None:
        """Send the request; anything but 2xx is a failure, and its body says why."""
        # TODO 8: self.client.post(...), with catch_response=True, so that you can say what a failure was.
        raise NotImplementedError("Send self.request, and call response.failure(...) unless it is answered 2xx.")
