"""The claims that a new claim is filled from by annotations."""

from webhook.core.storage.clones import POSSIBLE_CLAIM, annotated_sources


def test_other_annotations_hide_no_source():
    notes = {f"example.com/note-{number}": "x" for number in range(1_000)}
    (source,) = annotated_sources("ml", {"annotations": {**notes, "openebs.io/clone": "atlas"}})
    assert source[:3] == (POSSIBLE_CLAIM, "ml", "atlas")
