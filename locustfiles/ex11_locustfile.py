"""Exercise 11: many callers at a time, with locust.

locust -f locustfiles/ex11_locustfile.py --host http://localhost:3000 --payload image
    and then http://localhost:8089; or without the web page: --headless --users 32 --spawn-rate 32 --run-time 10s
"""

import io
import json

import numpy as np
from locust import FastHttpUser, events, task

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
    image = CAT.read_bytes()
    if payload == "image":
        return {"url": "/classify", "headers": {"Content-Type": "image/png"}, "data": image}
    tensor = preprocess(open_image(image))
    if payload == "json":
        body = json.dumps({"image": tensor.tolist()}).encode()
        return {"url": "/predict", "headers": {"Content-Type": "application/json"}, "data": body}
    file = io.BytesIO()
    np.save(file, tensor)
    return {"url": "/predict_npy", "headers": {"Content-Type": "application/octet-stream"}, "data": file.getvalue()}


# FastHttpUser needs a fraction of HttpUser's processor time, and leaves the rest to the server.
class Caller(FastHttpUser):
    """Sends the next request as soon as it has the answer to the last one: a `wait_time` would hide a fast server."""

    request: dict

    @task
    def send(self) -> None:
        """Send the request; anything but 2xx is a failure, and its body says why."""
        with self.client.post(**self.request, catch_response=True) as response:
            if response.status_code and not 200 <= response.status_code < 300:
                response.failure(f"{response.status_code} {(response.text or '')[:200]}")
