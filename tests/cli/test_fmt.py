from pathlib import Path

import pytest

from aif.cli.main import main

TEXT = "aiw: {name: W, version: '1', implementer: me}  # mine\nschema: 1\naims: [{id: a, use: A@1}]\n"
CANONICAL = 'schema: 1\naiw: {name: W, version: "1", implementer: me}  # mine\naims: [{id: a, use: A@1}]\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    place = Path("w.aiw.yaml")
    place.write_text(TEXT)
    return place


def test_a_file_is_rewritten_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", str(file)]) == 0
    assert file.read_text() == CANONICAL
    assert capsys.readouterr().out == "w.aiw.yaml: rewritten\n"
    assert main(["fmt", str(file)]) == 0
    assert capsys.readouterr().out == ""


def test_check_changes_nothing_and_says_what_to_do(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "--check", str(file)]) == 1
    assert file.read_text() == TEXT
    assert capsys.readouterr().out == "w.aiw.yaml: not in canonical form; run: aif fmt w.aiw.yaml\n"
    file.write_text(CANONICAL)
    assert main(["fmt", "--check", str(file)]) == 0


def test_diff_shows_what_would_change(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "--diff", str(file)]) == 0
    assert file.read_text() == TEXT
    assert capsys.readouterr().out == (
        "--- w.aiw.yaml\n+++ w.aiw.yaml (canonical)\n@@ -1,3 +1,3 @@\n"
        "-aiw: {name: W, version: '1', implementer: me}  # mine\n schema: 1\n"
        '+aiw: {name: W, version: "1", implementer: me}  # mine\n aims: [{id: a, use: A@1}]\n'
    )


def test_a_wrong_file_is_refused_and_the_others_are_done(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_text("schema: 1\naiw: {\n")
    assert main(["fmt", "bad.yaml", str(file)]) == 2
    out = capsys.readouterr().out
    assert "error[AIF-E0101]: YAML: " in out
    assert file.read_text() == CANONICAL
    assert Path("bad.yaml").read_text() == "schema: 1\naiw: {\n"
