"""The example files, and a way to compare findings by what a user reads."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aif.config import Catalogue, load_catalogue
from aif.errors import ConfigError

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture(scope="session")
def examples() -> Path:
    return EXAMPLES


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue([EXAMPLES / "aims"])


@pytest.fixture(scope="session")
def said() -> Callable[[Callable[[], object]], list[str]]:
    """The findings of a refused call, one line each: line [text under the caret] code message (hint)."""

    def run(call: Callable[[], object]) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            call()
        lines = []
        for one in refused.value.findings:
            assert one.location is not None
            at = one.location
            shown = at.text[at.column - 1 : at.column - 1 + at.length]
            hint = f" ({one.hint})" if one.hint else ""
            lines.append(f"{at.line} [{shown}] {one.code} {one.message}{hint}")
        return lines

    return run
