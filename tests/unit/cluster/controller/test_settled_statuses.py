"""What is settled is left out, until its document or the index is another."""

from webhook.cluster.controller.settled_statuses import SettledStatuses


def test_what_is_settled_is_looked_at_once_for_each_document_and_book():
    told, index, documents = SettledStatuses(), object(), [{"a": 1}, {"b": 2}]
    assert told.open(index, documents) == documents
    told.close(documents[0])
    assert told.open(index, documents) == documents[1:]
    assert told.open(index, documents) == documents[1:]
    written = [dict(documents[0]), documents[1]]
    assert told.open(index, written) == written
    assert told.open(object(), documents) == documents


def test_documents_that_are_gone_are_not_held():
    told, index, document = SettledStatuses(), object(), {"a": 1}
    told.open(index, [document])
    told.close(document)
    told.open(index, [])
    assert told._closed == {}
