"""The conversion registry of the installed transformers is the one that was noted when rules were
written; if it isn't, or isn't noted, which entries changed."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_no_entry_has_changed_since_rules_were_written(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from registry_changes import changes, noted, registry

    installed = registry()
    notes = {note["version"]: note for note in noted()}
    before = notes.get(installed["version"], noted()[-1])
    found = changes(before, installed)
    assert not any(found.values()), (before["version"], installed["version"], found)
    assert len(installed["entries"]) > 200
