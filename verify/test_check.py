"""How long a student waits for the verdict of `make check EX=04`."""

import time

from course_copy import Copy


def test_a_check_takes_seconds(tmp_path, record_property):
    """Asserts the verdict and prints the time. Other tests at the same time make it longer than a student's."""
    copy = Copy(tmp_path)
    copy.solve("ex04_inference.py")
    begun = time.monotonic()
    done = copy.make("check", "EX=04")
    seconds = time.monotonic() - begun
    assert "Done: 10 of 10 points." in done.stdout, done.stdout + done.stderr
    record_property("figure", f"make check EX=04, from key press to verdict: {seconds:.1f} s, beside other tests")
