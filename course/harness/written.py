"""Files that a submission wrote, read within bounds."""

from pathlib import Path

from course.harness.verdicts import fail


def read(path: Path, most: int = 32 * 2**20) -> bytes:
    """The content of a file. Fails the test where there is none, or more than `most` bytes."""
    content = beginning(path, most + 1)
    if len(content) > most:
        fail(f"{path.name}, which the submission wrote, is longer than {most // 2**20} MB.")
    return content


def beginning(path: Path, most: int) -> bytes:
    """The first bytes of a file. Fails the test where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        fail(f"{path.name}, which the submission should write, cannot be read: {error.strerror}.")
