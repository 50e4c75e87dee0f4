// Clicks through the playground, as a folder that a server gives and as the one file from a disk, and through the
// pages that `regraft plan --html` writes. Leaves pictures in web/dist/pictures.
//
// Needs web/dist (node build.js), Chromium (CHROMIUM, or /usr/bin/chromium), and regraft (REGRAFT).
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import puppeteer from 'puppeteer-core';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.dirname(here);
const site = path.join(here, 'dist/site');
const pictures = path.join(here, 'dist/pictures');
const regraft = process.env.REGRAFT ?? path.join(root, 'target/debug/regraft');
const axe = fs.readFileSync(path.join(here, 'node_modules/axe-core/axe.min.js'), 'utf8');
fs.mkdirSync(pictures, { recursive: true });

const home = fs.mkdtempSync(path.join(os.tmpdir(), 'regraft-chromium-'));
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  userDataDir: home,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
const types = { html: 'text/html', js: 'text/javascript', css: 'text/css', wasm: 'application/wasm' };
const asked = [];
const server = http.createServer((request, response) => {
  const name = path.join(site, path.normalize(new URL(request.url, 'http://x').pathname).replace(/\/$/, '/index.html'));
  asked.push(request.method);
  if (!name.startsWith(site) || !fs.existsSync(name)) { response.writeHead(404).end(); return; }
  response.writeHead(200, { 'content-type': types[path.extname(name).slice(1)] }).end(fs.readFileSync(name));
});
await new Promise((ready) => { server.listen(0, '127.0.0.1', ready); });
const address = `http://127.0.0.1:${server.address().port}/`;

const text = (page, selector) => page.$eval(selector, (found) => found.innerText);
const planned = (page) => page.waitForFunction(() => document.querySelector('#status').textContent.startsWith('planned')
  && !document.querySelector('#plan').hasAttribute('aria-busy'), { timeout: 30_000 });
const picture = (page, name) => page.screenshot({ path: path.join(pictures, `${name}.png`) });

