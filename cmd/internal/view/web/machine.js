// One machine: the house, the panes beside it, and the events below.
import { h, text, attr } from './dom.js';
import { span } from './format.js';
import * as api from './api.js';
import { title, trouble } from './app.js';
import { House } from './house.js';
import { Events } from './events.js';
import { Console } from './console.js';
import { CPU } from './cpu.js';
import { Walk } from './walk.js';
import { Look } from './look.js';

export function machineView(main, name) {
  const v = new MachineView(main, name);
  return { close: () => v.close(), key: (k) => v.key(k) };
}

class MachineView {
  constructor(main, name) {
    this.name = name;
    this.state = h('span.pill', { role: 'status' });
    this.since = h('span.since');
    title(name, this.state, this.since);
    this.#controls();
    this.house = new House({ device: (d) => this.events.setFilter(d === '' ? 'nothing' : `device=${d}`), cpu: (n) => this.showCPU(n), memory: () => this.tab(2) });
    this.console = new Console(name);
    this.cpu = new CPU(name, { walk: (a, cpu) => this.showWalk(a, cpu), trouble });
    this.walk = new Walk(name);
    this.look = new Look(name);
    this.panes = [['Console', this.console], ['CPU', this.cpu], ['Page tables', this.walk], ['More', this.look]];
    this.events = new Events(name, { wish: (w) => this.live.wish(w), rip: (a) => this.cpu.showCode(a) || this.tab(1) });
    main.append(h('div.machine', {}, this.house.e, this.#tabs(), this.events.e));
    this.live = new api.Live(name, {
      message: (m) => this.update(m),
      trouble: () => this.#gone(),
    });
    this.tab(0);
  }

  #controls() {
    const button = (id, label, key, f) => h('button', { id, onclick: f, title: `${label} (${key})` }, label);
    this.pause = button('pause', 'Pause', 'p', () => this.toggle());
    this.step1 = button('step', 'Step', 's', () => this.step(1));
    this.step100 = button('step100', 'Step ×100', 'Shift S', () => this.step(100));
    this.step1.disabled = this.step100.disabled = true;
    document.getElementById('controls').replaceChildren(this.pause, this.step1, this.step100);
  }

  #tabs() {
    this.tabs = this.panes.map(([label], i) => h('button', {
      role: 'tab', id: `tab-${i}`, 'aria-controls': `pane-${i}`, onclick: () => this.tab(i),
      onkeydown: (e) => this.#tabKey(e, i), title: `${label} (${i + 1})`,
    }, label));
    this.bodies = this.panes.map(([, p], i) => h('div.body', { role: 'tabpanel', id: `pane-${i}`, 'aria-labelledby': `tab-${i}` }, p.e));
    return h('section.side', { 'aria-label': 'A closer look', tabIndex: -1, 'data-pane': '' }, h('div.tabs', { role: 'tablist' }, this.tabs), this.bodies);
  }

  #tabKey(e, i) {
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: this.tabs.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    this.tab((to + this.tabs.length) % this.tabs.length);
    this.tabs[this.current].focus();
  }

  tab(i) {
    this.current = i;
    this.tabs.forEach((t, j) => { attr(t, 'aria-selected', i === j); t.tabIndex = i === j ? 0 : -1; });
    this.bodies.forEach((b, j) => { b.hidden = i !== j; });
    this.panes.forEach(([, p], j) => { if (p.shown) p.shown(i === j); });
  }

  showCPU(n) { this.cpu.choose(n); this.tab(1); }
  showWalk(address, cpu) { this.tab(2); this.walk.go(address, cpu); }

  update(m) {
    if (m.error || this.broken) trouble(m.error ? `${this.name}: ${m.error}` : '');
    this.broken = Boolean(m.error);
    if (m.glance) {
      const state = m.glance.paused ? 'paused' : 'running';
      if (state !== this.was) {
        this.was = state;
        this.state.dataset.state = state;
        text(this.state, state);
        text(this.pause, state === 'paused' ? 'Resume' : 'Pause');
        this.step1.disabled = this.step100.disabled = state !== 'paused';
        this.cpu.paused(state === 'paused');
      }
    }
    if (m.machine.created && !m.machine.created.startsWith('0001')) text(this.since, 'for ' + span((Date.now() - Date.parse(m.machine.created)) * 1e6));
    this.console.setInput(m.input);
    this.cpu.setCPUs(m.glance ? m.glance.cpus.length : 1);
    this.walk.setCPUs(m.glance ? m.glance.cpus.length : 1);
    this.house.update(m);
    this.events.update(m);
  }

  async #gone() {
    try {
      const rows = await api.machines();
      const r = rows.find((x) => x.name === this.name);
      this.broken = true;
      if (!r || !r.alive) {
        this.#ended(r);
        return;
      }
      trouble('The connection broke; it is being opened again.');
    } catch (e) {
      trouble(`The view does not answer: ${e.message}`);
    }
  }

  // ended shows the end, and waits for a machine of the same name.
  #ended(r) {
    this.live.close();
    this.console.close();
    this.pause.disabled = this.step1.disabled = this.step100.disabled = true;
    this.state.dataset.state = 'exited';
    text(this.state, 'ended');
    trouble(r && r.ending !== 'exited' ? `${this.name} has ended: ${r.ending}` : `${this.name} has ended.`);
    this.waiting = setInterval(async () => {
      const rows = await api.machines().catch(() => []);
      if (rows.some((x) => x.name === this.name && x.alive)) window.dispatchEvent(new Event('hashchange'));
    }, 2000);
  }

  async #do(f) {
    trouble('');
    try { await f(); } catch (e) { trouble(e.message); }
  }

  toggle() { return this.#do(() => api.act(this.name, this.was === 'paused' ? 'resume' : 'pause')); }

  step(count) {
    return this.#do(async () => {
      const a = await api.act(this.name, 'step', { cpu: this.cpu.number, count });
      if (this.current === 1) await this.cpu.refresh(); else this.tab(1);
      if (a.unfinished) trouble(a.unfinished);
    });
  }

  key(k) {
    const f = {
      p: () => this.toggle(), s: () => this.was === 'paused' && this.step(1), S: () => this.was === 'paused' && this.step(100),
      '/': () => this.events.focus(), l: () => this.events.goLive(),
      1: () => this.tab(0), 2: () => this.tab(1), 3: () => this.tab(2), 4: () => this.tab(3),
    }[k];
    if (f) f();
    return Boolean(f);
  }

  close() {
    clearInterval(this.waiting);
    this.live.close();
    this.console.close();
    this.console.remove();
    this.cpu.close();
    this.events.close();
    this.house.close();
  }
}
