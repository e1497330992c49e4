"""The table of formats says what is so."""

import json

import pytest

from data.images import heif_installed
from lab.formats import OUT, formats, main, tried


@pytest.mark.parametrize("kind", formats(), ids=lambda kind: kind.name)
def test_what_is_kept_is_what_the_table_says(kind, tmp_path):
    assert tried(kind, tmp_path) == json.loads(OUT.read_text())["rows"][kind.name]


def test_the_command_writes_the_table(tmp_path):
    assert main(["--out", str(tmp_path / "formats.json")]) == 0
    rows = json.loads((tmp_path / "formats.json").read_text())["rows"]
    assert len(rows) == (13 if heif_installed() else 12)
    assert not any(cell["read"] == "no" for row in rows.values() for cell in row.values())
