"""Each wrong answer fails exactly the tests listed for it; right answers that look different pass all.

answers/exNN.toml gives each as small changes of the solution. Where an exercise's tests take minutes, an answer may
name the tests to run (`only`); that it passes all others is then not checked.
"""

import pytest
from answer_files import Answer, BadAnswer, answers
from graded import grade, marks


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "answer",
    [pytest.param(one, marks=marks(one.exercise), id=f"ex{one.number}-{one.name}") for one in answers()],
)
def test_an_answer_loses_what_it_should(answer: Answer, tmp_path):
    folder = tmp_path / "exercises"
    try:
        answer.write(folder)
    except BadAnswer as error:
        pytest.fail(str(error), pytrace=False)
    graded = grade(answer.exercise, folder, tmp_path, only=answer.only, limit=800)

    ran = graded.passed | set(graded.failed)
    unknown = [name for name in (answer.fails or []) + (answer.keeps or []) if name not in _names(ran)]
    assert not unknown, f"These tests did not run: {unknown}. The tests have changed, or `only` leaves them out."

    caught = {test for test in graded.passed if answer.loses(test)}
    lost = {test: message for test, message in graded.failed.items() if not answer.loses(test)}
    told = [f"It passes {test}, which it should fail." for test in sorted(caught)]
    told += [f"It fails {test}, which it should pass: {message[:600]}" for test, message in sorted(lost.items())]
    if told:
        pytest.fail("\n".join([f"{answer.name}: {answer.why}", *told]), pytrace=False)
    traces = [test for test, message in graded.failed.items() if "Traceback" in message]
    assert not traces, f"Students would read a stack trace from {traces}:\n{graded.failed[traces[0]][:1500]}"


def _names(tests: set[str]) -> set[str]:
    return tests | {test.partition("[")[0] for test in tests}
