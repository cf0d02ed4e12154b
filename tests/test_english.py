"""Plain English: no text of the project holds a word from this list."""

import re
import subprocess
from pathlib import Path

import pytest

from course import ROOT

INSTEAD = {
    "anew": "again",
    "behind the caller's back": "in the background",
    "ere": "before",
    "he|him|his": "they, them, their",
    "mend|mends|mended|mending": "fix, or repair",
    "shall": "must, or the present tense",
    "so long as": "while, or if",
    "that are none": "say what they are not: these 12 bytes are not an image",
    "what became of": "what happened to, or what changed",
    "whoever": "you, or name them: a client, a student",
}
FILES = ["*.py", "*.md", "*.toml", "*.html", "*.dockerfile", "*.yaml", "*.yml", "*Makefile"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_text_holds_a_word_to_avoid():
    listed = subprocess.check_output(["git", "ls-files", *FILES], cwd=ROOT, text=True, timeout=60)
    files = [ROOT / line for line in listed.splitlines()]
    texts = {file: file.read_text() for file in files if file.is_file() and file != Path(__file__)}
    found = [
        f"{file.relative_to(ROOT)}:{len(text[: hit.end()].splitlines())}: '{hit[0]}': write {say}"
        for file, text in texts.items()
        for words, say in INSTEAD.items()
        for hit in re.finditer(rf"\b({words})\b".replace(" ", r"\s+"), text, re.IGNORECASE)
    ]
    assert ROOT / "README.md" in texts
    assert not found, f"{len(found)} words to avoid:\n" + "\n".join(found)
