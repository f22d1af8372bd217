// Rows of which only those in sight exist, so that 100,000 samples scroll like a hundred.

function virtualRows({ rows, height, render }) {
  const root = el("div", { class: "rows", style: { height: `${rows * height}px` } });
  const live = new Map();
  const view = { root, pinned: -1 };

  view.update = () => {
    if (!root.isConnected) return;
    const top = root.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor((-top - 300) / height));
    const to = Math.min(rows - 1, Math.ceil((innerHeight - top + 300) / height));
    for (const [row, node] of live) {
      if ((row < from || row > to) && row !== view.pinned) {
        node.remove();
        live.delete(row);
      }
    }
    for (let row = from; row <= to; row++) view.show(row);
    if (view.pinned >= 0 && view.pinned < rows) view.show(view.pinned);
  };

  view.show = row => {
    if (live.has(row)) return live.get(row);
    const node = render(row);
    node.classList.add("row");
    node.style.height = `${height}px`;
    node.style.transform = `translateY(${row * height}px)`;
    // In the document in their order, for those who hear or tab through it.
    let after = null;
    let least = Infinity;
    for (const [other, element] of live) if (other > row && other < least) [least, after] = [other, element];
    root.insertBefore(node, after);
    live.set(row, node);
    return node;
  };

  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; view.update(); });
  };
  addEventListener("scroll", soon, { passive: true, signal: Router.signal });
  addEventListener("resize", soon, { passive: true, signal: Router.signal });
  return view;
}

// Samples as a grid of thumbnails (or of names, where there are no images).
//   items: sample numbers; label: what a screen reader calls the grid; mixed: say each one's cluster;
//   caption: a line below a sample; lines: show so many rows only.
function gallery({ items, label, mixed = false, caption = null, lines = Infinity }) {
  const root = el("div", { class: `gallery ${Data.images ? "" : "textual"}`, role: "list", "aria-label": label });
  const least = Data.images ? (Data.sheets.pixelated ? 68 : 100) : 200;
  const gap = Data.images ? 10 : 8;
  let columns = 0;
  let side = 0;
  let shown = 0;
  let active = 0;
  let view = null;

  function tile(position) {
    const i = items[position];
    const words = [Data.name(i)];
    if (mixed) words.push(Data.clusterName(Data.code[i]));
    words.push(`${Data.certaintyWord.toLowerCase()} ${percent(Data.certaintyOf(i))}`);
    const line = caption ? caption(i) : null;
    const button = el("button",
      { class: "tile", type: "button", tabindex: position === active ? 0 : -1, "data-place": position,
        "data-sample": i, "aria-label": words.join(", "), title: Data.name(i) },
      Data.images ? Thumbnails.canvas(i, side) : el("bdi", { class: "text" }, Data.name(i)),
      mixed ? badge(Data.code[i], "small") : null);
    return el("div", { class: "cell", role: "listitem", "aria-setsize": items.length, "aria-posinset": position + 1,
      style: { width: `${side}px` } }, button, line ? el("div", { class: "caption" }, line) : null);
  }

  function build() {
    const width = root.clientWidth;
    if (!width) return;
    const before = columns;
    // A phone shows at least three side by side.
    const wanted = Data.images ? Math.min(least, (width - 2 * gap) / 3) : Math.min(least, width);
    columns = Math.max(1, Math.floor((width + gap) / (wanted + gap)));
    const newSide = Math.floor((width - gap * (columns - 1)) / columns);
    if (columns === before && newSide === side) return;
    side = newSide;
    shown = Math.min(items.length, columns * lines);
    view = virtualRows({
      rows: Math.ceil(shown / columns),
      height: (Data.images ? side : 34) + gap + (caption ? 26 : 0),
      render: row => el("div", { role: "presentation" },
        Array.from({ length: Math.min(columns, shown - row * columns) }, (_, c) => tile(row * columns + c))),
    });
    // Even out of sight, so that the Tab key finds the way in.
    view.pinned = Math.floor(active / columns);
    root.replaceChildren(view.root);
    view.update();
  }

  function focus(position) {
    const old = root.querySelector(`[data-place="${active}"]`);
    if (old) old.tabIndex = -1;
    active = Math.max(0, Math.min(shown - 1, position));
    view.pinned = Math.floor(active / columns);
    const button = view.show(view.pinned).querySelector(`[data-place="${active}"]`);
    button.tabIndex = 0;
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "nearest" });
    view.update();
  }

  root.addEventListener("keydown", event => {
    const page = columns * Math.max(1, Math.floor(innerHeight / (side + gap)) - 1);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page,
      Home: -active, End: shown - 1 - active };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    focus(active + moves[event.key]);
  });
  root.addEventListener("focusin", event => {
    const button = event.target.closest(".tile");
    if (!button || Number(button.dataset.place) === active) return;
    const old = root.querySelector(`[data-place="${active}"]`);
    if (old) old.tabIndex = -1;
    active = Number(button.dataset.place);
    button.tabIndex = 0;
    view.pinned = Math.floor(active / columns);
  });
  root.addEventListener("click", event => {
    const button = event.target.closest(".tile");
    if (button) Router.openSample(Number(button.dataset.sample), items);
  });
  new ResizeObserver(build).observe(root);
  root.build = build;
  return root;
}

