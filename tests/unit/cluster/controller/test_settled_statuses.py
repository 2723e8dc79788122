"""What is settled is left out, until its document or the book is another."""

from webhook.cluster.controller.settled_statuses import Told


def test_what_is_settled_is_looked_at_once_for_each_document_and_book():
    told, book, documents = Told(), object(), [{"a": 1}, {"b": 2}]
    assert told.open(book, documents) == documents
    told.close(documents[0])
    assert told.open(book, documents) == documents[1:]
    assert told.open(book, documents) == documents[1:]
    written = [dict(documents[0]), documents[1]]
    assert told.open(book, written) == written
    assert told.open(object(), documents) == documents


def test_documents_that_are_gone_are_not_held():
    told, book, document = Told(), object(), {"a": 1}
    told.open(book, [document])
    told.close(document)
    told.open(book, [])
    assert told._closed == {}
