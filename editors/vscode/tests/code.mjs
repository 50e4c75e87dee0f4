// Tries the extension in a real VS Code: code-server from npm, in Chromium. Leaves pictures in target/vscode.
//
//   node editors/vscode/tests/code.mjs
//
// Needs npm, Chromium (CHROMIUM, or /usr/bin/chromium), regraft (REGRAFT, or target/debug/regraft), what
// `npm ci --prefix editors/vscode` and `npm ci --prefix web` install, and the network: code-server (some 300 MB) is
// fetched into target/vscode once.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const puppeteer = createRequire(path.join(root, 'web/package.json'))('puppeteer-core');
const regraft = path.resolve(process.env.REGRAFT ?? path.join(root, 'target/debug/regraft'));
// The newest for Node 20: VS Code 1.100.
const VERSION = '4.100.3';
const PORT = 8099;

const kept = path.join(root, 'target/vscode');
const server = path.join(kept, 'package');
fs.mkdirSync(kept, { recursive: true });
const run = (program, given, cwd) => execFileSync(program, given, { cwd, stdio: ['ignore', 'ignore', 'inherit'] });
if (!fs.existsSync(path.join(server, 'ready'))) {
  fs.rmSync(server, { recursive: true, force: true });
  // Its native parts (a terminal, search in files) aren't built, and not needed.
  const install = ['install', '--ignore-scripts', '--omit=dev', '--no-audit', '--no-fund'];
  run('npm', ['pack', '-q', `code-server@${VERSION}`], kept);
  run('tar', ['xzf', `code-server-${VERSION}.tgz`], kept);
  run('npm', install, server);
  run('npm', [...install, '--no-save', 'argon2@0.44'], server);
  run('npm', install, path.join(server, 'lib/vscode'));
  fs.writeFileSync(path.join(server, 'ready'), '');
}

// A workspace with rules, a mistake in them, and the checkpoint that they are for.
const place = fs.mkdtempSync(path.join(os.tmpdir(), 'regraft-code-'));
const folder = (name) => { const made = path.join(place, name); fs.mkdirSync(made, { recursive: true }); return made; };
const [workspace, extensions, user, browserHome] = ['rules', 'extensions', 'user', 'browser'].map(folder);
const rules = fs.readFileSync(path.join(root, 'rules/mixtral.graft'), 'utf8');
fs.writeFileSync(path.join(workspace, 'mixtral.graft'), `# checkpoint: mixtral\n${rules}\ndrp "x"\n`);
fs.cpSync(path.join(root, 'examples/mixtral'), path.join(workspace, 'mixtral'), { recursive: true });
fs.cpSync(path.join(root, 'editors/vscode'), path.join(extensions, 'regraft.regraft-0.1.0'), { recursive: true });
fs.mkdirSync(path.join(user, 'User'), { recursive: true });
fs.writeFileSync(path.join(user, 'User/settings.json'), JSON.stringify({
  'regraft.path': regraft, 'workbench.startupEditor': 'none', 'security.workspace.trust.enabled': false,
  'workbench.tips.enabled': false, 'chat.commandCenter.enabled': false, 'editor.minimap.enabled': false,
}));

const code = spawn(process.execPath, [path.join(server, 'out/node/entry.js'), '--auth', 'none', '--bind-addr', `127.0.0.1:${PORT}`,
  '--user-data-dir', user, '--extensions-dir', extensions, '--disable-telemetry', '--disable-update-check', '--disable-workspace-trust',
  workspace], { stdio: ['ignore', fs.openSync(path.join(kept, 'log'), 'w'), 'inherit'] });
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  userDataDir: browserHome,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
});
try {
  const address = `http://127.0.0.1:${PORT}/`;
  for (let tries = 0; !(await fetch(address).catch(() => undefined)); tries += 1) {
    assert(tries < 150, 'code-server answers');
    await new Promise((again) => { setTimeout(again, 200); });
  }
  const page = await browser.newPage();
  await page.setViewport({ width: 1280, height: 800 });
  const file = `vscode-remote://127.0.0.1:${PORT}${workspace}/mixtral.graft`;
  await page.goto(`${address}?folder=${encodeURIComponent(workspace)}&payload=${encodeURIComponent(JSON.stringify([['openFile', file]]))}`);
  const picture = (name) => page.screenshot({ path: path.join(kept, `${name}.png`) });
  const shows = async (what, holds, ...given) => {
    try {
      await page.waitForFunction(holds, { timeout: 60_000 }, ...given);
    } catch (error) {
      await picture('failed');
      throw new Error(`${what}: ${error.message}`);
    }
    console.log(`ok   ${what}`);
  };
  await shows('rules are coloured', () => new Set([...document.querySelectorAll('.view-line span span')].map((one) => one.className)).size > 4);
  await shows('a mistake is underlined', () => document.querySelector('.squiggly-error'));
  await shows('lenses count keys of the checkpoint', () => [...document.querySelectorAll('.contentWidgets a, .codelens-decoration')]
    .some((one) => /\d+ keys/.test(one.textContent)));
  await picture('rules');
  // The mistake is mended by its quick fix.
  const press = async (key, held) => {
    if (held) await page.keyboard.down(held);
    await page.keyboard.press(key);
    if (held) await page.keyboard.up(held);
  };
  await page.click('.view-line');
  await press('End', 'Control');
  await press('ArrowUp');
  await press('.', 'Control');
  await shows('a quick fix is offered', () => [...document.querySelectorAll('.action-widget .action-item, .action-widget .monaco-list-row')]
    .some((one) => one.textContent.includes('drop')));
  await picture('fix');
  await press('Enter');
  await shows('and mends it', () => [...document.querySelectorAll('.view-line')].some((one) => one.textContent.startsWith('drop')));
  // Segments of real keys are completed.
  await press('End', 'Control');
  await page.keyboard.type('keep "model.layers.{l}.');
  await shows('segments of real keys are completed', () => {
    const offered = document.querySelector('.suggest-widget.visible')?.textContent ?? '';
    return offered.includes('block_sparse_moe') && offered.includes('self_attn');
  });
  await picture('completion');
  await press('Escape');
  await press('Home', 'Control');
  // What a pattern takes.
  const pattern = await page.evaluateHandle(() => [...document.querySelectorAll('.view-line span span')].find((one) => one.textContent.includes('block_sparse_moe')));
  await pattern.hover();
  await shows('hover counts keys', () => /\d+ keys/.test(document.querySelector('.monaco-hover:not(.hidden)')?.textContent ?? ''));
  // It fades in.
  await new Promise((shown) => { setTimeout(shown, 500); });
  await picture('hover');
} finally {
  await browser.close();
  code.kill();
  fs.rmSync(place, { recursive: true, force: true });
}
