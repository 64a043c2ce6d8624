// Numbers for people.

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(n) {
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return `${n >= 100 || i === 0 || Number.isInteger(n) ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

// count is a number with three digits: 12, 1.2k, 45k, 1.2M.
export function count(n) {
  if (n < 1000) return n >= 10 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
  if (n < 1e6) return (n < 1e4 ? (n / 1e3).toFixed(1) : Math.round(n / 1e3)) + 'k';
  if (n < 1e9) return (n < 1e7 ? (n / 1e6).toFixed(1) : Math.round(n / 1e6)) + 'M';
  return (n / 1e9).toFixed(1) + 'G';
}

export const rate = (n) => (n < 0.05 ? '0/s' : count(n) + '/s');
export const percent = (f) => (f < 0.0995 ? (100 * f).toFixed(1) : Math.round(100 * f)) + ' %';

// span is a duration in nanoseconds.
export function span(ns) {
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  if (ns < 1e6) return `${(ns / 1e3).toFixed(1)} µs`;
  if (ns < 1e9) return `${(ns / 1e6).toFixed(1)} ms`;
  if (ns < 60e9) return `${(ns / 1e9).toFixed(1)} s`;
  const s = Math.round(ns / 1e9), m = Math.floor(s / 60);
  return m < 60 ? `${m} min ${s % 60} s` : `${Math.floor(m / 60)} h ${m % 60} min`;
}

export const seconds = (ns) => (ns / 1e9).toFixed(6);

// Rates turns counters that only grow into rates, smoothed over a second or so.
export class Rates {
  #last = new Map();

  // of takes the counter key, which was value at time t (in seconds).
  of(key, value, t) {
    const old = this.#last.get(key);
    if (!old || value < old.value) {
      this.#last.set(key, { value, t, rate: 0 });
      return 0;
    }
    const dt = t - old.t;
    if (dt < 0.02) return old.rate;
    const now = (value - old.value) / dt, weight = Math.min(1, dt / 0.6);
    let smooth = old.rate + (now - old.rate) * weight;
    if (now === 0 && smooth < 0.5) smooth = 0;
    this.#last.set(key, { value, t, rate: smooth });
    return smooth;
  }
}
