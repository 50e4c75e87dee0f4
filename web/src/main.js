// The playground: rules, keys and a config go in; the page of the plan comes out, by the engine alone.
import '../../src/overview/page/script.js';
import { read, written } from './address.js';
import { Editor } from './editor.js';
import { Engine } from './engine.js';

/** How long a text is left alone before it is planned, in milliseconds. */
const QUIET = 200;
/** The longest fragment that is written: browsers cut longer addresses. */
const LONGEST = 60_000;

const $ = (id) => document.getElementById(id);
const engine = new Engine();
const editor = new Editor($('rules'), engine, rulesChanged);
const tabs = [...document.querySelectorAll('[role=tab]')];

function later(work) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, QUIET);
  };
}

/** Shows what the engine says can't be done, and nothing once it can. */
async function orSay(where, work) {
  try {
    await work();
    where.textContent = '';
    return true;
  } catch (error) {
    where.textContent = error.message;
    return false;
  }
}

// What goes in.

let shown = 0;
async function rulesChanged() {
  const number = ++shown;
  const { tokens } = await engine.ask('rules', { text: editor.text });
  if (number !== shown) return;
  editor.colour(tokens);
  planSoon();
}

async function takeKeys(text) {
  $('about-keys').textContent = '';
  await orSay($('keys-error'), async () => {
    const { about } = await engine.ask('keys', { text });
    $('about-keys').textContent = text.trim() ? about : '';
  });
}

const takeConfig = (text) => orSay($('config-error'), () => engine.ask('config', { text }));

async function openFiles(files) {
  if (files.length === 0) return;
  $('about-keys').textContent = 'reading headers…';
  const read = await orSay($('keys-error'), async () => {
    const { about, lines } = await engine.open([...files]);
    $('keys').value = lines;
    $('about-keys').textContent = `${about}, of ${[...files].map((file) => file.name).join(', ')}`;
  });
  if (!read) $('about-keys').textContent = '';
  await plan();
}

async function take(state) {
  $('keys').value = state.keys;
  $('config').value = state.config;
  await takeKeys(state.keys);
  await takeConfig(state.config);
  editor.text = state.rules;
  await plan();
}

// What comes out.

let planned = 0;
async function plan() {
  const number = ++planned;
  $('status').textContent = 'planning…';
  $('plan').setAttribute('aria-busy', 'true');
  try {
    await engine.ask('rules', { text: editor.text });
    const found = await engine.ask('outcome');
    if (number !== planned) return;
    show(found);
    remember();
  } catch (error) {
    $('status').textContent = error.message;
  }
  $('plan').removeAttribute('aria-busy');
}
const planSoon = later(plan);

function show(found) {
  editor.find(found.findings);
  editor.remark(found.inlays, found.lenses);
  const panel = $('plan');
  const open = new Set([...panel.querySelectorAll('details.graph[open]')].map(() => 'graph'));
  // The engine writes every name as text: this is its own markup and nothing else.
  panel.innerHTML = found.page ?? '<p class="note">Give keys, or choose an example, and see here what becomes of them.</p>';
  panel.querySelectorAll('details.graph').forEach((graph) => { graph.open = open.has('graph'); });
  panel.dispatchEvent(new CustomEvent('regraft:page', { bubbles: true }));
  liveRows(panel);
  showInverse(found.inverse);
  showProofs(found.proofs, found.findings);
  const wrong = found.findings.filter(({ severity }) => severity !== 'info').length;
  const ways = found.backwards ? ', read backwards' : '';
  $('status').textContent = `planned in ${(found.took / 1000).toFixed(2)} s${ways}${wrong ? `, ${wrong} to look at` : ''}`;
}

/** Rows explain their first key, and places in the rules lead there. */
function liveRows(panel) {
  const live = (element, role, act) => {
    element.setAttribute('role', role);
    element.tabIndex = 0;
    element.addEventListener('click', (event) => { event.preventDefault(); event.stopPropagation(); act(); });
    element.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') { event.preventDefault(); event.stopPropagation(); act(); }
    });
  };
  panel.querySelectorAll('.row[data-first]:not([data-first=""])').forEach((row) => {
    const keys = row.querySelector('.keys');
    keys.title = 'Explain';
    live(keys, 'button', () => explain(row.dataset.first));
  });
  panel.querySelectorAll('.place[data-place^="rules:"]').forEach((place) => {
    live(place, 'link', () => editor.goTo(Number(place.dataset.place.slice('rules:'.length))));
  });
}

