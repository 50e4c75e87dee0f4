// The engine, in a thread of its own: a question as an object, its answer as one.
let engine;
/** Files that were dropped. Only what the engine asks for is read of them: their headers. */
let files = [];

const imports = {
  page: {
    read_at(number, at, into, len) {
      const file = files[number];
      if (!file || at + len > file.size) return 0;
      const bytes = new Uint8Array(new FileReaderSync().readAsArrayBuffer(file.slice(at, at + len)));
      new Uint8Array(engine.memory.buffer).set(bytes, into);
      return 1;
    },
  },
};

function ask(question) {
  const bytes = new TextEncoder().encode(JSON.stringify(question));
  // Room comes first: memory that grows has another buffer.
  const room = engine.question(bytes.length);
  new Uint8Array(engine.memory.buffer).set(bytes, room);
  const at = engine.answer();
  const answer = new Uint8Array(engine.memory.buffer, at, engine.answer_len());
  return JSON.parse(new TextDecoder().decode(answer));
}

/** @param wasm the engine's bytes, or where they are */
async function start(wasm) {
  const bytes = typeof wasm === 'string' ? await (await fetch(wasm)).arrayBuffer() : wasm;
  engine = (await WebAssembly.instantiate(bytes, imports)).instance.exports;
}

let started;
self.onmessage = async ({ data: { id, question, wasm, dropped } }) => {
  try {
    if (wasm) {
      started = start(wasm);
    }
    await started;
    if (dropped) {
      files = dropped;
    }
    const before = performance.now();
    const answer = question ? ask(question) : {};
    self.postMessage({ id, answer, took: performance.now() - before });
  } catch (error) {
    // A trap leaves the engine as it is nowhere: the page starts another one.
    self.postMessage({ id, broken: String(error) });
  }
};
