"""GitHub: the summary that a workflow's page shows, and what GitHub Classroom's reporter reads."""

import base64
import json
from html import escape

from course.grading.results import SubmissionResult, points

MARKS = {
    "done": "✅",
    "partly": "🟡",
    "not yet": "❌",
    "not graded": "⚠️",
    "suspicious": "⚠️",
    "inconclusive": "⚠️",
    "open": "⚠️",
}


def as_summary(result: SubmissionResult) -> str:
    """Markdown. What a student had a hand in stands in HTML that is closed, escaped: no link, no mention, no image."""
    lines = [f"## <span>{escape(result.name)}</span>: {points(result)} points", ""]
    lines += [result.warning, ""] if result.warning else []
    lines += ["| | no. | exercise | points |", "| --- | --- | --- | --- |"]
    for exercise in result.exercises:
        extra = " extra" if exercise.optional else ""
        row = [MARKS[exercise.state], exercise.number, exercise.title.replace("|", "\\|"), points(exercise) + extra]
        lines.append(f"| {' | '.join(row)} |")
    lines.append("")
    for exercise in result.exercises:
        failed = [test for test in exercise.tests if test.outcome != "passed" and not test.private]
        messages = [(f"{exercise.number} {test.name}", test.message) for test in failed]
        if why := exercise.told:
            messages = [(f"{exercise.number} {exercise.state}", why)]
        for name, message in messages:
            # The block ends with an empty line, wherever it is: in <pre> alone it does not.
            lines += [f"<details><summary>{escape(name)}</summary>", "", f"<pre>{escape(message[:2000])}</pre>", ""]
            lines += ["</details>", ""]
    return "\n".join(lines) + "\n"


def as_classroom(result: SubmissionResult) -> str:
    """JSON as the graders of GitHub Classroom hand it to its reporter, which adds up the scores of the tests."""
    tests = [
        {
            "name": f"{exercise.number} {exercise.title}",
            "status": "error" if exercise.problem else "pass" if exercise.reached >= exercise.worth else "fail",
            "message": f"{exercise.told or f'{points(exercise)} points'} {result.warning}".strip(),
            "score": exercise.reached,
            "max_score": 0 if exercise.optional else exercise.worth,
            "test_code": "",
            "filename": "",
            "line_no": 0,
        }
        for exercise in result.exercises
    ]
    states = {test["status"] for test in tests}
    status = "error" if "error" in states else "fail" if "fail" in states else "pass"
    return json.dumps({"version": 1, "status": status, "max_score": result.worth, "tests": tests}, indent=2)


def encoded(text: str) -> str:
    """As a workflow's output, in one line: base64, which the reporter takes apart."""
    return base64.b64encode(text.encode()).decode()
