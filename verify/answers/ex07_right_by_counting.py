"""Exercise 07 with a Counter, a similarity of one's own, and argparse."""

import argparse
import collections
import difflib
import os
import sys

import onnxruntime as ort

from serving import Problem


def providers():
    return {"available": ort.get_available_providers(), "all": ort.get_all_providers()}


def similar(name, other):
    name, other = (one.casefold().replace("executionprovider", "") for one in (name, other))
    return difflib.SequenceMatcher(None, name, other).ratio()


def outcome(model_path, wanted, strict=False):
    if not wanted:
        raise Problem("Which provider?")
    names = ort.get_all_providers()
    for name in wanted:
        if name not in names:
            nearest = max(names, key=lambda other: similar(name[: len(other)], other))
            raise ValueError(f"{name} is not a provider; {nearest} is.")
    if not os.path.exists(model_path):
        raise ValueError(f"No file {model_path}.")
    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    there = [name for name in wanted if name in ort.get_available_providers()]
    try:
        session = ort.InferenceSession(str(model_path), settings, providers=there or ["CPUExecutionProvider"])
    except Exception:
        raise ValueError(f"ONNX Runtime cannot read {model_path}.") from None
    runs = collections.Counter()
    for part in session.get_provider_graph_assignment_info():
        for _ in part.get_nodes():
            runs[part.ep_name] += 1
    order = [*wanted, "CPUExecutionProvider"]
    first = next(name for name in order if runs[name])
    idle = {name: f"{name} is idle here" for name in wanted if not runs[name]}
    if strict and wanted[0] in idle:
        raise ValueError(f"{wanted[0]} would run nothing; {first} would run the model.")
    return {"nodes": dict(runs), "not_taken": idle, "chosen": first}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--provider", action="append")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--model", default="models/resnet18.onnx")
    given = parser.parse_args()
    try:
        got = outcome(given.model, given.provider or ["CPUExecutionProvider"], given.strict)
    except ValueError as error:
        sys.exit(str(error))
    for name in got["not_taken"]:
        print(f"{name} was not taken.")
    print(f"The model runs on {got['chosen']}.")
