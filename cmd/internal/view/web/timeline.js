// The time line: how much of what happened when, of all events that are kept.
import { h, fit, color, attr, text } from './dom.js';
import { count, span } from './format.js';

const classes = ['access', 'cpu', 'queue', 'signal'];
const labels = ['■ accesses', '● CPU', '▲ requests', '◆ interrupts'];

export class Timeline {
  constructor(choose) {
    this.choose = choose;
    this.canvas = h('canvas');
    this.from = h('span.from');
    this.to = h('span.to', {}, 'now');
    this.tip = h('span.tip', { hidden: true });
    this.slider = h('div.track', {
      role: 'slider', tabIndex: 0, 'aria-label': 'Time line: what is kept of the past', 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': 100,
      onkeydown: (e) => this.#keys(e),
    }, this.canvas, this.tip);
    this.e = h('div.timeline', {}, this.from, this.slider, this.to,
      h('span.legend', { 'aria-hidden': 'true' }, labels.map((l, i) => h('span.key', {}, h('i.mark.' + (classes[i] === 'cpu' ? 'own' : classes[i]), {}, l[0]), l.slice(1)))));
    this.data = { from: 0, to: 0, buckets: [] };
    this.at = null;
    this.slider.addEventListener('pointerdown', (e) => { this.slider.setPointerCapture(e.pointerId); this.drag = true; this.#point(e); });
    this.slider.addEventListener('pointermove', (e) => { this.#hover(e); if (this.drag) this.#point(e); });
    this.slider.addEventListener('pointerup', () => { this.drag = false; });
    this.slider.addEventListener('pointerleave', () => { this.tip.hidden = true; });
    this.redraw = () => this.draw();
    window.addEventListener('resize', this.redraw);
    window.addEventListener('themechange', this.redraw);
  }

  close() {
    window.removeEventListener('resize', this.redraw);
    window.removeEventListener('themechange', this.redraw);
  }

  update(t) {
    this.data = t;
    text(this.from, t.to > t.from ? '−' + span(t.to - t.from) : '');
    this.#value();
    this.draw();
  }

  // mark shows where in the past one is; null is now.
  mark(t) {
    this.at = t;
    this.#value();
    this.draw();
  }

  #value() {
    const { from, to } = this.data, f = this.at === null || to <= from ? 1 : (this.at - from) / (to - from);
    attr(this.slider, 'aria-valuenow', Math.round(100 * Math.max(0, Math.min(1, f))));
    attr(this.slider, 'aria-valuetext', this.at === null ? 'now' : `${span(Math.max(0, to - this.at))} ago`);
  }

  #time(e) {
    const f = Math.max(0, Math.min(1, e.offsetX / Math.max(1, this.slider.clientWidth)));
    return this.data.from + f * (this.data.to - this.data.from);
  }

  #point(e) {
    const t = this.#time(e), now = performance.now();
    this.mark(t);
    if (this.last && now - this.last < 120) return;
    this.last = now;
    this.choose(t);
  }

  #hover(e) {
    const { from, to, buckets } = this.data;
    if (!buckets.length || to <= from) return;
    const i = Math.min(buckets.length - 1, Math.floor(buckets.length * e.offsetX / this.slider.clientWidth)), b = buckets[i];
    if (!b) return;
    text(this.tip, `${span(to - this.#time(e))} ago: ` + (labels.map((l, k) => b[k] && `${count(b[k])} ${l.slice(2)}`).filter(Boolean).join(', ') || 'nothing'));
    this.tip.hidden = false;
  }

  #keys(e) {
    const { from, to } = this.data, stepBy = (to - from) / (e.shiftKey ? 20 : 200), at = this.at ?? to;
    const next = { ArrowLeft: at - stepBy, ArrowRight: at + stepBy, Home: from, End: to - stepBy, PageUp: at - 10 * stepBy, PageDown: at + 10 * stepBy }[e.key];
    if (next === undefined) return;
    e.preventDefault();
    const t = Math.max(from, Math.min(to, next));
    this.mark(t);
    this.choose(t);
  }

  draw() {
    if (!this.canvas.isConnected) return;
    const { c, w, h: hgt } = fit(this.canvas), { from, to, buckets } = this.data;
    if (buckets.length) {
      const fills = classes.map((k) => color('c-' + k)), bw = w / buckets.length;
      const top = Math.log2(2 + Math.max(1, ...buckets.map((b) => b[0] + b[1] + b[2] + b[3])));
      buckets.forEach((b, i) => {
        const sum = b[0] + b[1] + b[2] + b[3];
        if (!sum) return;
        const full = (hgt - 2) * Math.log2(1 + sum) / top;
        let y = hgt;
        for (let k = 0; k < 4; k++) {
          if (!b[k]) continue;
          const part = Math.max(1.5, full * b[k] / sum);
          c.fillStyle = fills[k];
          c.fillRect(i * bw, y - part, Math.max(1, bw - 0.6), part);
          y -= part;
        }
      });
    }
    if (this.at !== null && to > from) {
      const x = Math.max(1, Math.min(w - 1, w * (this.at - from) / (to - from)));
      c.fillStyle = color('ink');
      c.fillRect(x - 1, 0, 2, hgt);
      c.beginPath();
      c.moveTo(x - 5, 0); c.lineTo(x + 5, 0); c.lineTo(x, 7);
      c.fill();
    }
  }
}
