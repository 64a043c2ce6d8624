// The machine drawn as a house: CPUs under the roof, memory below them, the
// buses as the corridor, devices as rooms along it, the host as the ground.
import { h, svg, text, attr } from './dom.js';
import { bytes, count, percent, rate, Rates } from './format.js';
import { MemoryMap } from './memory.js';

// What chips are, in words.
const kinds = {
  serial: 'serial port', i8042: 'keyboard controller', rtc: 'clock', debugport: 'debug port', pvpanic: 'panic device', acpi: 'power management',
  'pci-ports': 'PCI, by ports', 'pci-ecam': 'PCI, by memory',
};
const virtioKinds = { 1: 'network', 2: 'disk', 3: 'console', 4: 'random numbers', 5: 'memory balloon', 9: 'shared folder', 19: 'sockets', 27: 'persistent memory' };

export class House {
  constructor(go) {
    this.go = go;
    this.rates = new Rates();
    this.cpus = [];
    this.rooms = new Map();
    this.memory = new MemoryMap(go.memory);
    this.attic = h('div.attic', { role: 'list', 'aria-label': 'CPUs' });
    this.ports = rail('ports', 'port I/O', 'IN and OUT leave the guest: each is an exit');
    this.mmio = rail('mmio', 'memory-mapped I/O', 'loads and stores at a device’s addresses: each is an exit');
    this.irqs = rail('irqs', 'interrupts', 'devices that want the CPU’s attention');
    this.floor = h('div.floor', { role: 'list', 'aria-label': 'Devices' });
    this.yard = h('div.yard', { role: 'list', 'aria-label': 'Devices that nothing has used since the view looks' }, h('span', {}, 'untouched so far:'));
    this.ground = h('dl.ground');
    this.facts = {};
    for (const f of ['accelerator', 'process', 'VMM’s own memory', 'disk', 'network']) {
      const dd = h('dd', {}, '–');
      this.facts[f] = dd;
      this.ground.append(h('div', {}, h('dt', {}, f), dd));
    }
    this.roofText = h('p.rooftext');
    this.e = h('section.house', { 'aria-label': 'The machine', tabIndex: -1, 'data-pane': '' },
      h('div.roof', {}, roof(), this.roofText),
      h('div.walls', {}, this.attic, this.memory.e,
        h('div.corridor', {}, this.ports.e, this.mmio.e, this.irqs.e), this.floor, this.yard),
      h('div.cellar', { 'aria-label': 'Host' }, this.ground));
  }

  close() { this.memory.close(); }

  update(m) {
    if (m.meta) this.#furnish(m.meta);
    if (m.glance) this.#cpus(m.glance, m.functions || []);
    if (m.glance) this.#queues(m.glance);
    if (m.counts) this.#counts(m.counts);
    if (m.pages) this.memory.update(m.pages);
    if (m.stats) this.#host(m.stats);
  }

