// The events: a time line over all that is kept, a filter, and the list, live
// or of a moment of the past.
import { h, text, attr } from './dom.js';
import { count, seconds, span } from './format.js';
import * as api from './api.js';
import { Timeline } from './timeline.js';

const maxRows = 200, pageRows = 100;

// Marks of the classes of events, so that colour is not needed to tell them.
const marks = {
  io: ['access', '■'], mmio: ['access', '■'], exit: ['access', '■'], complete: ['access', '■'],
  rdmsr: ['own', '●'], wrmsr: ['own', '●'], cpuid: ['own', '●'], vector: ['own', '●'], halt: ['own', '●'],
  pop: ['queue', '▲'], push: ['queue', '▲'], doorbell: ['queue', '▲'],
  irq: ['signal', '◆'], input: ['signal', '◆'],
};

export class Events {
  constructor(name, { wish, rip }) {
    this.name = name;
    this.tell = wish;
    this.rip = rip;
    this.filter = '';
    this.explained = new Map();
    this.line = new Timeline((t) => this.at(t));
    this.input = h('input', {
      type: 'search', id: 'filter', placeholder: 'filter: device=COM1   took>10us   irq or pop   not io', spellcheck: false,
      autocomplete: 'off', onkeydown: (e) => { if (e.key === 'Enter') this.setFilter(this.input.value.trim()); if (e.key === 'Escape') this.input.blur(); },
      oninput: () => { if (this.input.value === '') this.setFilter(''); },
    });
    this.note = h('span.note', { role: 'status' });
    this.liveButton = h('button', { id: 'live', onclick: () => this.goLive(), 'aria-pressed': 'true', title: 'Events as they happen (l)' }, 'Live');
    this.older = h('button', { onclick: () => this.page('older'), title: 'Events before these' }, '◀ Older');
    this.newer = h('button', { onclick: () => this.page('newer'), title: 'Events after these' }, 'Newer ▶');
    this.body = h('tbody');
    this.scroll = h('div.rows', { tabIndex: 0, role: 'region', 'aria-label': 'List of events' },
      h('table', {}, h('thead', {}, h('tr', {}, ['time', 'from', 'what', 'where', 'VMM'].map((t) => h('th', { scope: 'col' }, t)))), this.body));
    this.why = h('p.why', { 'aria-live': 'polite' }, 'Choose an event to see what causes it.');
    this.wrong = h('pre.wrong', { role: 'alert', hidden: true });
    this.e = h('section.events', { 'aria-label': 'Events', tabIndex: -1, 'data-pane': '' },
      h('div.bar', {}, h('h2', {}, 'Events'), h('label.hidden', { htmlFor: 'filter' }, 'Filter'), this.input, this.liveButton, this.older, this.newer, this.note),
      this.wrong, this.line.e, this.why, this.scroll);
    this.live = true;
    this.body.addEventListener('click', (e) => { const tr = e.target.closest('tr'); if (tr) this.choose(tr); });
    this.scroll.addEventListener('keydown', (e) => this.#keys(e));
  }

  close() { this.line.close(); }
  focus() { this.input.focus(); this.input.select(); }

  update(m) {
    if (m.meta) this.body.replaceChildren();
    if (m.timeline) this.line.update(m.timeline);
    if (m.filter) this.#answered(m.filter);
    if (!m.events || !this.live) return;
    this.#show(m.events, true);
    this.#sampled(m.events);
  }

  #filterError(s) {
    this.wrong.hidden = !s;
    text(this.wrong, s);
    attr(this.input, 'aria-invalid', Boolean(s));
  }

