"""What a book answers: each rule of a grant, with the attack it stops."""

from webhook.core.access import AccessBook, Phase

TRAINER = ("research", "trainer")


def granted(book, now, namespace="research"):
    return [grant.request for grant in book.for_subject("", TRAINER, namespace, now)]


def test_two_approvals_by_two_people_grant_from_the_second_one(story):
    book = AccessBook.build(
        requests=[story.request()],
        approvals=[story.approval("a1", at=10, by="bob"), story.approval("a2", at=20, by="carol")],
        models=[story.model()],
    )
    (grant,) = book.active(story.at(30))
    assert (grant.begins, grant.expires) == (story.at(20), story.at(20 + 480))
    assert grant.approvers == ("bob", "carol")
    assert granted(book, story.at(499.9)) == ["r1"]
    assert granted(book, story.at(500)) == []
    assert granted(book, story.at(30), namespace="default") == []
    assert book.for_subject("system:serviceaccount:research:trainer", None, "research", story.at(30)) == (
        grant,
    )
    assert book.for_subject("trainer", ("default", "trainer"), "research", story.at(30)) == ()
    assert book.state("r1", story.at(30)).phase is Phase.ACTIVE


def test_one_approval_is_not_two(story):
    book = AccessBook.build(
        requests=[story.request()], approvals=[story.approval("a1")], models=[story.model()]
    )
    state = book.state("r1", story.at(5))
    assert (state.phase, state.approvals, state.needed) == (Phase.PENDING, 1, 2)
    assert granted(book, story.at(5)) == []
