"""Options of the whole test suite."""

import pytest
from hypothesis import settings

# No test is timed: a machine may be busy with other things.
settings.register_profile("weightlock", deadline=None)
settings.load_profile("weightlock")


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the program gives into the golden files; read the diff before you commit it",
    )


@pytest.fixture
def update_golden(request):
    """Whether golden files are to be rewritten."""
    return request.config.getoption("--update-golden")
