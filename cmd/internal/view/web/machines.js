// All machines.
import { h, text } from './dom.js';
import { bytes, count, percent, span, Rates } from './format.js';
import * as api from './api.js';
import { title, trouble } from './app.js';

const every = 2000;

export const exitsOf = (cpus) => cpus.reduce((n, c) => n + Object.values(c.exits).reduce((a, b) => a + b, 0), 0);

export function machinesView(main) {
  title('');
  const list = h('div.cards', { role: 'list' });
  const none = h('div.none', { hidden: true },
    h('p', {}, 'No machine runs. Start one, and it will be here:'),
    h('pre', {}, 'vitrine run --detach --name web'));
  main.append(h('section.machines', { 'aria-label': 'Machines', tabIndex: -1, 'data-pane': '' }, h('h1', {}, 'Machines'), none, list));
  const cards = new Map(), rates = new Rates();
  let timer, closed = false;

  async function refresh() {
    try {
      const rows = await api.machines();
      if (closed) return;
      show(rows);
      trouble('');
    } catch (e) {
      if (!closed) trouble(`The view does not answer: ${e.message}`);
    }
    if (!closed) timer = setTimeout(refresh, every);
  }

  function show(rows) {
    none.hidden = rows.length > 0;
    const there = new Set(rows.map((r) => r.name));
    for (const [name, c] of cards) if (!there.has(name)) { c.e.remove(); cards.delete(name); }
    for (const r of rows) {
      if (!cards.has(r.name)) {
        const c = card(r);
        cards.set(r.name, c);
        list.append(c.e);
      }
      cards.get(r.name).update(r, rates);
    }
  }

  refresh();
  return { close() { closed = true; clearTimeout(timer); } };
}

function card(r) {
  const state = h('span.pill'), facts = h('p.facts'), figures = h('dl.figures'), name = h('a', { href: '#/m/' + encodeURIComponent(r.name) }, r.name);
  const e = h('article.card', { role: 'listitem' }, h('h2', {}, name, state), facts, figures);
  const figure = (label) => { const dd = h('dd', {}, '–'); figures.append(h('div', {}, h('dt', {}, label), dd)); return dd; };
  const cpu = figure('processor'), mem = figure('memory'), exits = figure('exits'), up = figure('since');
  return {
    e,
    update(r, rates) {
      state.dataset.state = r.state;
      text(state, r.state);
      e.classList.toggle('ended', !r.alive);
      if (r.alive) name.href = '#/m/' + encodeURIComponent(r.name); else name.removeAttribute('href');
      text(facts, r.alive ? `${r.cpus} CPU${r.cpus > 1 ? 's' : ''} · ${bytes(r.memory)} · ${r.accel} · ${r.kernel.split('/').pop()}` : r.ending);
      text(up, span(Math.max(0, ((r.ended ? Date.parse(r.ended) : Date.now()) - Date.parse(r.created)) * 1e6)));
      const s = r.stats;
      figures.classList.toggle('old', !s);
      if (!s) return;
      const t = Date.parse(s.time) / 1000;
      text(cpu, percent(rates.of(r.name + ' cpu', s.cpuTime / 1e9, t)));
      text(mem, bytes(s.memory.pss));
      text(exits, count(rates.of(r.name + ' exits', exitsOf(s.vcpus), t)) + '/s');
    },
  };
}
