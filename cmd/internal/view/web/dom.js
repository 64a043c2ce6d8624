// Small helpers for making and changing elements.

// h makes an element: h('p.note', {title: 'x'}, 'text', child).
export function h(what, props, ...children) {
  const [tag, ...classes] = what.split('.');
  const e = document.createElement(tag || 'div');
  if (classes.length) e.className = classes.join(' ');
  return fill(set(e, props), children);
}

// svg makes an element of a drawing.
export function svg(tag, attributes, ...children) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
  return fill(e, children);
}

function set(e, props) {
  for (const [k, v] of Object.entries(props || {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
    else if (k in e && k !== 'list' && k !== 'role') e[k] = v;
    else e.setAttribute(k, v === true ? '' : v);
  }
  return e;
}

function fill(e, children) {
  for (const c of children.flat()) if (c !== null && c !== undefined && c !== false) e.append(c);
  return e;
}

// text changes an element's text, where it is another.
export function text(e, s) {
  if (e.firstChild && e.firstChild.nodeType === Node.TEXT_NODE && !e.firstChild.nextSibling) {
    if (e.firstChild.data !== s) e.firstChild.data = s;
  } else if (e.textContent !== s) {
    e.textContent = s;
  }
}

// attr changes an attribute, where it is another.
export function attr(e, name, value) {
  const s = String(value);
  if (e.getAttribute(name) !== s) e.setAttribute(name, s);
}

// color is a colour of the theme, for canvases.
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

// fit gives a canvas the pixels of its size on the screen, and returns its
// context with CSS pixels as units.
export function fit(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const w = canvas.clientWidth, hgt = canvas.clientHeight;
  const pw = Math.max(1, Math.round(w * ratio)), ph = Math.max(1, Math.round(hgt * ratio));
  if (canvas.width !== pw || canvas.height !== ph) { canvas.width = pw; canvas.height = ph; }
  const c = canvas.getContext('2d');
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, w, hgt);
  return { c, w, h: hgt };
}
