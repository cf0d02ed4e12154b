"""The table of serving frameworks, with their stars on GitHub as they are when the page is built."""

import time
import tomllib
from functools import cache
from pathlib import Path
from threading import Thread

import httpx
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

API = "https://api.github.com"
LIMIT = 3.0  # seconds that the build waits for all stars together
LIST = Path(__file__).with_suffix(".toml")


class Framework(BaseModel):
    """One entry of frameworks.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    link: str
    repository: str  # OWNER/NAME on GitHub
    backends: bool  # models of more than one library or runtime
    models: bool  # any kind of model
    purpose: str  # one clause
    maintained: bool
    note: str = ""


class Repository(BaseModel):
    """What we read of GitHub's answer."""

    stargazers_count: NonNegativeInt


def frameworks() -> list[Framework]:
    """All frameworks, in the order of the file."""
    return [Framework(**entry) for entry in tomllib.loads(LIST.read_text())["framework"]]


def fetch_stars(repositories: list[str], api: str = API, limit: float = LIMIT) -> dict[str, int]:
    """The stars of repositories (OWNER/NAME), without those for which GitHub does not answer within `limit` seconds."""
    found: dict[str, int] = {}

    def fetch(repository: str) -> None:
        try:
            answer = httpx.get(f"{api}/repos/{repository}", timeout=limit, follow_redirects=True)
            found[repository] = Repository.model_validate_json(answer.raise_for_status().content).stargazers_count
        except (httpx.HTTPError, httpx.InvalidURL, ValidationError):
            pass  # no network, a rate limit, an invalid answer: the page says N/A

    # Daemon threads, so that the build does not wait for one that hangs: httpx's time limits cover neither a slow
    # name server nor an answer that comes byte by byte.
    threads = [Thread(target=fetch, args=[repository], daemon=True) for repository in repositories]
    end = time.monotonic() + limit
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    return found.copy()


@cache  # `mkdocs serve` builds the page again at every change
def table(api: str = API) -> str:
    """The frameworks as a Markdown table."""
    stars = fetch_stars([one.repository for one in frameworks()], api)
    lines = [
        "| framework | what it is for | backend agnostic | model agnostic | maintained | stars |",
        "| --- | --- | :-: | :-: | :-: | --: |",
    ]
    for one in frameworks():
        purpose = f"{one.purpose} ({one.note})" if one.note else one.purpose
        marks = " | ".join("yes" if mark else "no" for mark in (one.backends, one.models, one.maintained))
        shown = f"{stars[one.repository]:,}" if one.repository in stars else "N/A"
        github = f"[{shown}](https://github.com/{one.repository})"
        lines.append(f"| [{one.name}]({one.link}) | {purpose} | {marks} | {github} |")
    all_known = len(stars) == len(frameworks())
    unknown = "N/A: GitHub did not answer when this page was built."
    return "\n".join([*lines, "", f"Stars on GitHub on {time.strftime('%d %B %Y')}." if all_known else unknown])
