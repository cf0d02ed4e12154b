"""python -m course: the commands behind the Makefile."""

from course.cli import app
from course.script import call

call(app)
