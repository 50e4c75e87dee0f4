// The editor of rules. What it shows comes from the engine, which reads the language: colours, findings,
// completion, hover, and how many keys each rule takes.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, snippet } from '@codemirror/autocomplete';
import { defaultKeymap, history, historyKeymap } from '@codemirror/commands';
import { bracketMatching } from '@codemirror/language';
import { lintGutter, lintKeymap, setDiagnostics } from '@codemirror/lint';
import { EditorState, StateEffect, StateField } from '@codemirror/state';
import {
  Decoration, EditorView, WidgetType, drawSelection, highlightActiveLine, hoverTooltip, keymap, lineNumbers,
} from '@codemirror/view';

/** A field of decorations that an effect sets, and that move with the text until then. */
function decorations(effect) {
  return StateField.define({
    create: () => Decoration.none,
    update(old, transaction) {
      const set = transaction.effects.find((one) => one.is(effect));
      return set ? set.value : old.map(transaction.changes);
    },
    provide: (field) => EditorView.decorations.from(field),
  });
}
const setTokens = StateEffect.define();
const setRemarks = StateEffect.define();

class Remark extends WidgetType {
  constructor(text, className) {
    super();
    Object.assign(this, { text, className });
  }
  eq(other) {
    return other.text === this.text;
  }
  toDOM() {
    const made = document.createElement('span');
    made.className = this.className;
    made.textContent = this.text;
    return made;
  }
}

const byPlace = (ranges) => Decoration.set(ranges, true);

export class Editor {
  /** @param changed is called with the text when a person changes it */
  constructor(parent, engine, changed) {
    this.view = new EditorView({
      parent,
      state: EditorState.create({
        extensions: [
          lineNumbers(), history(), drawSelection(), bracketMatching(), closeBrackets(), highlightActiveLine(), lintGutter(),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ 'aria-label': 'Rules', spellcheck: 'false' }),
          autocompletion({ override: [(context) => complete(engine, context)] }),
          hoverTooltip((view, at) => hover(engine, at)),
          keymap.of([...closeBracketsKeymap, ...completionKeymap, ...lintKeymap, ...historyKeymap, ...defaultKeymap]),
          decorations(setTokens), decorations(setRemarks),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) changed(this.text);
          }),
        ],
      }),
    });
  }

  get text() {
    return this.view.state.doc.toString();
  }

  set text(text) {
    this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: text } });
  }

  /** Each token as `[from, to, class]`. */
  colour(tokens) {
    const marks = tokens.filter(([from, to]) => from < to && to <= this.view.state.doc.length);
    this.view.dispatch({ effects: setTokens.of(byPlace(marks.map(([from, to, name]) => Decoration.mark({ class: `graft-${name}` }).range(from, to)))) });
  }

  /** Words behind places: shapes behind ops, how many keys behind the lines of rules. */
  remark(inlays, lenses) {
    const doc = this.view.state.doc;
    const widget = (text, name, at) => Decoration.widget({ widget: new Remark(text, name), side: 1 }).range(at);
    const shapes = inlays.filter(([at]) => at <= doc.length).map(([at, text]) => widget(text, 'graft-shape', at));
    const counts = lenses.filter(([at]) => at <= doc.length).map(([at, text]) => widget(text, 'graft-count', doc.lineAt(at).to));
    this.view.dispatch({ effects: setRemarks.of(byPlace([...shapes, ...counts])) });
  }

  /** Findings, each on its line; those without a place are on the page of the plan alone. */
  find(findings) {
    const length = this.view.state.doc.length;
    const shown = findings.filter((found) => found.from !== null).map((found) => ({
      from: Math.min(found.from, length),
      to: Math.min(Math.max(found.to, found.from), length),
      severity: found.severity,
      source: found.code,
      message: [found.message, found.message.includes(found.label) ? '' : found.label, ...found.hints.map((hint) => `help: ${hint}`)].filter(Boolean).join('\n'),
      actions: found.actions.map(({ name, from, to, text }) => ({
        name,
        apply: (view) => view.dispatch({ changes: { from, to, insert: text } }),
      })),
    }));
    this.view.dispatch(setDiagnostics(this.view.state, shown));
  }

  /** Shows a line, and stands there. */
  goTo(number) {
    const doc = this.view.state.doc;
    const line = doc.line(Math.min(Math.max(number, 1), doc.lines));
    this.view.dispatch({ selection: { anchor: line.from }, effects: EditorView.scrollIntoView(line.from, { y: 'center' }) });
    this.view.focus();
  }
}

async function complete(engine, context) {
  const before = context.matchBefore(/[\w."{|]+/);
  if (!before && !context.explicit) return null;
  await engine.ask('rules', { text: context.state.doc.toString() });
  const { options } = await engine.ask('complete', { at: context.pos });
  if (context.aborted || options.length === 0) return null;
  return {
    from: options[0].from,
    options: options.map(({ label, kind, detail, docs, snippet: filled, from, to }) => ({
      label, detail, type: kind,
      info: docs ? () => words(docs) : undefined,
      apply: (view, option) => {
        if (filled) snippet(template(filled))(view, option, from, Math.max(to, view.state.selection.main.head));
        else view.dispatch({ changes: { from, to: Math.max(to, view.state.selection.main.head), insert: label }, selection: { anchor: from + label.length } });
      },
    })),
  };
}

/** A template as language servers write it, as this editor does: of several words the first, and no last stop. */
const template = (text) => text.replace(/\$\{\d+\|(\w+)[^}]*\}/g, '${$1}').replace(/\$0/g, '${}').replace(/\$\{\d+:([^}]*)\}/g, '${$1}');

async function hover(engine, at) {
  const found = await engine.ask('hover', { at });
  if (!found.text) return null;
  return { pos: found.from, end: found.to, above: true, create: () => ({ dom: words(found.text) }) };
}

/** The engine's Markdown: paragraphs, fenced code and code in a line. */
function words(text) {
  const made = document.createElement('div');
  made.className = 'graft-words';
  text.split(/```\w*\n([\s\S]*?)```/).forEach((part, at) => {
    if (!part.trim()) return;
    const block = document.createElement(at % 2 ? 'pre' : 'p');
    if (at % 2) block.textContent = part.trimEnd();
    else {
      part.trim().split(/`([^`]+)`/).forEach((piece, within) => {
        const node = document.createElement(within % 2 ? 'code' : 'span');
        node.textContent = piece.replaceAll('**', '');
        block.append(node);
      });
    }
    made.append(block);
  });
  return made;
}
