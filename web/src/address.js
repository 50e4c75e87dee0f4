// What stands on the page, in the fragment of its address: it never leaves the browser.

const bytesOf = async (stream) => new Uint8Array(await new Response(stream).arrayBuffer());
const through = (bytes, transform) => bytesOf(new Blob([bytes]).stream().pipeThrough(transform));

/** @returns {Promise<string>} a fragment without `#` */
export async function written(state) {
  const bytes = await through(new TextEncoder().encode(JSON.stringify(state)), new CompressionStream('deflate-raw'));
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** @returns what stood on the page; null if a fragment says nothing of the kind */
export async function read(fragment) {
  try {
    const text = atob(fragment.replaceAll('-', '+').replaceAll('_', '/'));
    const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
    const state = JSON.parse(new TextDecoder().decode(await through(bytes, new DecompressionStream('deflate-raw'))));
    const ok = ['rules', 'keys', 'config'].every((name) => typeof state?.[name] === 'string');
    return ok ? state : null;
  } catch {
    return null;
  }
}
