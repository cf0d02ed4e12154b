"""What the cores do without a server, in a process of its own: python -m course.loadtest.ceiling FOLDER.

Reads FOLDER/job.json, writes FOLDER/result.json. The ceiling: one process for each core loops over decode, preprocess
and run, with one thread in each session, and does nothing else that a server does. The gain of batching: one session
runs one batch after the other.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from course import ROOT
from serving.images import open_image, preprocess
from serving.model import best5, labels, open_model, softmax

CAT = ROOT / "data" / "cat.png"
WARM_UP = 1  # seconds


class Work(NamedTuple):
    """What is computed for one request."""

    payload: str  # image, json or npy
    models: tuple[str, ...]  # files; more than one all run on the image


def main(folder: Path) -> None:
    """Do one job: {"payload", "models", "processes", "window"} or {"model", "threads", "batches", "window"}."""
    job = json.loads((folder / "job.json").read_text())
    if "batches" in job:
        result = {"rates": batch_rates(Path(job["model"]), job["threads"], job["batches"], job["window"])}
    else:
        work = Work(job["payload"], tuple(job["models"]))
        result = {"rate": ceiling(work, job["window"], job["processes"]), "answer": answer(work)}
    (folder / "result.json").write_text(json.dumps(result))


def steps(work: Work) -> Callable[[], list[np.ndarray]]:
    """A function that does the work of one request and returns the logits of each model."""
    sessions = [open_model(Path(model), threads=1) for model in work.models]
    data = CAT.read_bytes()
    tensor = preprocess(open_image(data))

    def once() -> list[np.ndarray]:
        batch = preprocess(open_image(data)) if work.payload == "image" else tensor
        return [session.run(None, {"input": batch})[0] for session in sessions]

    return once


def answer(work: Work) -> dict:
    """What a server has to answer: one that computes something else does not count as fast."""
    logits = steps(work)()
    # Probabilities of several models can be averaged; their logits are on scales of their own.
    probabilities = np.mean([softmax(one) for one in logits], axis=0)
    if work.payload == "image":
        return {"predictions": best5(probabilities[0], labels(open_model(Path(work.models[0]))))}
    return {"rows": (logits[0] if len(logits) == 1 else probabilities).tolist()}


def ceiling(work: Work, window: float, processes: int) -> float:
    """Images a second of all processes together, within a window in which all of them work."""
    context = multiprocessing.get_context("spawn")
    begin, stop, ended = context.Barrier(processes + 1), context.Event(), context.Queue()
    loops = [context.Process(target=loop, args=(work, begin, stop, ended), daemon=True) for _ in range(processes)]
    for process in loops:
        process.start()
    begin.wait(60)
    time.sleep(WARM_UP)
    opened = time.monotonic()
    time.sleep(window)
    closed = time.monotonic()
    stop.set()
    ends = [ended.get(timeout=60) for _ in loops]
    return sum(within(np.array(each[1:]), np.diff(each), opened, closed) for each in ends) / (closed - opened)


def loop(work: Work, begin, stop, ended) -> None:
    """One process: repeat the work, and put the moments at which each piece ended into a queue."""
    once = steps(work)
    once()
    begin.wait(60)
    ends = [time.monotonic()]
    while not stop.is_set():
        once()
        ends.append(time.monotonic())
    ended.put(ends)


def within(ends: np.ndarray, seconds: np.ndarray, opened: float, closed: float) -> float:
    """How much of the work that took `seconds` until `ends` lies within a window.

    Work of which half lies within the window counts half. If it counted as a whole or not at all, the 32 requests of a
    batch that ends just before or just after the window closes would make a difference of several percent.
    """
    overlap = np.minimum(ends, closed) - np.maximum(ends - seconds, opened)
    return float((np.clip(overlap, 0, None) / seconds).sum())


def batch_rates(model: Path, threads: int, batches: list[int], window: float) -> dict[int, float]:
    """Images a second of one session for each batch size; the sizes take turns until each had its window."""
    session, image = open_model(model, threads=threads), preprocess(open_image(CAT.read_bytes()))
    inputs = {size: {"input": np.repeat(image, size, axis=0)} for size in batches}
    for batch in inputs.values():
        session.run(None, batch)
    seconds, images = dict.fromkeys(batches, 0.0), dict.fromkeys(batches, 0)
    while min(seconds.values()) < window:
        for size, batch in inputs.items():
            share = time.perf_counter() + 0.25
            while (begin := time.perf_counter()) < share:
                session.run(None, batch)
                seconds[size] += time.perf_counter() - begin
                images[size] += size
    return {size: images[size] / seconds[size] for size in batches}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
