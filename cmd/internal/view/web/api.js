// What the page asks of its server.

const base = location.pathname;

async function ask(path, options) {
  const r = await fetch(base + 'api/' + path, { credentials: 'same-origin', cache: 'no-store', ...options });
  if (!r.ok) throw new Error((await r.text()).trim() || `status ${r.status}`);
  return r.json();
}

const machine = (name) => 'machines/' + encodeURIComponent(name);

export const machines = () => ask('machines');
export const inspect = (name, what, query = {}) => ask(`${machine(name)}/inspect/${what}?${new URLSearchParams(query)}`);
export const events = (name, query) => ask(`${machine(name)}/events?${new URLSearchParams(query)}`);
export const act = (name, what, body) => ask(`${machine(name)}/${what}`, { method: 'POST', body: JSON.stringify(body || {}) });

export function socket(name, what) {
  const s = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${base}api/${machine(name)}/${what}`);
  s.binaryType = 'arraybuffer';
  return s;
}

// Live is the stream of a machine's states. It opens again when it breaks.
export class Live {
  #socket; #ended = false; #wish = { filter: '', lines: true };

  constructor(name, { message, trouble }) {
    this.name = name;
    this.message = message;
    this.trouble = trouble;
    this.#open();
  }

  #open() {
    const s = this.#socket = socket(this.name, 'live');
    s.onopen = () => this.#send();
    s.onmessage = (e) => { if (!this.#ended) this.message(JSON.parse(e.data)); };
    s.onclose = () => {
      if (this.#ended) return;
      this.trouble();
      setTimeout(() => { if (!this.#ended) this.#open(); }, 1000);
    };
  }

  #send() { if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(this.#wish)); }

  wish(w) { Object.assign(this.#wish, w); this.#send(); }
  close() { this.#ended = true; this.#socket.close(); }
}