// A gallery with what narrows and sorts it above.
function sortedGallery({ items, label, mixed = false, first = "typical", firstWord = "Most typical" }) {
  const host = el("div", {});
  const total = el("span", { class: "soft", "aria-live": "polite" });
  const sorts = {
    typical: [firstWord, null],
    uncertain: ["Least certain", (a, b) => Data.margin[a] - Data.margin[b]],
    outlying: ["Most outlying", (a, b) => Data.outlying[b] - Data.outlying[a]],
    name: ["Name", (a, b) => collator.compare(Data.name(a), Data.name(b))],
  };
  const filters = {
    all: ["All", () => true],
    borderline: ["Borderline: margin below 20%", i => Data.marginOf(i) < 0.2],
    outlying: ["Outlying: the outermost 5% of all", i => Data.outlyingOf(i) >= 0.95],
    ...(Data.duplicate ? { duplicates: ["Near-duplicates", i => Data.duplicate[i] >= 0] } : {}),
  };
  const options = table => Object.entries(table).map(([value, [text]]) => el("option", { value }, text));
  const sort = el("select", {}, options(sorts));
  const filter = el("select", {}, options(filters));
  const text = el("input", { type: "search", placeholder: "Name contains", dir: "auto", autocomplete: "off" });
  sort.value = first;
  let found = items;

  function update() {
    const wanted = text.value.trim().toLowerCase();
    const keep = filters[filter.value][1];
    found = Array.from(items).filter(i => keep(i) && (!wanted || Data.name(i).toLowerCase().includes(wanted)));
    const compare = sorts[sort.value][1];
    if (compare) found.sort(compare);
    total.textContent = found.length === items.length ? count(items.length, "sample")
      : `${whole.format(found.length)} of ${count(items.length, "sample")}`;
    host.replaceChildren(found.length ? gallery({ items: found, label, mixed })
      : el("p", { class: "empty" }, "No sample is left. Choose “All” or clear the name."));
    host.firstChild.build?.();
  }
  for (const control of [sort, filter, text]) control.addEventListener("input", update);
  update();
  return el("section", { class: "all", "aria-label": label },
    el("div", { class: "toolbar" },
      el("h3", {}, label), total, el("span", { class: "grow" }),
      el("label", {}, "Show ", filter), el("label", {}, "Sort by ", sort),
      el("label", {}, el("span", { class: "hidden" }, "Name contains"), text),
      el("button", { type: "button", class: "quiet", onclick: () => downloadTable(found) }, "Save as CSV")),
    host);
}

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
