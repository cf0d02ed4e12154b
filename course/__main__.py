"""python -m course: the commands behind the Makefile."""

from course.cli import main
from course.given.script import call

call(main)
