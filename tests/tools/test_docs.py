"""The documents say what is there: tables come from the JSON files, links lead somewhere, make targets exist."""

import re

import pytest

from common.paths import REPO_ROOT
from lab.report import DOCUMENTS as TABLED
from lab.report import filled
from lab.tables import training_speed

DOCUMENTS = [*TABLED, REPO_ROOT / "pretrained_models" / "README.md"]


def test_tables_are_those_of_the_json_files():
    for document in TABLED:
        text = document.read_text(encoding="utf-8")
        assert filled(text) == text, "run: python -m lab.report tables"


def test_training_cases_have_tables_once_they_are_measured():
    assert training_speed({}) == []
    where = {
        "OMP_NUM_THREADS": None,
        "commit": "0123456789",
        "uncommitted_changes": False,
        "hardware": {"gpu": None, "cores": 2, "processor": "X"},
    }
    times = {"median": 2.0, "lowest": 1.0, "highest": 3.0, "peak_mb": 1500.0}
    step = {"side": 256, "batch": 4, "rows": {"baseline": times, "fp32": times | {"ratio": 1.5}}, **where}
    rows = {
        f"{job}, {n} processes": times | {"ratio": 1.9, "equal": "yes"}
        for job in ("inference", "training")
        for n in (1, 2)
    }
    steps, scaling = training_speed({"rave256": step, "scaling": {"photos": 24, "rows": rows, **where}})
    assert "| RAVE step, 256 px, batch 4 | 2, 1.5 GB | fp32 2 (1.5×), 1.5 GB |" in steps
    assert "| RAVE step, quick-start config | 2.00 s | 2.00 s | 1.90 | yes |" in scaling


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.relative_to(REPO_ROOT).as_posix())
def test_links_and_named_files_exist(document):
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []
    named = set(re.findall(r"`((?:tools|lab|configs|training|data|models|losses)/[\w/]+\.(?:py|yaml|txt))`", text))
    assert [name for name in named if not (REPO_ROOT / name).exists()] == []


def test_make_targets_of_the_readme_exist():
    makefile = (REPO_ROOT / "Makefile").read_text(encoding="utf-8")
    text = (REPO_ROOT / "README.md").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