function made(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

function showInverse(inverse) {
  if (!inverse) {
    $('inverse').replaceChildren(made('p', 'Rules that are not sound have no inverse.'));
    return;
  }
  const use = made('button', 'Edit the inverse');
  use.type = 'button';
  use.addEventListener('click', () => { editor.text = inverse.text; select(tabs[0]); });
  const list = document.createElement('ul');
  list.append(...inverse.left_out.map(({ text, reason }) => made('li', `${text}: ${reason}`)));
  const lost = inverse.left_out.length ? [made('p', 'Left out, since it has no inverse:'), list] : [];
  $('inverse').replaceChildren(use, made('pre', inverse.text), ...lost);
}

function showProofs(proofs, findings) {
  if (!proofs) {
    $('proofs').replaceChildren(made('p', 'Of rules that are not sound nothing is proven.'));
    return;
  }
  const list = document.createElement('dl');
  for (const [what, how] of proofs) list.append(made('dt', what), made('dd', how));
  const amiss = findings.filter(({ from }) => from !== null);
  const every = amiss.length ? amiss.map(({ message, hints }) => [message, ...hints].join('; ')).join('\n')
    : 'every rule can fire, no two give one key, and each <-> reads back what it gives';
  list.append(made('dt', 'Each rule'), made('dd', every));
  $('proofs').replaceChildren(list);
}

async function explain(key) {
  select($('tab-explain'));
  $('key').value = key;
  const said = $('explained');
  try {
    said.textContent = (await engine.ask('explain', { key })).text;
  } catch (error) {
    said.textContent = error.message;
  }
}

/** Puts what stands on the page into its address. */
async function remember() {
  const fragment = await written({ rules: editor.text, keys: $('keys').value, config: $('config').value });
  const fits = fragment.length <= LONGEST;
  history.replaceState(null, '', fits ? `#${fragment}` : location.pathname);
  $('link').disabled = !fits;
  $('link').title = fits ? '' : 'There is too much on the page for an address';
}

// What a person does.

function select(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute('aria-selected', String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute('aria-controls')).hidden = !chosen;
  }
}
for (const [at, tab] of tabs.entries()) {
  tab.addEventListener('click', () => select(tab));
  tab.addEventListener('keydown', ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    const next = tabs[(at + step + tabs.length) % tabs.length];
    select(next);
    next.focus();
  });
}

const keysSoon = later(async () => { await takeKeys($('keys').value); await plan(); });
const configSoon = later(async () => { await takeConfig($('config').value); await plan(); });
$('keys').addEventListener('input', keysSoon);
$('config').addEventListener('input', configSoon);
$('key').addEventListener('change', () => explain($('key').value.trim()));
$('open').addEventListener('click', () => $('files').click());
$('files').addEventListener('change', () => openFiles($('files').files));
$('format').addEventListener('click', async () => {
  const { text } = await engine.ask('format');
  if (text === null) $('status').textContent = 'rules that do not parse can not be formatted';
  else if (text !== editor.text) editor.text = text;
});
$('link').addEventListener('click', async () => {
  await remember();
  try {
    await navigator.clipboard.writeText(location.href);
    $('status').textContent = 'the link is copied';
  } catch {
    $('status').textContent = 'the link is in the address bar';
  }
});
$('theme').addEventListener('click', () => {
  const { theme } = document.documentElement.dataset;
  const dark = theme ? theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  document.documentElement.dataset.theme = dark ? 'light' : 'dark';
});
const given = document.querySelector('.given');
for (const [event, dropping] of [['dragover', true], ['dragleave', false], ['drop', false]]) {
  given.addEventListener(event, (dragged) => {
    if (!dragged.dataTransfer.types.includes('Files')) return;
    dragged.preventDefault();
    given.classList.toggle('dropping', dropping);
    if (event === 'drop') openFiles(dragged.dataTransfer.files);
  }, true);
}
$('examples').addEventListener('change', async () => {
  const name = $('examples').value;
  if (name) await take(await engine.ask('example', { name }));
});
addEventListener('hashchange', async () => {
  const state = await read(location.hash.slice(1));
  if (state && state.rules !== editor.text) await take(state);
});

async function begin() {
  const { examples } = await engine.ask('examples');
  $('examples').append(...examples.map(({ name, about }) => new Option(`${name}: ${about}`, name)));
  const state = await read(location.hash.slice(1));
  await take(state ?? await engine.ask('example', { name: examples[0].name }));
  if (!state) $('examples').value = examples[0].name;
}
begin().catch((error) => { $('status').textContent = error.message; });
