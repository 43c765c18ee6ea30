import json

import pytest

from aif.cli.main import main


@pytest.mark.parametrize("kind", ["aim", "aiw", "inventory"])
def test_the_schema_is_printed_as_json(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", kind]) == 0
    assert json.loads(capsys.readouterr().out)["$id"] == f"urn:tinyaif:schema:{kind}:1"
