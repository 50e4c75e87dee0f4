// Builds the playground: the engine by cargo, the page by esbuild. Two results in web/dist:
//   site/             a static folder
//   playground.html   all of it in one file
import { execFileSync } from 'node:child_process';
import { gzipSync } from 'node:zlib';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** Bytes that the page may have without the editor, gzipped. */
const MOST = 900_000;

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.dirname(here);
const site = path.join(here, 'dist/site');
const target = process.env.CARGO_TARGET_DIR ?? path.join(root, 'target');

execFileSync('cargo', ['build', '--locked', '-p', 'regraft-web', '--profile', 'web', '--target', 'wasm32-unknown-unknown'], { cwd: root, stdio: 'inherit' });
// The same generic function is often compiled for several types that the machine can't tell apart: binaryen finds
// them. What its stronger passes do makes the file shorter, and what has to be fetched of it longer.
const built = path.join(target, 'wasm32-unknown-unknown/web/regraft_web.wasm');
const small = path.join(target, 'wasm32-unknown-unknown/web/regraft_web.small.wasm');
const passes = ['-O1', '--converge', '--rse', '--vacuum', '--dae-optimizing', '--duplicate-function-elimination', '--all-features'];
execFileSync(process.execPath, [path.join(here, 'node_modules/binaryen/bin/wasm-opt'), ...passes, built, '-o', small], { stdio: 'inherit' });
const wasm = fs.readFileSync(small);

async function bundled(entry, more = {}) {
  const { outputFiles } = await build({
    entryPoints: [path.join(here, 'src', entry)],
    bundle: true, minify: true, write: false, format: 'iife', target: 'es2022', charset: 'utf8', legalComments: 'none',
    ...more,
  });
  return outputFiles[0].text;
}
const worker = await bundled('worker.js');
const page = await bundled('main.js');
const style = await bundled('style.css', { format: undefined });
const html = fs.readFileSync(path.join(here, 'src/index.html'), 'utf8');

// What stands in a script ends at the first of these, wherever it is.
const inScript = (text) => text.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');

fs.rmSync(path.join(here, 'dist'), { recursive: true, force: true });
fs.mkdirSync(site, { recursive: true });
fs.writeFileSync(path.join(site, 'engine.wasm'), wasm);
fs.writeFileSync(path.join(site, 'worker.js'), worker);
fs.writeFileSync(path.join(site, 'main.js'), page);
fs.writeFileSync(path.join(site, 'style.css'), style);
fs.writeFileSync(path.join(site, 'index.html'), html);
// One file: the same page with everything in it, for a page that is opened from a disk can fetch nothing.
const whole = html
  .replace('<link rel="stylesheet" href="style.css">', () => `<style>${style}</style>`)
  .replace('<script src="main.js" defer></script>', () =>
    `<script type="text/plain" id="engine">${wasm.toString('base64')}</script>\n`
    + `<script type="text/plain" id="worker">${inScript(worker)}</script>\n<script>${inScript(page)}</script>`);
fs.writeFileSync(path.join(here, 'dist/playground.html'), whole);

const zipped = (bytes) => gzipSync(bytes, { level: 9 }).length;
const own = zipped(wasm) + zipped(worker) + zipped(style) + zipped(html);
console.log(`engine ${wasm.length} bytes, ${zipped(wasm)} gzipped; page without the editor ${own} gzipped; editor and page ${zipped(page)} gzipped`);
if (own > MOST) {
  console.error(`the page without the editor may have ${MOST} bytes gzipped`);
  process.exit(1);
}
