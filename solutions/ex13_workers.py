"""Exercise 13: several workers that share out the cores instead of fighting for them.

WORKERS=2 bentoml serve solutions.ex13_workers:ImageClassifierService
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
    return available if wanted == "cpu_count" else read_number("WORKERS", wanted, 1, "cpu_count")


def how_many_threads(wanted: str, available: int, workers: int) -> int:
    """How many threads of each worker work on one operator of the model, where so many cores are available to all.

    wanted: a number; 0: as many as the machine has cores, in each worker; `share`: the worker's share.
    """
    return max(1, available // workers) if wanted == "share" else read_number("THREADS", wanted, 0, "share")


# A number even for cpu_count: BentoML's own does not know that a process may be confined to some of the cores.
WORKERS = how_many_workers(os.environ.get("WORKERS") or "cpu_count", cores())
THREADS = how_many_threads(os.environ.get("THREADS") or "share", cores(), WORKERS)


# max_concurrency is for the whole service: BentoML gives each worker its share, rounded up.
@bentoml.service(workers=WORKERS, traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(Classifier):
    """Classifies images, in several processes that listen on one port."""

    def __init__(self) -> None:
        super().__init__(open_model(threads=THREADS))


finish(ImageClassifierService)
