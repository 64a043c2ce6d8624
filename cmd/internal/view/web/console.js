// The machine's console, in a terminal.
import { h, text, color } from './dom.js';
import * as api from './api.js';
import { nextPane } from './app.js';
import { Terminal } from './vendor/xterm.mjs';

// The page's policy allows no style that is not the server's. The terminal
// makes style elements of its own: they get the nonce that the server gave to
// this page. Its style attributes go by the object model, which is allowed.
const nonce = document.querySelector('meta[name=style-nonce]').nonce;
const createElement = Document.prototype.createElement;
document.createElement = function create(tag, options) {
  const e = createElement.call(document, tag, options);
  if (tag === 'style') e.nonce = nonce;
  if (tag === 'span') {
    e.setAttribute = function setAttribute(k, v) {
      if (k === 'style') this.style.cssText = v; else Element.prototype.setAttribute.call(this, k, v);
    };
  }
  return e;
};

const keys = [['Enter', '\r'], ['Ctrl-C', '\x03'], ['Ctrl-D', '\x04'], ['Ctrl-Z', '\x1a'], ['Esc', '\x1b'], ['Tab', '\t'], ['↑', '\x1b[A'], ['↓', '\x1b[B'], ['Ctrl-L', '\x0c']];

// The guest's serial line is 80 columns wide, and tells nobody its size.
const columns = 80, rows = 24;

export class Console {
  #socket; #closed = false; #out = new TextEncoder();

  constructor(name) {
    this.name = name;
    this.screen = h('div.screen', { 'aria-label': 'Console' });
    this.keys = h('div.keys', { role: 'toolbar', 'aria-label': 'Keys to send' }, h('span', {}, 'Send'),
      keys.map(([label, bytes]) => h('button', { onclick: () => { this.send(bytes); this.term.focus(); } }, label)));
    this.reader = h('button.reader', { 'aria-pressed': 'false', onclick: () => this.#readAloud(), title: 'Has the terminal say what appears, for screen readers' }, 'Screen reader');
    this.keys.append(this.reader);
    this.note = h('p.note', { role: 'status' });
    this.e = h('div.console', {}, this.screen, this.keys, this.note);
    this.term = new Terminal({ cols: columns, rows, scrollback: 5000, fontFamily: 'ui-monospace, "DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace', fontSize: 13, theme: this.#theme() });
    this.term.onData((d) => this.send(d));
    this.term.onBinary((d) => this.#socket && this.#socket.send(Uint8Array.from(d, (c) => c.charCodeAt(0))));
    this.term.attachCustomKeyEventHandler((e) => {
      if (e.key !== 'F6') return true;
      if (e.type === 'keydown') { e.preventDefault(); e.stopPropagation(); nextPane(); }
      return false;
    });
    this.onTheme = () => { this.term.options.theme = this.#theme(); };
    this.onSize = () => this.#fit();
    window.addEventListener('themechange', this.onTheme);
    window.addEventListener('resize', this.onSize);
    this.#connect();
  }

  shown(on) {
    if (!on) return;
    if (!this.opened) { this.opened = true; this.term.open(this.screen); }
    this.#fit();
  }

  // fit chooses the size of type such that the guest's 80 columns fill the pane.
  #fit() {
    if (!this.opened || !this.screen.clientWidth) return;
    const byWidth = (this.screen.clientWidth - 30) / columns / 0.603, byHeight = (this.screen.clientHeight - 14) / rows / 1.18;
    const size = Math.max(8, Math.min(28, Math.floor(2 * Math.min(byWidth, byHeight)) / 2));
    if (size !== this.term.options.fontSize) this.term.options.fontSize = size;
    const cell = this.screen.querySelector('.xterm-screen').clientHeight / this.term.rows;
    const fits = Math.max(rows, Math.floor((this.screen.clientHeight - 14) / Math.max(8, cell)));
    if (fits !== this.term.rows) this.term.resize(columns, fits);
  }

  #theme() {
    return {
      background: color('screen'), foreground: color('screen-ink'), cursor: color('written'), selectionBackground: color('screen-select'),
      black: '#1b1f24', red: '#e0705f', green: '#3fb98f', yellow: '#e0a93b', blue: '#5aa7e0', magenta: '#d090b8', cyan: '#63c5da', white: '#d8dde3',
      brightBlack: '#7b8794', brightRed: '#ff9482', brightGreen: '#63dbae', brightYellow: '#ffcf66', brightBlue: '#8cc6f5', brightMagenta: '#eab4d4', brightCyan: '#8fe1f0', brightWhite: '#ffffff',
    };
  }

  #readAloud() {
    const on = this.term.options.screenReaderMode = !this.term.options.screenReaderMode;
    this.reader.setAttribute('aria-pressed', on);
  }

  #connect() {
    const s = this.#socket = api.socket(this.name, 'console');
    let first = true;
    s.onmessage = (e) => {
      if (first) { this.term.reset(); first = false; }
      this.term.write(new Uint8Array(e.data));
    };
    s.onclose = () => {
      this.#socket = null;
      if (!this.#closed) setTimeout(() => { if (!this.#closed) this.#connect(); }, 2000);
    };
  }

  send(s) {
    if (this.input === false || !this.#socket || this.#socket.readyState !== WebSocket.OPEN) return;
    this.#socket.send(this.#out.encode(s));
  }

  // setInput says whether the machine takes what is typed here.
  setInput(on) {
    if (on === this.input) return;
    this.input = on;
    this.keys.hidden = !on;
    this.term.options.cursorBlink = false;
    this.term.options.disableStdin = !on;
    text(this.note, on ? '' : 'You only watch: this machine has a terminal of its own, or runs a command.');
  }

  close() {
    this.#closed = true;
    window.removeEventListener('themechange', this.onTheme);
    window.removeEventListener('resize', this.onSize);
    if (this.#socket) this.#socket.close();
  }

  remove() { this.term.dispose(); }
}
