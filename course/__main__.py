"""python -m course: the commands behind the Makefile."""

from course.cli import app
from course.given.script import call

call(app)
