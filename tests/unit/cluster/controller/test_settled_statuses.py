"""What is settled is left out, until its document or the index is another."""

from webhook.cluster.controller.settled_statuses import SettledStatuses


def test_a_settled_status_is_computed_once_for_each_document_and_index():
    messages, index, documents = SettledStatuses(), object(), [{"a": 1}, {"b": 2}]
    assert messages.open(index, documents) == documents
    messages.close(documents[0])
    assert messages.open(index, documents) == documents[1:]
    assert messages.open(index, documents) == documents[1:]
    output = [dict(documents[0]), documents[1]]
    assert messages.open(index, output) == output
    assert messages.open(object(), documents) == documents


def test_removed_documents_are_forgotten():
    messages, index, document = SettledStatuses(), object(), {"a": 1}
    messages.open(index, [document])
    messages.close(document)
    messages.open(index, [])
    assert messages._closed == {}
