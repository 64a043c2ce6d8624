// Guest memory as a floor of tiles.
import { h, text, fit, color } from './dom.js';
import { bytes } from './format.js';

const page = 4096;

export class MemoryMap {
  constructor(open) {
    this.canvas = h('canvas', { role: 'img' });
    this.figures = h('span.figures');
    this.tip = h('span.tip', { hidden: true });
    const key = (cls, label) => h('span.key', {}, h('i.' + cls), label);
    this.e = h('div.memory', {},
      h('div.head', {}, h('button.plain', { onclick: open, title: 'Page tables' }, 'Guest memory'), this.figures),
      h('div.tiles', {}, this.canvas, this.tip),
      h('div.legend', {}, key('untouched', 'untouched'), key('own', 'its own pages'), key('shared', 'shared with a file'), key('written', 'written just now')));
    this.canvas.addEventListener('mousemove', (e) => this.#hover(e));
    this.canvas.addEventListener('mouseleave', () => { this.tip.hidden = true; });
    this.redraw = () => this.draw();
    window.addEventListener('resize', this.redraw);
    window.addEventListener('themechange', this.redraw);
    this.regions = [];
    this.heat = new Map();
  }

  close() {
    window.removeEventListener('resize', this.redraw);
    window.removeEventListener('themechange', this.redraw);
  }

  host(m) { this.resident = m.guestPSS; }

  update(regions) {
    this.regions = regions;
    let own = 0, shared = 0, written = 0, all = 0;
    for (const r of regions) {
      for (const [i, s] of r.stretches.entries()) {
        own += s.own; shared += s.shared; written += s.written; all += s.pages;
        const k = r.base + ':' + i;
        this.heat.set(k, s.written ? 1 : (this.heat.get(k) || 0) * 0.5);
      }
    }
    const s = `${bytes(own * page)} of its own · ${bytes(shared * page)} shared · ${bytes(written * page)} written since the last look · of ${bytes(all * page)}`;
    text(this.figures, s);
    this.figures.title = s;
    this.canvas.setAttribute('aria-label', 'Guest memory: ' + s);
    this.draw();
  }

  // layout places the tiles: all regions one after the other, in rows.
  #layout(w, hgt) {
    const n = this.regions.reduce((k, r) => k + r.stretches.length, 0) || 1;
    let side = Math.floor(Math.sqrt(w * hgt / n));
    while (side > 2 && Math.floor(w / side) * Math.floor(hgt / side) < n) side--;
    const columns = Math.max(1, Math.floor(w / side));
    return { n, columns, sw: w / columns, sh: Math.min(side * 1.6, hgt / Math.ceil(n / columns)) };
  }

  draw() {
    if (!this.canvas.isConnected) return;
    const { c, w, h: hgt } = fit(this.canvas);
    const l = this.lay = this.#layout(w, hgt);
    const colors = { own: color('own'), shared: color('shared'), written: color('written'), empty: color('tile') };
    let i = 0;
    for (const r of this.regions) {
      for (const [j, s] of r.stretches.entries()) {
        const x = (i % l.columns) * l.sw, y = Math.floor(i / l.columns) * l.sh;
        tile(c, x, y, l.sw - 1, l.sh - 1, s, this.heat.get(r.base + ':' + j) || 0, colors);
        i++;
      }
    }
  }

  #hover(e) {
    const l = this.lay;
    if (!l) return;
    let i = Math.floor(e.offsetY / l.sh) * l.columns + Math.floor(e.offsetX / l.sw);
    for (const r of this.regions) {
      if (i < r.stretches.length) {
        const s = r.stretches[i], at = r.base + i * r.stretch;
        text(this.tip, `${r.kind} 0x${at.toString(16)} + ${bytes(s.pages * page)}: ${s.own} pages of its own, ${s.shared} shared, ${s.written} written, of ${s.pages}`);
        this.tip.hidden = false;
        return;
      }
      i -= r.stretches.length;
    }
    this.tip.hidden = true;
  }
}

// tile draws a stretch of memory. Kinds differ by shape too: own pages fill
// from below, shared ones are hatched, written ones have a corner.
function tile(c, x, y, w, hgt, s, heat, colors) {
  c.fillStyle = colors.empty;
  c.fillRect(x, y, w, hgt);
  if (s.shared) {
    c.save();
    c.beginPath();
    c.rect(x, y, w, hgt);
    c.clip();
    c.globalAlpha = 0.35 + 0.65 * s.shared / s.pages;
    c.strokeStyle = colors.shared;
    c.lineWidth = 1.4;
    c.beginPath();
    for (let d = -hgt; d < w; d += 4) { c.moveTo(x + d, y + hgt); c.lineTo(x + d + hgt, y); }
    c.stroke();
    c.restore();
  }
  if (s.own) {
    const k = Math.max(0.15, s.own / s.pages);
    c.globalAlpha = 0.45 + 0.55 * k;
    c.fillStyle = colors.own;
    c.fillRect(x, y + hgt * (1 - k), w, hgt * k);
  }
  if (heat > 0.1) {
    const k = Math.min(w, hgt) * 0.75;
    c.globalAlpha = heat;
    c.fillStyle = colors.written;
    c.beginPath();
    c.moveTo(x + w, y);
    c.lineTo(x + w - k, y);
    c.lineTo(x + w, y + k);
    c.fill();
  }
  c.globalAlpha = 1;
}
