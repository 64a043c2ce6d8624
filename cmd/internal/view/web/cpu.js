// Registers and code of a CPU.
import { h, text } from './dom.js';
import * as api from './api.js';

// cpuChoice is a choice of a CPU, of machines that have several.
export function cpuChoice(change) {
  const select = h('select', { 'aria-label': 'CPU', hidden: true, onchange: () => change(Number(select.value)) });
  return {
    e: select,
    set(n) {
      if (select.options.length === n) return;
      select.replaceChildren(...Array.from({ length: n }, (_, i) => h('option', { value: i }, `vCPU ${i}`)));
      select.hidden = n < 2;
    },
    choose(i) { select.value = String(i); },
  };
}

export class CPU {
  constructor(name, { walk, trouble }) {
    this.name = name;
    this.walk = walk;
    this.trouble = trouble;
    this.number = 0;
    this.old = new Map();
    this.choice = cpuChoice((n) => { this.number = n; this.old.clear(); this.refresh(); });
    this.mode = h('p.modeline');
    this.registers = h('div.registers');
    this.bits = h('dl.bits');
    this.code = h('ol.code', { 'aria-label': 'Code' });
    this.address = h('input', { placeholder: 'address or function; empty: RIP', spellcheck: false, 'aria-label': 'Address of code', onkeydown: (e) => { if (e.key === 'Enter') this.refresh(); } });
    this.note = h('span.note');
    this.e = h('div.cpupane', {},
      h('div.bar', {}, this.choice.e, h('button', { onclick: () => this.refresh(), title: 'The machine is paused for the moment of reading' }, 'Look again'), this.address, this.note),
      this.mode, this.registers, this.code, this.bits);
  }

  setCPUs(n) { this.choice.set(n); }
  choose(n) { if (n !== this.number) { this.number = n; this.old.clear(); } this.choice.choose(n); }
  shown(on) { this.visible = on; if (on) this.refresh(); }
  showCode(a) { this.address.value = a; }
  close() { this.closed = true; }

  // paused tells that the machine stands still, or goes on: then a look is
  // soon out of date, and the pane says so.
  paused(on) {
    text(this.note, on ? '' : 'a moment of a machine that runs');
    if (this.visible) this.refresh();
  }

  async refresh() {
    const code = { cpu: this.number, length: 15 };
    if (this.address.value.trim()) code.addr = this.address.value.trim();
    try {
      const [cpu, disasm] = await Promise.all([api.inspect(this.name, 'cpu', { cpu: this.number }), api.inspect(this.name, 'disasm', code)]);
      if (this.closed) return;
      this.#registers(cpu.data.lines, cpu.function);
      this.#code(disasm.text);
    } catch (e) {
      if (!this.closed) this.trouble(e.message);
    }
  }

  // registers shows the lines of vitrine inspect cpu: pairs of a name and 16
  // digits, and registers whose bits have names.
  #registers(lines, name) {
    text(this.mode, lines[0] + (name ? `, in ${name}` : ''));
    const cells = [], bits = [];
    const keep = new Map();
    const add = (name, value) => {
      const was = this.old.get(name), changed = was !== undefined && was !== value;
      keep.set(name, value);
      cells.push(h('button.reg' + (changed ? '.changed' : ''), { title: changed ? `was ${was}; page walk` : 'page walk of this address', onclick: () => this.walk('0x' + value, this.number) },
        h('span', {}, (changed ? '▸' : '') + name), h('code', {}, value)));
    };
    for (const l of lines.slice(1)) {
      const pairs = [...l.matchAll(/\b(r[a-z0-9]+)\s+([0-9a-f]{16})\b/g)];
      for (const [, name, value] of pairs) add(name, value);
      const rest = pairs.length ? l.replace(/\b(r[a-z0-9]+)\s+([0-9a-f]{16})\b/g, '').trim() : l;
      const m = /^(\S+)\s+(.*)$/.exec(rest);
      if (m) bits.push([h('dt', {}, m[1]), h('dd', {}, m[2])]);
    }
    this.old = keep;
    this.registers.replaceChildren(...cells);
    this.bits.replaceChildren(...bits.flat());
  }

  #code(s) {
    this.code.replaceChildren(...s.split('\n').filter((l) => l.trim()).map((l) => {
      const m = /^\s*(→)?\s*(0x[0-9a-f]+):\s+((?:[0-9a-f]{2} ?)+)\s*(.*)$/.exec(l);
      if (!m) return h('li', {}, l.trim());
      const here = Boolean(m[1]);
      return h('li' + (here ? '.here' : ''), here ? { 'aria-current': 'true' } : {},
        h('span.arrow', {}, here ? '▶' : ''), h('span.addr', {}, m[2]), h('span.bytes', {}, m[3].trim()), h('span.ins', {}, m[4]));
    }));
  }
}
