"""What is settled is left out, until its document or the index is another."""

from webhook.cluster.controller.settled_statuses import SettledStatuses


def test_what_is_settled_is_looked_at_once_for_each_document_and_book():
    messages, index, documents = SettledStatuses(), object(), [{"a": 1}, {"b": 2}]
    assert messages.open(index, documents) == documents
    messages.close(documents[0])
    assert messages.open(index, documents) == documents[1:]
    assert messages.open(index, documents) == documents[1:]
    output = [dict(documents[0]), documents[1]]
    assert messages.open(index, output) == output
    assert messages.open(object(), documents) == documents


def test_documents_that_are_gone_are_not_held():
    messages, index, document = SettledStatuses(), object(), {"a": 1}
    messages.open(index, [document])
    messages.close(document)
    messages.open(index, [])
    assert messages._closed == {}
