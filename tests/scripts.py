"""What a test expects of a script that has ended."""

from course.harness.submission import Finished
from course.harness.verdicts import expect


def expect_success(finished: Finished, *words: str, called: str, expected: str, hint: str) -> None:
    """Fail unless a script ended with exit code 0 and printed these words."""
    expect(
        finished.code == 0 and all(word in finished.output for word in words),
        called=called,
        got=f"exit code {finished.code}: {finished.output[-500:]}",
        expected=f"exit code 0, {expected}",
        hint=hint,
    )


def expect_one_sentence(finished: Finished, *words: str, called: str, hint: str) -> None:
    """Fail unless a script failed, and its last line, which is not the end of a stack trace, holds these words."""
    sentence = (finished.output.strip() or " ").splitlines()[-1]
    expect(
        finished.code != 0 and all(word in sentence for word in words) and "Traceback" not in finished.output,
        called=called,
        got=f"exit code {finished.code}: {finished.output[-400:]}",
        expected=f"a non-zero exit code and one sentence with {' and '.join(words)}, without a stack trace",
        hint=hint,
    )
