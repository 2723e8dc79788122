import pytest

from webhook.api.config import Config
from webhook.app.configuration import read_config
from webhook.app.errors import UsageError


def test_one_document_is_read_as_its_type(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("logLevel: debug\n")
    assert read_config(path, Config).log_level == "debug"


def test_an_empty_file_says_nothing(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("# nothing\n")
    assert read_config(path, Config) == Config()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "config.yaml"),
        ("{}\n---\n{}\n", "one document, found 2"),
        ("logLevel: loud\n", "logLevel"),
        ("x: 1\n", "x:"),
    ],
)
def test_mistakes_are_one_line_that_names_the_file(tmp_path, text, says):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config(path, Config)
    assert "config.yaml" in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
