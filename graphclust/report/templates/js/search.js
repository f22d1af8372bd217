// By name, and by image: what the sample graph holds to be like a sample.

const Search = (() => {
  let lowered = null;

  function byName(words) {
    lowered ??= Array.from({ length: Data.n }, (_, i) => Data.name(i).toLowerCase());
    const parts = words.toLowerCase().split(/\s+/).filter(Boolean);
    const has = text => parts.every(part => text.includes(part));
    const items = [];
    // Cluster by cluster, as the thumbnails lie.
    for (const i of Data.order) if (has(lowered[i])) items.push(i);
    const clusters = Data.clusters.map((_, k) => k)
      .filter(k => has(Data.clusterName(k).toLowerCase()) || parts.join(" ") === Data.clusters[k].label.toLowerCase());
    return { items, clusters };
  }

  // Three steps of a random walk from the sample along the graph's edges; where it is most often is most alike.
  function alike(i, most = 120) {
    const score = new Map();
    let front = new Map([[i, 1]]);
    for (const weight of [1, 0.5, 0.25]) {
      const next = new Map();
      for (const [j, share] of front) {
        const neighbors = Data.neighborsOf(j);
        // Nearer neighbours are taken more often.
        const total = neighbors.reduce((sum, _, rank) => sum + 1 / (rank + 2), 0);
        neighbors.forEach((k, rank) => next.set(k, (next.get(k) || 0) + share / (rank + 2) / total));
      }
      for (const [j, share] of next) score.set(j, (score.get(j) || 0) + weight * share);
      front = next;
    }
    score.delete(i);
    const direct = Data.neighborsOf(i);
    const rest = [...score.keys()].filter(j => !direct.includes(j)).sort((a, b) => score.get(b) - score.get(a));
    return [...direct, ...rest].slice(0, most);
  }

  function view(words) {
    const { items, clusters } = byName(words);
    announce(`${count(items.length, "sample")} found`);
    return el("div", { class: "page" },
      el("div", { class: "heading" }, el("h2", { tabindex: -1 }, el("span", {}, "Search:"), el("bdi", {}, words))),
      clusters.length ? el("p", { class: "near" }, el("span", { class: "soft" }, "Clusters "),
        clusters.slice(0, 40).map(k => [el("a", { class: "cluster-link wide", href: `#cluster/${k}` }, badge(k), el("bdi", {}, Data.clusterName(k))), " "])) : null,
      items.length ? sortedGallery({ items, label: "Samples", mixed: true, firstWord: "Cluster" })
        : el("p", { class: "empty" }, "No sample has a name with this in it."));
  }

  function alikeView(i) {
    return el("div", { class: "page" },
      el("div", { class: "crumbs" }, el("a", { href: `#cluster/${Data.code[i]}` }, Data.clusterName(Data.code[i]))),
      el("div", { class: "heading" }, Data.images ? el("button", { class: "tile lone", type: "button", "aria-label": Data.name(i),
        onclick: () => Router.openSample(i) }, Thumbnails.canvas(i, 96)) : null,
        el("h2", { tabindex: -1 }, el("span", {}, "More like"), el("bdi", {}, Data.name(i)))),
      el("p", { class: "soft" }, "Neighbours in the sample graph first, then the neighbours of those."),
      gallery({ items: alike(i), label: "More like this", mixed: true }));
  }

  return { byName, alike, view, alikeView };
})();
