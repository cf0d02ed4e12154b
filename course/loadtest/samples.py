"""Records each request of a load test: a plug-in for locust, which works with any locust file.

locust -f locustfiles/ex11_locustfile.py,course/loadtest/samples.py --samples FOLDER --warm-up 2 --window 10 --headless ...

The load is steady within the window and on both sides of it. The window opens after all users have been there for
the warm-up, and as many requests have ended as there are users. After it has closed, the load goes on until as many
requests have ended again. FOLDER/open and FOLDER/closed appear when the window opens and closes, FOLDER/samples.json
at the end.
"""

import json
import time
from array import array
from pathlib import Path

import gevent
from locust import events

from course.base.files import write_whole

PATIENCE = 60  # seconds for which a window waits for requests to end, before and after


@events.init_command_line_parser.add_listener
def add_options(parser) -> None:
    """Options of the command line only: a test that is started on the web page has none of them."""
    parser.add_argument("--samples", include_in_web_ui=False, help="The folder that the samples are written to")
    parser.add_argument("--warm-up", type=float, default=2, include_in_web_ui=False, help="Seconds before the window")
    parser.add_argument("--window", type=float, default=10, include_in_web_ui=False, help="Seconds that count")


@events.init.add_listener
def record(environment, **_) -> None:
    """Record this test where a folder is named."""
    if environment.parsed_options.samples:
        Recorder(environment)


class Recorder:
    """Records every request, and ends the test after the window."""

    def __init__(self, environment) -> None:
        self.environment, self.options = environment, environment.parsed_options
        self.folder, self.window = Path(self.options.samples), [0.0, 0.0]
        self.ends, self.seconds = array("d"), array("d")
        self.failures: dict[int, str] = {}  # by the request's place in ends
        self.answer: str | None = None  # the first successful one
        environment.events.request.add_listener(self.note)
        environment.events.spawning_complete.add_listener(lambda **_: gevent.spawn(self.watch))
        environment.events.user_error.add_listener(lambda **_: environment.runner.quit())  # the locust file is broken
        environment.events.quit.add_listener(self.write)

    def note(self, response_time: float, exception: Exception | None, response=None, **_) -> None:
        """A request has ended. Only 2xx is a success, whatever the locust file says."""
        status = getattr(response, "status_code", 0)
        if exception is not None or not 200 <= status < 300:
            self.failures[len(self.ends)] = str(exception) if exception is not None else f"{status}"
        elif self.answer is None:
            self.answer = response.text
        self.ends.append(time.monotonic())
        self.seconds.append(response_time / 1000)

    def watch(self) -> None:
        """Open the window, close it, end the test."""
        gevent.sleep(self.options.warm_up)
        self.wait_for(self.options.num_users)
        self.window[0] = time.monotonic()
        (self.folder / "open").touch()
        gevent.sleep(self.options.window)
        self.window[1] = time.monotonic()
        (self.folder / "closed").touch()
        self.wait_for(len(self.ends) + self.options.num_users)
        self.environment.runner.quit()

    def wait_for(self, ended: int) -> None:
        """Wait until that many requests have ended, at most PATIENCE seconds."""
        give_up = time.monotonic() + PATIENCE
        while len(self.ends) < ended and time.monotonic() < give_up:
            gevent.sleep(0.02)

    def write(self, **_) -> None:
        """Write everything."""
        samples = {"ends": list(self.ends), "seconds": list(self.seconds), "failures": self.failures}
        write_whole(self.folder / "samples.json", json.dumps(samples | {"window": self.window, "answer": self.answer}))
