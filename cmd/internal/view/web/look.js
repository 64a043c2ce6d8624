// The other views of vitrine inspect, as text.
import { h, text } from './dom.js';
import * as api from './api.js';

const views = { queues: 'Virtqueues', memory: 'Memory map', irq: 'Interrupt controllers', pci: 'PCI', acpi: 'ACPI tables', cpuid: 'CPUID' };

export class Look {
  constructor(name) {
    this.name = name;
    this.what = 'queues';
    this.buttons = Object.entries(views).map(([k, label]) => h('button', { 'aria-pressed': k === this.what, 'data-what': k, onclick: () => this.choose(k) }, label));
    this.text = h('pre', { tabIndex: 0, 'aria-label': 'View' });
    this.e = h('div.lookpane', {}, h('div.bar', { role: 'toolbar', 'aria-label': 'Views' }, this.buttons), this.text);
  }

  shown(on) { if (on) this.choose(this.what); }

  async choose(k) {
    this.what = k;
    for (const b of this.buttons) b.setAttribute('aria-pressed', b.dataset.what === k);
    try {
      const v = await api.inspect(this.name, k);
      if (this.what === k) text(this.text, v.text);
    } catch (e) {
      text(this.text, e.message);
    }
  }
}
