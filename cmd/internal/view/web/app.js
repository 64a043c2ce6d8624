// The page: which view is shown, keys, and how it looks.
import { h } from './dom.js';
import { machinesView } from './machines.js';
import { machineView } from './machine.js';

const main = document.getElementById('main');
let view = null;

// route shows what the address says: all machines, or one.
function route() {
  if (view) view.close();
  const name = /^#\/m\/(.+)$/.exec(location.hash);
  main.replaceChildren();
  document.getElementById('controls').replaceChildren();
  trouble('');
  view = name ? machineView(main, decodeURIComponent(name[1])) : machinesView(main);
}

// trouble says what goes wrong, above everything.
export function trouble(s) {
  const p = document.getElementById('trouble');
  p.hidden = !s;
  if (p.textContent !== s) p.textContent = s;
}

// title is what stands in the head of the page.
export function title(s, ...more) {
  document.title = s ? `${s} · Vitrine` : 'Vitrine';
  document.getElementById('title').replaceChildren(...(s ? [h('h1', {}, s)] : []), ...more);
}

const keep = {
  get(k) { try { return localStorage.getItem('vitrine-' + k); } catch { return null; } },
  set(k, v) { try { localStorage.setItem('vitrine-' + k, v); } catch { /* not kept */ } },
};

const root = document.documentElement;

function setTheme(t) {
  root.dataset.theme = t;
  keep.set('theme', t);
  window.dispatchEvent(new Event('themechange'));
}

function setPresenter(on) {
  root.classList.toggle('presenter', on);
  document.getElementById('presenter').setAttribute('aria-pressed', on);
  keep.set('presenter', on ? '1' : '');
  window.dispatchEvent(new Event('resize'));
}

const dark = () => (root.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
const toggleTheme = () => setTheme(dark() ? 'light' : 'dark');
const togglePresenter = () => setPresenter(!root.classList.contains('presenter'));

const keyTable = [
  ['p', 'pause or resume'], ['s', 'one instruction, of a paused machine'], ['Shift S', 'a hundred of them'],
  ['/', 'filter of the events'], ['l', 'events: live again'], ['← →', 'on the time line: back and forth'],
  ['1 … 4', 'console, CPU, page tables, more'], ['F6', 'to the next pane, also out of the console'],
  ['t', 'light or dark'], ['f', 'presenter: large type'], ['?', 'this'],
];

function showKeys() {
  const d = document.getElementById('keys');
  d.replaceChildren(h('h2', { id: 'keys-title' }, 'Keys'),
    h('dl', {}, keyTable.map(([k, what]) => [h('dt', {}, k.split(' ').map((x) => (x === '…' ? ' … ' : h('kbd', {}, x)))), h('dd', {}, what)])),
    h('button', { onclick: () => d.close(), autofocus: true }, 'Close'));
  if (!d.open) d.showModal();
}

const takesKeys = (e) => e.closest('input, textarea, select, .xterm, dialog');

// nextPane moves the focus to the next pane.
export function nextPane() {
  const panes = [...document.querySelectorAll('[data-pane]')].filter((p) => p.offsetParent);
  const at = panes.findIndex((p) => p.contains(document.activeElement));
  if (panes.length) panes[(at + 1) % panes.length].focus();
}

document.addEventListener('keydown', (e) => {
  if (e.key === 'F6') { e.preventDefault(); nextPane(); return; }
  if (e.ctrlKey || e.metaKey || e.altKey || takesKeys(e.target)) return;
  const own = { t: toggleTheme, f: togglePresenter, '?': showKeys }[e.key];
  if (own) { e.preventDefault(); own(); return; }
  if (view && view.key && view.key(e.key)) e.preventDefault();
});

document.getElementById('theme').onclick = toggleTheme;
document.getElementById('presenter').onclick = togglePresenter;
document.getElementById('help').onclick = showKeys;
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => window.dispatchEvent(new Event('themechange')));
if (keep.get('theme')) setTheme(keep.get('theme'));
setPresenter(keep.get('presenter') === '1');
window.addEventListener('hashchange', route);
route();