  // sampled says how much of what happens is looked at.
  #sampled(t) {
    const now = performance.now(), w = this.window ||= [];
    w.push({ now, seen: t.seen, looked: t.looked, lines: t.lines.length });
    while (w.length && now - w[0].now > 2000) w.shift();
    const sum = (k) => w.reduce((n, x) => n + x[k], 0), secs = Math.max(0.25, (now - w[0].now) / 1000 || 0.25);
    const seen = sum('seen'), looked = sum('looked');
    if (looked < seen) text(this.note, `${count(seen / secs)} events/s: sampled, ${this.filter ? 'the filter looks at' : 'this shows'} ${count(looked / secs)} of them a second`);
    else text(this.note, seen ? `${count(seen / secs)} events/s` : 'nothing happens');
  }

  // setFilter asks for other events; the server says whether the filter is one.
  setFilter(f) {
    this.input.value = this.asked = f;
    this.tell({ filter: f });
  }

  #answered(a) {
    if (a.text !== this.asked) return; // to a wish before
    this.#filterError(a.error);
    if (a.error || a.text === this.filter) return;
    this.filter = a.text;
    this.window = [];
    this.body.replaceChildren();
    if (!this.live) this.at(this.time || 0); else if (this.filter) this.#fill();
  }

  // fill shows what the past has for a filter: what comes may take its time.
  async #fill() {
    const f = this.filter;
    try {
      const p = await api.events(this.name, { before: String(Number.MAX_SAFE_INTEGER), count: 40, filter: f });
      if (this.live && this.filter === f && !this.body.firstChild) this.#show(p, false);
    } catch (e) {
      this.#filterError(e.message);
    }
  }

  goLive() {
    this.live = true;
    attr(this.liveButton, 'aria-pressed', true);
    this.body.replaceChildren();
    this.line.mark(null);
    this.tell({ lines: true });
  }

  // at shows the past from a time on.
  at(t) {
    this.time = t;
    this.#past({ time: Math.max(0, Math.floor(t)) }, t);
  }

  page(which) {
    const rows = this.body.rows;
    if (!rows.length) return;
    const first = Number(rows[0].dataset.n), last = Number(rows[rows.length - 1].dataset.n);
    this.#past(which === 'older' ? { before: first } : { from: last + 1 });
  }

  async #past(q, t) {
    if (this.live) {
      this.live = false;
      attr(this.liveButton, 'aria-pressed', false);
      this.tell({ lines: false });
    }
    const turn = this.turn = (this.turn || 0) + 1;
    try {
      const p = await api.events(this.name, { ...q, count: pageRows, filter: this.filter });
      if (turn !== this.turn || this.live) return;
      if (!p.lines || !p.lines.length) {
        text(this.note, p.to >= p.next ? 'no more events' : 'no such event near here');
        return;
      }
      this.body.replaceChildren();
      this.#show(p, false);
      this.scroll.scrollTop = 0;
      this.line.mark(t ?? p.lines[0].t);
      text(this.note, `the past: ${p.lines.length} events from ${seconds(p.lines[0].t)} s`);
    } catch (e) {
      this.#filterError(e.message);
    }
  }

  #show(p, follow) {
    const lines = p.lines || [];
    if (!lines.length) return;
    const near = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < 60;
    const f = document.createDocumentFragment();
    for (const l of lines) f.append(row(l, l.w >= 0 ? p.whys[l.w] : ''));
    this.body.append(f);
    while (this.body.rows.length > maxRows) this.body.rows[0].remove();
    if (follow && near) this.scroll.scrollTop = this.scroll.scrollHeight;
    this.#explain(lines, p.whys || []);
  }

  // explain says what the newest kind of event is about, once for each.
  #explain(lines, whys) {
    for (const l of lines) {
      const s = whys[l.w];
      if (!s || this.explained.has(s)) continue;
      this.explained.set(s, true);
      this.#say(l.k, s);
    }
  }

  #say(kind, s) {
    const [cls, mark] = marks[kind] || ['access', '■'];
    this.why.replaceChildren(h(`span.mark.${cls}`, { 'aria-hidden': 'true' }, mark), ' ', s);
  }

  choose(tr) {
    for (const o of this.body.querySelectorAll('[aria-selected=true]')) o.removeAttribute('aria-selected');
    tr.setAttribute('aria-selected', 'true');
    this.chosen = tr;
    if (tr.dataset.why) this.#say(tr.dataset.kind, tr.dataset.why);
  }

  #keys(e) {
    const rows = this.body.rows, at = this.chosen && this.chosen.isConnected ? this.chosen.sectionRowIndex : rows.length;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[e.key];
    if (to !== undefined && rows.length) {
      e.preventDefault();
      this.choose(rows[Math.max(0, Math.min(rows.length - 1, to))]);
      this.chosen.scrollIntoView({ block: 'nearest' });
    } else if (e.key === 'Enter' && this.chosen && this.chosen.dataset.rip) {
      this.rip(this.chosen.dataset.rip);
    }
  }
}

function row(l, why) {
  const [cls, mark] = marks[l.k] || ['access', '■'];
  const where = l.r ? `${l.y || l.r}` : '';
  const took = l.l ? `${span(l.l)} later` : l.o ? span(l.o) : '';
  const tr = h('tr', {},
    h('td.time', {}, seconds(l.t)), h('td.from', {}, l.s),
    h('td.what', {}, h(`span.mark.${cls}`, { title: l.k }, mark), ' ', l.x), h('td.where', { title: l.r || '' }, where), h('td.took', {}, took));
  Object.assign(tr.dataset, { n: l.n, kind: l.k, why: why || '', rip: l.r || '' });
  return tr;
}
