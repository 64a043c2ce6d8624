// A page walk, level by level.
import { h, text } from './dom.js';
import * as api from './api.js';
import { cpuChoice } from './cpu.js';

export class Walk {
  constructor(name) {
    this.name = name;
    this.number = 0;
    this.choice = cpuChoice((n) => { this.number = n; });
    this.address = h('input', { placeholder: 'a virtual address or a function, such as start_kernel', spellcheck: false, 'aria-label': 'Virtual address', onkeydown: (e) => { if (e.key === 'Enter') this.walk(); } });
    this.split = h('div.split', { 'aria-label': 'The parts of the address' });
    this.steps = h('ol.steps');
    this.note = h('p.note', { role: 'status' });
    this.e = h('div.walkpane', {},
      h('div.bar', {}, this.choice.e, this.address, h('button', { onclick: () => this.walk() }, 'Walk'), h('button', { onclick: () => this.rip(), title: 'The address of the next instruction' }, 'RIP'),
        h('button', { onclick: () => this.rip('rsp'), title: 'The stack' }, 'RSP')),
      this.split, this.steps, this.note);
  }

  setCPUs(n) { this.choice.set(n); }
  shown(on) { if (on && !this.steps.firstChild && !this.address.value) this.rip(); }

  go(address, cpu) {
    this.number = cpu;
    this.choice.choose(cpu);
    this.address.value = address;
    return this.walk();
  }

  async rip(which = 'rip') {
    try {
      const g = await api.inspect(this.name, 'glance');
      await this.go(g.cpus[this.number][which], this.number);
    } catch (e) {
      text(this.note, e.message);
    }
  }

  async walk() {
    let a = this.address.value.trim();
    if (/^[0-9a-f]{9,16}$/i.test(a)) a = '0x' + a;
    if (!a) return;
    try {
      const v = await api.inspect(this.name, 'pagetable', { cpu: this.number, addr: a });
      this.#show(v.text);
    } catch (e) {
      this.split.replaceChildren();
      this.steps.replaceChildren();
      text(this.note, e.message);
    }
  }

  #show(s) {
    const lines = s.trimEnd().split('\n'), a = /^0x[0-9a-f]+/.exec(lines[0])[0];
    text(this.note, lines[0].replace(/:$/, ''));
    const levels = [];
    this.steps.replaceChildren(...lines.slice(1).map((l) => {
      const m = /^\s*(\w+)\[(\d+)\] at (0x[0-9a-f]+) = (0x[0-9a-f]+)\s*(.*)$/.exec(l);
      if (!m) return h('li.result', {}, l.trim());
      levels.push([m[1], Number(m[2])]);
      const [flags, to] = m[5].split('→').map((x) => x.trim());
      return h('li.level', {}, h('span.name', {}, m[1]), h('span.index', {}, `entry ${m[2]}`), h('code', {}, m[4]), h('span.at', {}, `at ${m[3]}`),
        h('span.flags', {}, flags.split(/\s+/).filter(Boolean).map((f) => h('span.flag', {}, f))), to ? h('span.goes', {}, '→ ' + to) : null);
    }));
    this.#parts(a, levels);
  }

  // parts shows which bits of the address choose which entry.
  #parts(a, levels) {
    let v;
    try { v = BigInt(a); } catch { this.split.replaceChildren(); return; }
    const used = levels.length * 9;
    const low = v & ((1n << BigInt(Math.max(12, 48 - used))) - 1n);
    this.split.replaceChildren(...levels.map(([n, i]) => h('span.part', {}, h('b', {}, String(i)), h('span', {}, n))),
      ...(levels.length ? [h('span.part.offset', {}, h('b', {}, '0x' + low.toString(16)), h('span', {}, 'offset'))] : []));
  }
}
