"""What a notebook shows of plans, reports, checkpoints and rules: well-formed HTML without a
script, in which no name of a key is markup."""

from html.parser import HTMLParser

import numpy as np
import pytest
import regraft
from safetensors.numpy import save_file

VOID = {"input", "br", "meta"}
HOSTILE = "a<script>alert(1)</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Tags that are closed in the order in which they were opened, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text, self.keys = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][0] != "style":
            self.text.append(data)
        if self.open and self.open[-1][1].get("class") == "keys":
            self.keys.append(data)


@pytest.fixture
def shown():
    def show(value):
        page = Page(value._repr_html_())
        assert page.seen[:2] == ["div", "style"]
        assert not {"script", "img", "link", "iframe"} & set(page.seen)
        return page

    return show


def test_a_plan(shown):
    rules = regraft.compile('map "x.{e}" <-> "y" via stack(e)\n')
    source = {f"x.{e}": np.zeros((2, 3), np.float32) for e in range(4)}
    page = shown(rules.plan(source))
    assert page.keys[:2] == ["y", "x.{0..3}"]
    assert "F32 [4, 2, 3]" in page.text and "stack(0)" in page.text
    assert "svg" in page.seen


def test_names_are_no_markup(shown):
    rules = regraft.compile('rename "b" -> "c"\n')
    source = {HOSTILE: np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
    assert HOSTILE in shown(rules.plan(source)).keys


def test_a_report(shown):
    rules = regraft.compile('rename "b" -> "c"\ndrop "gone.{i}"\n')
    source = {key: np.zeros(1, np.float32) for key in ("b", "gone.0", "gone.1")}
    plan = rules.plan(source, target=["c"])
    page = shown(plan.report)
    assert "all keys are there" in page.text
    assert page.keys == ["gone.{0..1}"]
    report = regraft.Report(("m.1", "m.2"), (HOSTILE,), (), {"head": "embed"}, {})
    page = shown(report)
    assert page.keys == ["m.{1..2}", HOSTILE, "head", "embed"]
    assert "3 keys amiss" in page.text


def test_a_checkpoint(shown, tmp_path):
    file = str(tmp_path / "model.safetensors")
    save_file({f"w.{i}": np.zeros((2, 3), np.float16) for i in range(3)}, file, {"step": "7"})
    page = shown(regraft.open(file))
    assert page.keys == ["w.{0..2}"]
    assert {"F16 [2, 3]", "3 keys", "36 B", "step", "7"} <= set(page.text)


def test_rules(shown):
    text = 'ruleset mine: a <-> b\nmodels Some\nrename "x<b>" <-> "y"\n'
    page = shown(regraft.compile(text))
    assert text.strip() in page.text
    assert {"mine", "a <-> b", "Some"} <= set(page.text)
