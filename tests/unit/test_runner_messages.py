"""What waits to be said to a process, as messages of its stream."""

from ao_server.api import runner_messages
from ao_server.engine.outbox import Outbox
from ao_server.engine.sessions import Assign, Assignment, Attempt, Settled, ToRunner


def said(*waiting: ToRunner) -> list[str]:
    """The messages, in words."""
    outbox: Outbox[ToRunner | Exception] = Outbox()
    for each in waiting:
        outbox.put(each)
    found: list[str] = []
    for response in runner_messages.responses(outbox):
        kind = response.WhichOneof("message")
        message = response.assign if kind == "assign" else response.settled
        words = [f"{each.attempt.task_id}:{each.attempt.number}={each.accepted}" for each in message.settlements]
        if kind == "assign":
            words += [
                f"{each.attempt.task_id}:{each.attempt.number} {each.type} {each.payload} {each.timeout.ToTimedelta()}"
                for each in response.assign.assignments
            ]
        found.append(" ".join([str(kind), *words]))
    return found


def test_what_was_settled_goes_with_the_work_that_follows_and_alone_before_anything_else() -> None:
    work = Assign(7, [Assignment(Attempt("c", 3), "resize", '{"a": 1}', 1.5)])
    settled = Settled([(Attempt("a", 1), True), (Attempt("b", 2), False)])
    more = Settled([(Attempt("d", 1), True)])
    assert said(settled, more, work, more) == [
        'assign a:1=True b:2=False d:1=True c:3 resize {"a": 1} 0:00:01.500000',
        "settled d:1=True",
    ]


def test_a_report_without_outcomes_is_answered_too() -> None:
    assert said(Settled([])) == ["settled"]
