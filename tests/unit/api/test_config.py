"""What the configuration file refuses, before anything runs by it."""

import pytest
from pydantic import ValidationError

from webhook.api.config import Injection


@pytest.mark.parametrize("command", ["", "collect", "/usr/bin/collect --gpu 'all of them'"])
def test_a_command_that_collects_evidence(command):
    assert Injection(evidence_command=command).evidence_command == command


@pytest.mark.parametrize(
    ("command", "output"),
    [("a 'b", "No closing quotation"), ("  ", "names no program"), ("''", "names no program")],
)
def test_a_command_that_no_sidecar_could_run(command, output):
    with pytest.raises(ValidationError, match=output):
        Injection(evidence_command=command)


@pytest.mark.parametrize("field", ["startup_seconds", "plaintext_startup_seconds"])
@pytest.mark.parametrize("seconds", [0, 9, 604_801])
def test_how_long_a_sidecar_may_take_has_bounds(field, seconds):
    with pytest.raises(ValidationError):
        Injection.model_validate({field: seconds})


@pytest.mark.parametrize("address", ["", "127.0.0.1:8006", "[::1]:8006"])
def test_an_address_for_keys_is_a_loopback_address(address):
    assert Injection(cdh_address=address).cdh_address == address


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8006", "10.0.0.1:8006", "127.0.0.1", "localhost:8006", "127.0.0.1:8006 x"]
)
def test_an_address_for_keys_that_other_pods_could_reach(address):
    with pytest.raises(ValidationError):
        Injection(cdh_address=address)
