"""Exercise 10's client with httpx and argparse alone."""

import argparse
import pathlib
import sys

import httpx

parser = argparse.ArgumentParser()
parser.add_argument("images", nargs="+", type=pathlib.Path)
parser.add_argument("--url", default="http://localhost:3000")
given = parser.parse_args()
refusals = 0
for path in given.images:
    try:
        response = httpx.post(f"{given.url}/classify", content=path.read_bytes(), timeout=60)
    except httpx.HTTPError:
        sys.exit(f"Nobody listens at {given.url}: make serve")
    if response.is_error:
        refusals += 1
        print(f"{path.name}: refused, {response.text}")
        continue
    print(path.name)
    for one in response.json()["predictions"]:
        print(f"   {one['label']:<40} {one['probability']:.3f}")
    if "random" in response.json()["weights"]:
        print("   RANDOM weights")
sys.exit(refusals)
