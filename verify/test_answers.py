"""Wrong answers that students really give lose exactly the points that they should; right ones lose none.

answers/exNN.toml tells each as small changes of the solution. An answer to an exercise whose tests take minutes may
name the tests that it is held against (`only`). What that leaves out: that it keeps the points of all other tests.
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
    assert not unknown, (
        f"There are no tests {unknown} among those that ran. The tests have changed, or `only` is short."
    )

    caught = {test for test in graded.passed if answer.loses(test)}
    lost = {test: message for test, message in graded.failed.items() if not answer.loses(test)}
    told = [f"It keeps {test}, which it should lose." for test in sorted(caught)]
    told += [f"It loses {test}, which it should keep: {message[:600]}" for test, message in sorted(lost.items())]
    if told:
        pytest.fail("\n".join([f"{answer.name}: {answer.why}", *told]), pytrace=False)
    traces = [test for test, message in graded.failed.items() if "Traceback" in message]
    assert not traces, f"What a student reads of {traces} is a stack trace:\n{graded.failed[traces[0]][:1500]}"


def _names(tests: set[str]) -> set[str]:
    return tests | {test.partition("[")[0] for test in tests}
