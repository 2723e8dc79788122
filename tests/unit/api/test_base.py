"""Former names of settings: accepted for one release, with a warning."""

import logging

import pytest
from pydantic import ValidationError

from webhook.api.config import Config, Injection


def test_a_former_name_is_accepted_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        config = Config.model_validate({"replaceAboveMib": 100})
    assert config.worker_memory_limit_mib == 100
    assert "replaceAboveMib is the former name of workerMemoryLimitMiB" in caplog.text


def test_both_names_together_are_an_error():
    with pytest.raises(ValidationError, match="set previousImages only"):
        Injection.model_validate({"formerImages": ["a"], "previousImages": ["b"]})


def test_the_schema_describes_former_names_as_deprecated():
    properties = Injection.model_json_schema()["properties"]
    assert properties["formerImages"]["deprecated"]
    assert not properties["previousImages"].get("deprecated")