  #furnish(meta) {
    for (const r of this.rooms.values()) r.e.remove();
    this.rooms.clear();
    const add = (name, what, place, virtio) => {
      if (this.rooms.has(name)) return;
      const r = new Room(name, what, place, virtio, () => this.go.device(name));
      this.rooms.set(name, r);
      (virtio ? this.floor : this.yard).append(r.e);
    };
    const hex = (n) => '0x' + n.toString(16);
    const devices = [...(meta.devices || [])].sort((a, b) => Boolean(b.virtio) - Boolean(a.virtio));
    for (const d of devices) {
      const place = d.base ? `${d.port ? 'port' : 'at'} ${hex(d.base)}` : 'on PCI';
      add(d.name, d.virtio ? virtioKinds[d.virtio] || 'virtio' : kinds[d.type] || d.type, place, Boolean(d.virtio));
    }
    add('', 'nobody lives here', 'other addresses', false);
    text(this.facts.accelerator, { kvm: 'KVM', soft: 'software CPU' }[meta.accel] || meta.accel);
    this.memory.size = meta.memory;
  }

  #cpus(g, functions) {
    const t = Date.parse(g.time) / 1000;
    while (this.cpus.length < g.cpus.length) {
      const c = new CPURoom(this.cpus.length, this.go.cpu);
      this.cpus.push(c);
      this.attic.append(c.e);
    }
    this.attic.classList.toggle('many', g.cpus.length > 4);
    const sum = { io: 0, mmio: 0, all: 0 };
    g.cpus.forEach((c, i) => {
      const by = {};
      for (const [k, v] of Object.entries(c.exits)) {
        if (k === 'interrupted') continue; // by the VMM itself, and mostly for this view
        by[k] = this.rates.of(`cpu ${i} ${k}`, v, t);
        sum.all += by[k];
        if (k in sum) sum[k] += by[k];
      }
      this.cpus[i].update(c, this.rates.of(`cpu ${i}`, c.time / 1e9, t), by, g.paused, functions[i]);
    });
    this.ports.update(sum.io);
    this.mmio.update(sum.mmio);
    text(this.roofText, g.paused ? 'paused' : `${count(sum.all)} exits a second`);
    this.e.classList.toggle('paused', g.paused);
    text(this.facts.process, percent(this.rates.of('process', g.cpuTime / 1e9, t)) + ' of a CPU');
  }

  #queues(g) {
    const t = Date.parse(g.time) / 1000;
    for (const d of g.devices || []) {
      const room = this.rooms.get(d.name);
      if (room) room.queues(d, this.rates, t);
    }
  }

  #counts(c) {
    const t = performance.now() / 1000;
    for (const [name, room] of this.rooms) {
      const d = c.devices[name] || { reads: 0, writes: 0 };
      room.update(this.rates.of(name + ' r', d.reads, t), this.rates.of(name + ' w', d.writes, t),
        this.rates.of(name + ' irq', c.lines[name] || 0, t));
      if (room.e.parentNode === this.yard && d.reads + d.writes + (c.lines[name] || 0) > 0) this.floor.append(room.e);
    }
    const all = Object.values(c.lines).reduce((a, b) => a + b, 0);
    this.irqs.update(this.rates.of('irqs', all, t));
  }

  #host(s) {
    const t = Date.parse(s.time) / 1000, m = s.memory;
    text(this.facts['VMM’s own memory'], bytes(m.own));
    this.memory.host(m);
    const sum = (all, ...keys) => Object.values(all || {}).reduce((n, d) => n + keys.reduce((k, key) => k + d[key], 0), 0);
    text(this.facts.disk, `↓ ${bytes(this.rates.of('disk r', sum(s.disks, 'readBytes'), t))}/s ↑ ${bytes(this.rates.of('disk w', sum(s.disks, 'writtenBytes'), t))}/s`);
    text(this.facts.network, `↓ ${bytes(this.rates.of('net r', sum(s.networks, 'rxBytes'), t))}/s ↑ ${bytes(this.rates.of('net t', sum(s.networks, 'txBytes'), t))}/s`);
  }
}

