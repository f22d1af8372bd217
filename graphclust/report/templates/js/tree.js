// The tree of clusters: joined where most edges run between them.

const Tree = (() => {
  function view() {
    const { merges, order } = Data.tree;
    const leaves = order.length;
    const row = Data.images ? 52 : 36;
    const width = Math.min(innerWidth < 640 ? 120 : 420, 60 + 30 * leaves);
    const linked = merges.filter(m => !m[3]).map(m => m[2]);
    // Pairs that no edge joins have no height; they are drawn beyond all others.
    const top = linked.length ? Math.max(...linked, 1e-9) : 1;
    const beyond = merges.some(m => m[3]) ? 1.25 : 1;
    const x = merge => 14 + (width - 24) * (1 - (merge[3] ? beyond : merge[2] / top) / beyond);

    const nodes = order.map(() => null);
    order.forEach((k, place) => { nodes[k] = { x: width, y: (place + 0.5) * row, keys: [k] }; });
    const lines = [];
    const knots = [];
    merges.forEach((merge, step) => {
      const [a, b] = [nodes[merge[0]], nodes[merge[1]]];
      const node = { x: Math.min(x(merge), a.x - 2, b.x - 2), y: (a.y + b.y) / 2, keys: [...a.keys, ...b.keys], merge };
      nodes[leaves + step] = node;
      lines.push(svg("path", { class: merge[3] ? "unlinked" : "", d: `M${a.x} ${a.y}H${node.x}V${b.y}H${b.x}` }));
      knots.push(node);
    });

    const rows = order.map(k => {
      const strip = Data.images ? el("canvas", { class: "strip", "aria-hidden": "true" }) : null;
      if (strip) Thumbnails.strip(strip, k, innerWidth < 640 ? 90 : Math.max(180, Math.min(560, innerWidth - width - 340)), 40, 4);
      return el("li", { style: { height: `${row}px` } }, el("a", { href: `#cluster/${k}` }, badge(k), strip,
        el("bdi", { class: "name" }, Data.clusterName(k)), el("span", { class: "soft" }, whole.format(Data.clusters[k].size))));
    });

    const drawing = svg("svg", { width, height: leaves * row, viewBox: `0 0 ${width} ${leaves * row}`, role: "group",
      "aria-label": "Where clusters join, from the root on the left" }, lines);
    for (const node of knots.reverse()) {
      const size = node.keys.reduce((sum, k) => sum + Data.clusters[k].size, 0);
      const weight = node.merge[3] ? "no edges between the two sides" : `mean edge weight between the two sides e^−${node.merge[2].toFixed(1)}`;
      const text = `${count(node.keys.length, "cluster")}, ${count(size, "sample")}; ${weight}`;
      const open = () => { location.hash = `#group/${node.keys.join(",")}`; };
      const mark = on => {
        for (const k of node.keys) rows[order.indexOf(k)].classList.toggle("within", on);
        note.textContent = on ? text : resting;
      };
      drawing.append(svg("g", { class: "knot", tabindex: 0, role: "link", "aria-label": text, onclick: open,
        onkeydown: event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } },
        onfocus: () => mark(true), onblur: () => mark(false), onmouseenter: () => mark(true), onmouseleave: () => mark(false) },
        svg("circle", { cx: node.x, cy: node.y, r: 12, class: "reach" }), svg("circle", { cx: node.x, cy: node.y, r: 4.5 })));
    }
    const resting = "Open a joint to look at all that it holds.";
    const note = el("p", { class: "soft note" }, resting);
    return el("div", { class: "page" },
      el("h2", { tabindex: -1 }, "Tree of clusters"),
      el("p", { class: "soft" }, "Clusters whose samples share the heaviest edges of the graph join first, on the right."),
      note,
      el("div", { class: "tree" }, drawing, el("ol", { class: "leaves" }, rows)));
  }
  return { view };
})();
