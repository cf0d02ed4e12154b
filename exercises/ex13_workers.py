"""Exercise 13: several workers that share out the cores instead of fighting for them.

WORKERS=2 bentoml serve exercises.ex13_workers:ImageClassifierService
"""

import os

import bentoml

from serving.cores import cores, read_number
from serving.model import open_model
from serving.service import Classifier, finish


def how_many_workers(wanted: str, available: int) -> int:
    """How many worker processes to start where so many cores are available.

    wanted: a number, 1 or more; or `cpu_count`: one for each core.
    """
    # TODO 1: read_number ends `bentoml serve` with one sentence where `wanted` is no number. How many for `cpu_count`?
    raise NotImplementedError("Return the number of workers.")


def how_many_threads(wanted: str, available: int, workers: int) -> int:
    """How many threads of each worker work on one operator of the model, where so many cores are available to all.

    wanted: a number; 0: as many as the machine has cores, in each worker; `share`: the worker's share.
    """
    # TODO 2: what is a worker's share of 8 cores among 3 workers? And of 2 cores among 4?
    raise NotImplementedError("Return the number of threads of each worker.")


# TODO 3: from the environment variables WORKERS and THREADS, with the functions above and cores(). Unless they are set:
# `cpu_count` and `share`.
WORKERS = 1
THREADS = 0


# max_concurrency is for the whole service: BentoML gives each worker its share, rounded up.
@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})  # TODO 4: how many workers?
class ImageClassifierService(Classifier):
    """Classifies images, in several processes that listen on one port."""

    # TODO 5: `__init__`: hand super().__init__ a session with THREADS threads, from open_model().
    # TODO 6: delete this line. As long as it is here, the service does not start.
    still_to_do = "the number of workers, and of threads in each."


finish(ImageClassifierService)