function roof() {
  return svg('svg', { viewBox: '0 0 100 12', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('path', { d: 'M0 12 L14 1.2 H86 L100 12 Z', class: 'tiles' }), svg('path', { d: 'M0 12 L14 1.2 H86 L100 12', class: 'ridge' }));
}

// rail is a bus: a line on which something moves while there is traffic.
function rail(id, label, tip) {
  const value = h('span.value', {}, '0/s'), line = h('span.line', { 'aria-hidden': 'true' });
  return {
    e: h('div.rail.' + id, { title: tip }, h('span.label', {}, label), line, value),
    update(r) {
      text(value, rate(r));
      const on = r >= 0.5;
      line.classList.toggle('busy', on);
      // Faster for more, in steps: a rate is no speed that one could see.
      if (on) line.dataset.speed = Math.min(4, Math.floor(Math.log10(r + 1)));
    },
  };
}

// Exits whose names are KVM's own.
const exitNames = { 'internal-error': 'completed', hlt: 'HLT' };

const states = { runs: 'runs', halted: 'halted', waits: 'waits', unknown: 'no answer', paused: 'paused' };
const meanings = { runs: 'it executes the guest', halted: 'HLT: it waits for an interrupt', waits: 'for INIT or the start-up IPI', unknown: 'a device holds it up, or it has not begun', paused: 'it stands still' };

const circle = 2 * Math.PI * 15;

class CPURoom {
  constructor(number, go) {
    this.arc = svg('circle', { cx: 18, cy: 18, r: 15, class: 'arc', 'stroke-dasharray': `0 ${circle}` });
    this.share = h('span.share', {}, '–');
    this.state = h('span.pill.small');
    this.mode = h('span.mode');
    this.rip = h('code.rip');
    this.exits = h('span.exits');
    this.e = h('div.room.cpu', { role: 'listitem' },
      h('button', { onclick: () => go(number), title: `vCPU ${number}: registers and code` },
        h('span.dial', {}, svg('svg', { viewBox: '0 0 36 36', 'aria-hidden': 'true' }, svg('circle', { cx: 18, cy: 18, r: 15, class: 'ring' }), this.arc), this.share),
        h('span.about', {}, h('span.name', {}, `vCPU ${number}`, ' ', this.state), this.mode, this.rip, this.exits)));
  }

  update(c, share, exits, paused, name) {
    share = Math.max(0, Math.min(1, share));
    attr(this.arc, 'stroke-dasharray', `${(share * circle).toFixed(1)} ${circle.toFixed(1)}`);
    text(this.share, Math.round(100 * share) + '%');
    const state = paused ? 'paused' : c.state;
    this.state.dataset.state = state;
    text(this.state, states[state] || state);
    attr(this.state, 'title', meanings[state] || '');
    text(this.mode, c.mode ? `${c.mode} · ${c.cpl === 0 ? 'kernel' : 'user'} (CPL ${c.cpl})` : ' ');
    text(this.rip, 'RIP ' + (name || c.rip));
    attr(this.rip, 'title', c.rip);
    const top = Object.entries(exits).filter(([, r]) => r >= 0.5).sort((a, b) => b[1] - a[1]).slice(0, 3);
    text(this.exits, top.length ? top.map(([k, r]) => `${exitNames[k] || k} ${rate(r)}`).join(' · ') : 'no exits');
  }
}

class Room {
  constructor(name, what, place, virtio, go) {
    this.lamp = h('span.lamp', { 'aria-hidden': 'true' });
    this.traffic = h('span.traffic', {}, 'quiet');
    this.bell = h('span.bell');
    this.tanks = h('span.tanks');
    this.tankOf = new Map();
    this.e = h('div.room.device', { role: 'listitem' },
      h('button', { onclick: go, title: `${name || 'addresses without a device'}: ${what}, ${place}. Shows its events.` },
        h('span.name', {}, this.lamp, name || 'empty lot'), h('span.what', {}, what), this.tanks, this.traffic, this.bell));
    this.e.classList.toggle('virtio', virtio);
    this.e.classList.toggle('lot', !name);
    this.virtio = virtio;
  }

  update(reads, writes, irqs) {
    const on = reads + writes + irqs >= 0.3;
    this.lamp.classList.toggle('on', on || Boolean(this.moving));
    text(this.traffic, reads + writes < 0.3 ? (this.virtio ? 'registers quiet' : 'quiet') : `read ${rate(reads)} · write ${rate(writes)}`);
    text(this.bell, irqs >= 0.3 ? `◆ ${rate(irqs)}` : '');
  }

  queues(d, rates, t) {
    let all = 0;
    d.queues.forEach((q, i) => {
      let tank = this.tankOf.get(i);
      if (!q.ready) { if (tank) tank.e.hidden = true; return; }
      if (!tank) {
        tank = new Tank(q.purpose);
        this.tankOf.set(i, tank);
        this.tanks.append(tank.e);
      }
      tank.e.hidden = false;
      const r = rates.of(`${d.name} ${i}`, q.chains, t);
      all += r;
      tank.update(q, r);
    });
    this.moving = all >= 0.3;
    this.e.classList.toggle('broken', Boolean(d.error));
  }
}

// Tank is a virtqueue: what the driver has offered, and what the device works
// on, of its size.
class Tank {
  constructor(purpose) {
    this.offered = h('span.offered');
    this.flight = h('span.flight');
    this.rate = h('span.rate');
    this.e = h('span.tank', {}, h('span.purpose', {}, purpose), h('span.glass', {}, this.flight, this.offered), this.rate);
  }

  update(q, r) {
    this.offered.style.width = `${(100 * q.offered / q.size).toFixed(1)}%`;
    this.flight.style.width = `${(100 * q.inFlight / q.size).toFixed(1)}%`;
    this.e.title = `${q.purpose}: ${q.offered} offered by the driver, ${q.inFlight} in the device, of ${q.size}; ${q.chains} requests done, ` +
      `${q.kicks} notifications, ${q.interrupts} interrupts, ${q.suppressed} that the driver did not want`;
    text(this.rate, rate(r));
  }
}