async function opened(url, { width = 1280, height = 860, dark = false } = {}) {
  const page = await browser.newPage();
  page.wrong = [];
  page.on('pageerror', (error) => page.wrong.push(error.message));
  page.on('console', (message) => message.type() === 'error' && page.wrong.push(message.text()));
  page.on('dialog', (dialog) => { page.wrong.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
  await page.goto(url);
  return page;
}

async function choose(page, example) {
  await page.$eval('#status', (status) => { status.textContent = ''; });
  await page.select('#examples', example);
  await planned(page);
}

async function press(page, key, held) {
  await page.keyboard.down(held);
  await page.keyboard.press(key);
  await page.keyboard.up(held);
}

/** Writes rules in place of those that are there. */
async function write(page, rules) {
  await page.$eval('#status', (status) => { status.textContent = ''; });
  await page.focus('.cm-content');
  await press(page, 'a', 'Control');
  await page.keyboard.press('Backspace');
  if (rules) await page.keyboard.sendCharacter(rules);
  await planned(page);
}

/** What a check of accessibility finds that is serious. */
async function inaccessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  // The editor scrolls with what is written in it, which has the focus.
  const isEditor = ({ id, nodes }) => id === 'scrollable-region-focusable' && nodes.every(({ html }) => html.includes('cm-scroller'));
  return violations.filter((found) => !isEditor(found)).filter(({ impact }) => ['serious', 'critical'].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`);
}

const flows = {
  async 'an example is planned, explained, inverted and proven'() {
    const page = await opened(address);
    await planned(page);
    const plan = await text(page, '#plan');
    assert.match(plan, /model\.layers\.\{0\.\.31\}\.mlp\.experts\.gate_up_proj/);
    assert.match(plan, /model\.layers\.\{0\.\.31\}\.block_sparse_moe\.experts\.\{0\.\.7\}\.w1\.weight/);
    // 32 layers of 8 experts with three weights, and ten others in each; three beside.
    assert.match(await text(page, '#about-keys'), /^995 keys/);
    assert.ok(await page.$('.graft-keyword') && await page.$('.graft-capture'));
    assert.match(await text(page, '.graft-count'), /keys? match/);
    await picture(page, 'light');

    await page.click('#plan .row .keys');
    await page.waitForFunction(() => document.querySelector('#explained').textContent.includes('in the result'));
    assert.match(await text(page, '#explained'), /the way of model\.layers\.0\.block_sparse_moe/);
    await page.click('#tab-inverse');
    assert.match(await text(page, '#inverse pre'), /via split/);
    await page.focus('#tab-inverse');
    await page.keyboard.press('ArrowRight');
    assert.match(await text(page, '#proofs'), /proven/);
    await picture(page, 'proofs');
    await page.click('#tab-plan');

    await page.$eval('#plan details.graph', (graph) => { graph.open = true; });
    await page.waitForSelector('#plan .box[tabindex]');
    await page.$eval('#plan .box.copied', (box) => box.dispatchEvent(new MouseEvent('click', { bubbles: true })));
    assert.ok((await page.$$('#plan .arrow.on')).length >= 2);
    await page.$eval('#plan .canvas', (canvas) => canvas.scrollIntoView());
    await picture(page, 'graph');
    await page.type('#plan .search input', 'down_proj');
    assert.match(await text(page, '#plan .search [role=status]'), /^1 line$/);
    assert.deepEqual(await inaccessible(page), []);
    return page;
  },

  async 'the inverse converts backwards'() {
    const page = await opened(address);
    await planned(page);
    await choose(page, 'A fused QKV');
    assert.match(await text(page, '#plan'), /q_proj/);
    await page.click('#tab-inverse');
    await page.$eval('#status', (status) => { status.textContent = ''; });
    await page.click('#inverse button');
    await planned(page);
    assert.match(await text(page, '#status'), /read backwards/);
    return page;
  },

  async 'what is wrong is said where it is, and mended'() {
    const page = await opened(address);
    await planned(page);
    await choose(page, 'Something is wrong');
    const marks = await page.$$('.cm-lintRange-error');
    assert.ok(marks.length >= 2);
    assert.match(await text(page, '#status'), /to look at/);
    await marks[0].hover();
    await page.waitForSelector('.cm-tooltip-lint');
    await picture(page, 'error');
    const before = await text(page, '.cm-content');
    assert.match(before, /^renam /m);
    await page.$eval('#status', (status) => { status.textContent = ''; });
    await page.click('.cm-tooltip-lint .cm-diagnosticAction');
    await page.waitForFunction(() => !/^renam /m.test(document.querySelector('.cm-content').innerText));
    await planned(page);
    const place = await page.$('#plan .finding .place[role=link]');
    await place.click();
    assert.ok(await page.$eval('.cm-editor', (editor) => editor.classList.contains('cm-focused')));
    assert.deepEqual(await inaccessible(page), []);
    return page;
  },

  async 'completion knows the keys'() {
    const page = await opened(address);
    await planned(page);
    await write(page, '');
    await page.keyboard.type('rename "model.lay');
    await page.waitForSelector('.cm-tooltip-autocomplete li');
    assert.match(await text(page, '.cm-tooltip-autocomplete'), /layers/);
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('.cm-content').innerText.includes('"model.layers'));
    await write(page, 'map "model.layers.{l}.self_attn.q_proj.weight" -> "q.{l}" via transpose(0, 1)\n');
    await page.hover('.graft-op');
    await page.waitForSelector('.graft-words');
    assert.match(await text(page, '.graft-words'), /transpose/);
    return page;
  },

  async 'files are read by their headers'() {
    const page = await opened(address);
    await planned(page);
    const files = await page.$('#files');
    const requests = asked.length;
    await files.uploadFile(path.join(root, 'examples/mixtral/model.safetensors'));
    await page.waitForFunction(() => document.querySelector('#about-keys').textContent.includes('model.safetensors'));
    assert.match(await page.$eval('#keys', (keys) => keys.value), /block_sparse_moe\.experts\.\{0\.\.3\}\.w1\.weight F32 \[48, 32\]/);
    await files.uploadFile(path.join(root, 'examples/training/last.pt'));
    await page.waitForFunction(() => document.querySelector('#about-keys').textContent.includes('last.pt'));
    assert.equal(asked.length, requests, 'nothing is sent');
    const alone = path.join(home, 'model.safetensors.index.json');
    fs.writeFileSync(alone, JSON.stringify({ weight_map: { a: 'model-00001-of-00001.safetensors' } }));
    await files.uploadFile(alone);
    await page.waitForFunction(() => document.querySelector('#keys-error').textContent.includes('model-00001-of-00001'));
    const broken = path.join(home, 'broken.safetensors');
    fs.writeFileSync(broken, 'not at all');
    await files.uploadFile(broken);
    await page.waitForFunction(() => document.querySelector('#keys-error').textContent.includes('broken.safetensors'));
    return page;
  },

  async 'keys are pasted, and what is wrong with them is said'() {
    const page = await opened(address);
    await planned(page);
    await write(page, 'rename "a.**" <-> "b.**"\n');
    const keys = (value) => page.$eval('#keys', (field, given) => {
      field.value = given;
      field.dispatchEvent(new Event('input'));
    }, value);
    await keys('{"a.x": ["F32", [2]], "a.y": ["F32", [2]]}');
    await page.waitForFunction(() => document.querySelector('#about-keys').textContent.startsWith('2 keys'));
    await page.waitForFunction(() => document.querySelector('#plan').innerText.includes('b.x'));
    await keys('{"__metadata__": {}, "a.z": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}');
    await page.waitForFunction(() => document.querySelector('#plan').innerText.includes('b.z'));
    await keys('a.x F32 2');
    await page.waitForFunction(() => document.querySelector('#keys-error').textContent.includes('line 1'));
    await page.$eval('#config', (field) => { field.value = '{'; field.dispatchEvent(new Event('input')); });
    await page.waitForFunction(() => document.querySelector('#config-error').textContent !== '');
    return page;
  },

  async 'names are no markup'() {
    const page = await opened(address);
    await planned(page);
    await write(page, 'rename "a<img src=x onerror=alert(1)>{rest*}" <-> "b<script>alert(2)</script>{rest}"\n');
    await page.$eval('#keys', (field) => {
      field.value = JSON.stringify({ 'a<img src=x onerror=alert(1)><script>alert(3)</script>': ['F32', [2]], '</script><b onclick=alert(4)>': ['F32', [2]] });
      field.dispatchEvent(new Event('input'));
    });
    await page.waitForFunction(() => document.querySelector('#plan').innerText.includes('<script>alert(2)</script>'));
    assert.equal(await page.$('#plan img, #plan script, #plan b[onclick]'), null);
    return page;
  },

  async 'the address holds what stands on the page'() {
    const page = await opened(address);
    await planned(page);
    await write(page, 'rename "model.**" <-> "é𝄞.**"\n');
    await page.waitForFunction(() => location.hash.length > 1);
    const other = await opened(page.url());
    await planned(other);
    assert.match(await text(other, '.cm-content'), /rename "model\.\*\*" <-> "é𝄞\.\*\*"/);
    assert.equal(await other.$eval('#keys', (keys) => keys.value), await page.$eval('#keys', (keys) => keys.value));
    await other.close();
    const nonsense = await opened(`${address}#nonsense`);
    await planned(nonsense);
    assert.deepEqual(nonsense.wrong, []);
    await nonsense.close();
    return page;
  },

  async 'DeepSeek-V3 is planned while one waits'() {
    const page = await opened(address, { dark: true });
    await planned(page);
    await choose(page, 'DeepSeek-V3');
    assert.match(await text(page, '#about-keys'), /^90427 keys/);
    const times = [];
    for (let again = 0; again < 3; again += 1) {
      await page.$eval('#status', (status) => { status.textContent = ''; });
      await page.focus('.cm-content');
      await press(page, 'End', 'Control');
      await page.keyboard.sendCharacter(`# ${again}\n`);
      await planned(page);
      times.push(Number(/planned in ([\d.]+) s/.exec(await text(page, '#status'))[1]));
    }
    console.log(`  DeepSeek-V3 replanned in ${times.join(', ')} s`);
    await choose(page, 'DeepSeek-V3');
    await picture(page, 'deepseek_v3');
    return page;
  },

  async 'dark, and narrow'() {
    const dark = await opened(address, { dark: true });
    await planned(dark);
    await picture(dark, 'dark');
    assert.deepEqual(await inaccessible(dark), []);
    await dark.click('#theme');
    assert.equal(await dark.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(255, 255, 255)');
    await dark.close();
    const page = await opened(address, { width: 400, height: 800 });
    await planned(page);
    await picture(page, 'narrow');
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.equal(wide, 0, 'nothing is wider than the window');
    return page;
  },

  async 'one file does the same from a disk'() {
    const page = await opened(pathToFileURL(path.join(here, 'dist/playground.html')).href);
    await planned(page);
    assert.match(await text(page, '#plan'), /gate_up_proj/);
    return page;
  },

  async 'a report is searched, followed, and read without scripts'() {
    const report = path.join(home, 'plan.html');
    execFileSync(regraft, ['plan', path.join(root, 'examples/mixtral'), '--html', report], { stdio: 'ignore' });
    const page = await opened(pathToFileURL(report).href);
    await page.type('.search input', 'down_proj');
    assert.equal(await text(page, '.search [role=status]'), '1 line');
    await page.$eval('.graph', (graph) => { graph.open = true; });
    await page.click('.box.copied');
    assert.ok((await page.$$('.arrow.on')).length >= 2 && (await page.$$('.canvas.following')).length === 1);
    await page.click('[data-zoom="1.25"]');
    assert.deepEqual(await inaccessible(page), []);
    await picture(page, 'report');
    const still = await browser.newPage();
    await still.setJavaScriptEnabled(false);
    await still.goto(page.url());
    assert.match(await text(still, 'main'), /gate_up_proj/);
    assert.equal(await still.$eval('.search', (search) => getComputedStyle(search).display), 'none');
    await still.click('.graph > summary');
    assert.ok(await still.$eval('.graph', (graph) => graph.open));
    await still.close();
    return page;
  },
};

let failed = 0;
const only = process.argv[2] ?? '';
for (const [name, flow] of Object.entries(flows).filter(([name]) => name.includes(only))) {
  const before = Date.now();
  try {
    const page = await flow();
    assert.deepEqual(page.wrong, []);
    await page.close();
    console.log(`ok   ${name} (${Date.now() - before} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}\n${error.stack}`);
    const pages = await browser.pages();
    await picture(pages.at(-1), `failed-${failed}`).catch(() => {});
  }
}
await browser.close();
server.close();
fs.rmSync(home, { recursive: true, force: true });
process.exit(failed ? 1 : 0);
