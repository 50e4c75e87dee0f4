#!/usr/bin/env python3
"""Asks `regraft lsp` by the client of pygls for each thing that it can do, about a rule file beside
the headers of a checkpoint. Needs pygls 2 and regraft (REGRAFT, or target/debug/regraft).

What is asked by names of the protocol is checked by pygls against the protocol's types.
"""

import asyncio
import os
from pathlib import Path

from lsprotocol import types as lsp
from pygls.lsp.client import LanguageClient

ROOT = Path(__file__).resolve().parent.parent.parent
REGRAFT = os.environ.get("REGRAFT") or str(ROOT / "target/debug/regraft")
RULES = (ROOT / "examples/qkv.graft").read_text()
PIN = "# checkpoint: qkv.json\n# set: heads=4\n# set: kv_heads=1\n"
EXAMPLE = 'example "transformer.h.0.mlp.up.weight" <-> "model.layers.0.mlp.up.weight"\n'


class Open:
    """A text in the editor; no such file is written."""

    def __init__(self, client, name, text):
        self.client, self.text, self.version = client, text, 1
        self.uri = (ROOT / "examples" / name).as_uri()
        item = lsp.TextDocumentItem(self.uri, "graft", self.version, text)
        client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))

    @property
    def id(self):
        return lsp.TextDocumentIdentifier(self.uri)

    def change(self, text):
        self.text, self.version = text, self.version + 1
        identifier = lsp.VersionedTextDocumentIdentifier(self.version, self.uri)
        whole = lsp.TextDocumentContentChangeWholeDocument(text)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(identifier, [whole]))

    def at(self, what, within=0):
        """The place of the first time that something is written; these texts are ASCII."""
        begin = self.text.index(what) + within
        line = self.text.count("\n", 0, begin)
        return lsp.Position(line, begin - (self.text.rfind("\n", 0, begin) + 1))

    def edited(self, edits):
        lines = self.text.splitlines(keepends=True)
        starts = [sum(map(len, lines[:at])) for at in range(len(lines) + 1)]
        text = self.text
        spans = [(edit.range.start, edit.range.end, edit.new_text) for edit in edits]
        for start, end, new in sorted(spans, key=lambda span: span[:2], reverse=True):
            begin = starts[start.line] + start.character
            text = text[:begin] + new + text[starts[end.line] + end.character :]
        return text


async def told(client, opened, holds):
    """Diagnostics of the newest version, once they are as they should be."""
    for _ in range(400):
        newest = client.told.get(opened.uri)
        if newest and newest.version == opened.version and holds(newest.diagnostics):
            return newest.diagnostics
        await asyncio.sleep(0.05)
    raise AssertionError(client.told)


def labels(items):
    items = items.items if isinstance(items, lsp.CompletionList) else items
    return {item.label for item in items or []}


async def diagnostics_and_fixes(client):
    wrong = PIN + RULES.replace("rename", "renam", 1) + 'rename "a.{x}" <-> "b"\n'
    opened = Open(client, "wrong.graft", wrong)
    found = await told(client, opened, lambda found: len(found) >= 2)
    codes = {one.code: one for one in found}
    assert {"RG102", "RG201"} <= set(codes), codes
    unknown = codes["RG102"]
    assert unknown.range.start == opened.at("renam"), unknown
    context = lsp.CodeActionContext([unknown])
    actions = await client.text_document_code_action_async(
        lsp.CodeActionParams(opened.id, unknown.range, context)
    )
    fix = next(action for action in actions if "rename" in action.title)
    opened.change(opened.edited(fix.edit.changes[opened.uri]))
    await told(client, opened, lambda found: all(one.code != "RG102" for one in found))
    # Two rules that give one key are told at one of them, and lead to the other.
    two = '"x.{l}" <-> "y.{l}"\n  "z.{l}" <-> "y.{l}"'
    opened.change(PIN + RULES + f"rename {{\n  {two}\n}}\n")
    found = await told(client, opened, lambda found: any(one.related_information for one in found))
    print("ok: diagnostics, with related places; fixes")


async def hover(client, opened):
    async def text(what, within=0):
        params = lsp.HoverParams(opened.id, opened.at(what, within))
        found = await client.text_document_hover_async(params)
        return found.contents.value if found else ""

    for what, within, said in [
        ("split(0", 1, "undone by"),
        ("attn.qkv.weight", 2, "takes 2 keys of the checkpoint"),
        ("let heads", 5, "here: `4`"),
        ("config.num_attention_heads", 9, "num_attention_heads"),
        ('map "', 1, "map"),
    ]:
        # What the rules take of the checkpoint is known a moment after the text is opened.
        for _ in range(400):
            found = await text(what, within)
            if said in found:
                break
            await asyncio.sleep(0.05)
        assert said in found, (what, found)
    print("ok: hover on an op, a pattern, a let, a field of the config and a statement")


