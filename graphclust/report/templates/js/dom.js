// Elements are made by calls and text is set as text: what comes from the data never becomes markup.

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

function fill(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, v] of Object.entries(value)) node.style.setProperty(property, v);
    else node.setAttribute(name, value === true ? "" : value);
  }
  return node;
}

const el = (tag, attributes = {}, ...children) => append(fill(document.createElement(tag), attributes), children);

const svg = (tag, attributes = {}, ...children) =>
  append(fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes), children);

const byId = id => document.getElementById(id);

const whole = new Intl.NumberFormat("en");
const count = (n, one, many = one + "s") => `${whole.format(n)} ${n === 1 ? one : many}`;
const missing = value => value === null || value === undefined;
const percent = value => (missing(value) ? "–" : `${(100 * value).toFixed(value > 0 && value < 0.0995 ? 1 : 0)}%`);
const decimal = value => (missing(value) ? "–" : value.toFixed(2).replace("-", "−"));

// Read out by screen readers.
function announce(text) {
  byId("status").textContent = text;
}

// A person's own settings and names; a browser may forbid the store to pages from the disk.
const store = {
  get(key) {
    try { return localStorage.getItem(key); } catch { return null; }
  },
  set(key, value) {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, value);
    } catch { /* kept for this visit alone */ }
  },
};
