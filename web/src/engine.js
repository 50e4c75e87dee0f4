// The worker that has the engine, as functions that promise an answer.

const inFile = (id) => document.getElementById(id)?.textContent;

export class Engine {
  #worker;
  #waiting = new Map();
  #count = 0;

  constructor() {
    const [wasm, worker] = [inFile('engine'), inFile('worker')];
    if (wasm) {
      this.#worker = new Worker(URL.createObjectURL(new Blob([worker], { type: 'text/javascript' })));
    } else {
      this.#worker = new Worker('worker.js');
    }
    this.#worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if (data.broken) reject(new Error(`the engine stopped: ${data.broken}`));
      else if (data.answer?.error) reject(new Error(data.answer.error));
      else resolve({ ...data.answer, took: data.took });
    };
    this.#send({ wasm: wasm ? Uint8Array.from(atob(wasm), (c) => c.charCodeAt(0)).buffer : new URL('engine.wasm', location.href).href });
  }

  #send(message) {
    const id = ++this.#count;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...message });
    });
  }

  /** Asks; rejects with what the engine says can't be done. */
  ask(what, more = {}) {
    return this.#send({ question: { ask: what, ...more } });
  }

  /** Reads the headers of files. */
  open(files) {
    const listed = files.map((file) => ({ name: file.name, len: file.size }));
    return this.#send({ question: { ask: 'files', files: listed }, dropped: files });
  }
}