async def completion(client, opened):
    text = opened.text

    async def offered(line):
        opened.change(text + line.replace("|", ""))
        position = opened.at(line.replace("|", ""), line.index("|"))
        params = lsp.CompletionParams(opened.id, position)
        return labels(await client.text_document_completion_async(params))

    for line, expected in [
        ("dr|", {"drop"}),
        ('map "transformer.h.{l}.|"', {"attn", "mlp"}),
        ('map "a" <-> "b" via tr|', {"transpose"}),
        ('cast "a" to B|', {"BF16"}),
        ("use mix|", {"mixtral"}),
        ('rename "m.{layer}" <-> "n.{|}"', {"layer"}),
        ("let n = hea|", {"heads"}),
    ]:
        found = await offered(line)
        assert expected <= found, (line, sorted(found)[:20])
    opened.change(text)
    print("ok: completion of statements, segments of keys, ops, dtypes, rule files, captures, lets")


async def names(client, opened):
    place = opened.at("split(0, heads", 10)
    found = await client.text_document_definition_async(lsp.DefinitionParams(opened.id, place))
    found = found[0] if isinstance(found, list) else found
    assert found.range.start == opened.at("let heads", 4), found
    asked = lsp.ReferenceParams(lsp.ReferenceContext(True), opened.id, place)
    assert len(await client.text_document_references_async(asked)) == 3
    renamed = await client.text_document_rename_async(
        lsp.RenameParams(opened.id, place, "query_heads")
    )
    text = opened.edited(renamed.changes[opened.uri])
    assert "let query_heads =" in text and "split(0, query_heads, kv_heads" in text, text
    print("ok: definition, references, rename")


async def the_rest(client, opened):
    options = lsp.FormattingOptions(2, True)
    crooked = opened.text.replace("let heads =", "let   heads =")
    text = opened.text
    opened.change(crooked)
    edits = await client.text_document_formatting_async(
        lsp.DocumentFormattingParams(opened.id, options)
    )
    assert opened.edited(edits) == text
    opened.change(text)
    await told(client, opened, lambda found: True)
    folds = await client.text_document_folding_range_async(lsp.FoldingRangeParams(opened.id))
    symbols = await client.text_document_document_symbol_async(lsp.DocumentSymbolParams(opened.id))
    assert folds and symbols[0].name == "ruleset qkv: fused <-> split", symbols
    tokens = await client.text_document_semantic_tokens_full_async(
        lsp.SemanticTokensParams(opened.id)
    )
    assert tokens.data and len(tokens.data) % 5 == 0
    whole = lsp.Range(lsp.Position(0, 0), lsp.Position(99, 0))
    hints = await client.text_document_inlay_hint_async(lsp.InlayHintParams(opened.id, whole))
    assert any("[8, 8]" in str(hint.label) for hint in hints), hints
    lenses = await client.text_document_code_lens_async(lsp.CodeLensParams(opened.id))
    titles = {lens.command.title for lens in lenses}
    assert {"2 keys match", "holds"} <= titles, titles
    print("ok: formatting, folding, symbols, semantic tokens, inlay hints, lenses")


async def positions(client):
    opened = Open(
        client, "clef.graft", '# \U0001d11e\U0001d11e\nrename "\U0001d11e.a" <-> "b" whre\n'
    )
    found = await told(client, opened, lambda found: found)
    line = opened.text.splitlines()[1]
    before = line[: line.index("whre")].encode("utf-16-le")
    assert found[0].range.start == lsp.Position(1, len(before) // 2), found
    print("ok: positions in UTF-16")


async def main():
    client = LanguageClient("regraft-check", "1")
    client.told = {}

    @client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    def _(params):
        client.told[params.uri] = params

    await client.start_io(REGRAFT, "lsp")
    links = lsp.PublishDiagnosticsClientCapabilities(related_information=True)
    capabilities = lsp.ClientCapabilities(
        text_document=lsp.TextDocumentClientCapabilities(publish_diagnostics=links)
    )
    await client.initialize_async(lsp.InitializeParams(capabilities, root_uri=ROOT.as_uri()))
    client.initialized(lsp.InitializedParams())
    await diagnostics_and_fixes(client)
    opened = Open(client, "pinned.graft", PIN + RULES + "\n" + EXAMPLE)
    await told(client, opened, lambda found: True)
    await hover(client, opened)
    await completion(client, opened)
    await names(client, opened)
    await the_rest(client, opened)
    await positions(client)
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()


asyncio.run(asyncio.wait_for(main(), 120))
