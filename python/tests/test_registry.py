"""The conversion registry that rules/transformers was written from is that of the installed
transformers; if it isn't, which entries changed."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_no_entry_has_changed_since_rules_were_written(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from registry_changes import changes, registry

    noted = json.loads((SCRIPTS / "registry.json").read_text())
    installed = registry()
    found = changes(noted, installed)
    assert not any(found.values()), (noted["version"], installed["version"], found)
    assert len(installed["entries"]) > 200
