"""Exercise 13: several workers that share out the cores instead of fighting for them.

WORKERS=2 bentoml serve exercises.ex13_workers:ImageClassifierService
"""

import os
import re

import bentoml
from bentoml.exceptions import BentoMLException

from serving.cores import cores
from serving.model import open_model
from serving.service import Classifier, finish

MOST = 256  # workers, or threads of one: more is a slip of the finger


def read_number(name: str, wanted: str, least: int, otherwise: str) -> int:
    """A setting that is a number from `least` to MOST; a BentoMLException for anything else ends `bentoml serve`."""
    # TODO 1: `wanted` is what somebody typed. Begin the sentence with it, as in `WORKERS=two`, and say what was expected.
    raise NotImplementedError("Return the number.")


def how_many_workers(wanted: str, available: int) -> int:
    """How many worker processes to start.

    Args:
        wanted: a number from 1 to MOST, or `cpu_count`: one for each core.
        available: cores that this process may use.
    """
    # TODO 2: with read_number. How many for `cpu_count`?
    raise NotImplementedError("Return the number of workers.")


def how_many_threads(wanted: str, available: int, workers: int) -> int:
    """How many threads of each worker work on one operator of the model.

    Args:
        wanted: a number up to MOST; 0: as many as the machine has cores, in each worker; `share`: the worker's share.
        available: cores that all workers together may use.
        workers: that there are.
    """
    # TODO 3: what is a worker's share of 8 cores among 3 workers? And of 2 cores among 4?
    raise NotImplementedError("Return the number of threads of each worker.")


# TODO 4: from the environment variables WORKERS and THREADS, with the functions above and cores(). Unless they are set:
# `cpu_count` and `share`.
WORKERS = 1
THREADS = 0


# max_concurrency is for the whole service: BentoML gives each worker its share, rounded up.
@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})  # TODO 5: how many workers?
class ImageClassifierService(Classifier):
    """Classifies images, in several processes that listen on one port."""

    # TODO 6: `__init__`: hand super().__init__ a session with THREADS threads, from open_model().
    # TODO 7: delete this line. As long as it is here, the service does not start.
    still_to_do = "the number of workers, and of threads in each."


finish(ImageClassifierService)
