// The first view: every cluster as a row, with examples, size and quality; columns sort.

const measures = [
  { key: "size", word: "Samples", show: c => whole.format(c.size), bar: c => c.size / Math.max(...Data.clusters.map(d => d.size)) },
  { key: "certainty", word: Data.certaintyWord, show: c => percent(c.certainty), bar: c => c.certainty,
    about: Data.probability ? "Mean probability that its samples have in it." : "Mean share of a sample’s edges, by weight, inside the cluster." },
  { key: "cohesion", word: "Cohesion", show: c => percent(c.cohesion), bar: c => c.cohesion,
    about: "Share of the cluster’s edges, by weight, that stay inside it." },
  { key: "silhouette", word: "Silhouette", show: c => decimal(c.silhouette), bar: c => Math.max(0, c.silhouette),
    about: "From −1 to 1: how much nearer its samples are to each other than to the next cluster." },
].filter(m => Data.clusters.some(c => !missing(c[m.key])));

const Clusters = (() => {
  let sorting = { key: "size", descending: true };

  function sorted() {
    const keys = Data.clusters.map((_, k) => k);
    const value = k => (sorting.key === "name" ? Data.clusterName(k) : Data.clusters[k][sorting.key]);
    keys.sort((a, b) => {
      if (Data.clusters[a].noise !== Data.clusters[b].noise) return Data.clusters[a].noise ? 1 : -1;
      const [x, y] = [value(a), value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const difference = sorting.key === "name" ? collator.compare(x, y) : x - y;
      return (sorting.descending ? -difference : difference) || a - b;
    });
    return keys;
  }

  function lead() {
    const real = Data.clusters.map((_, k) => k).filter(k => !Data.clusters[k].noise);
    const rest = Data.n - real.reduce((sum, k) => sum + Data.clusters[k].size, 0);
    const weakest = real.filter(k => !missing(Data.clusters[k].cohesion))
      .sort((a, b) => Data.clusters[a].cohesion - Data.clusters[b].cohesion)[0];
    return el("p", { class: "lead" },
      `${count(Data.n, "sample")} in ${count(real.length, "cluster")}`,
      rest ? `, ${count(rest, "sample")} in none` : "", ". ",
      missing(Data.inside) ? null : `${percent(Data.inside)} of the sample graph’s edges, by weight, stay inside a cluster. `,
      weakest !== undefined && real.length > 1
        ? ["Least held together: ", clusterLink(weakest), ` at ${percent(Data.clusters[weakest].cohesion)}.`] : null);
  }

  function meter(m, cluster) {
    const share = missing(cluster[m.key]) ? 0 : m.bar(cluster);
    return el("td", { class: "measure", "data-word": m.word },
      el("span", { class: "value" }, m.show(cluster)),
      el("span", { class: "meter", "aria-hidden": "true" }, el("span", { style: { width: `${100 * share}%` } })));
  }

  function row(k, watch) {
    const cluster = Data.clusters[k];
    const examples = Data.images ? el("canvas", { class: "strip", "data-strip": k, "aria-hidden": "true" })
      : el("span", { class: "examples" }, cluster.representative.slice(0, 4).map(i => el("bdi", {}, Data.name(i))));
    if (Data.images) watch(examples);
    return el("tr", { onclick: event => { if (!event.target.closest("a")) location.hash = `#cluster/${k}`; } },
      el("th", { scope: "row" }, el("a", { href: `#cluster/${k}` }, badge(k), el("bdi", { class: "name" }, Data.clusterName(k)))),
      el("td", { class: "sight" }, examples),
      measures.map(m => meter(m, cluster)));
  }

  function view() {
    const size = Data.images ? (Data.sheets.pixelated ? 44 : 60) : 0;
    const draw = node => {
      const width = node.parentElement.clientWidth;
      if (Number(node.dataset.width) === width) return;
      node.dataset.width = width;
      Thumbnails.strip(node, Number(node.dataset.strip), width, size, 6);
    };
    const seen = new IntersectionObserver(entries => {
      for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
    }, { rootMargin: "400px" });
    const body = el("tbody");
    const heads = new Map();

    function update() {
      seen.disconnect();
      body.replaceChildren(...sorted().map(k => row(k, node => seen.observe(node))));
      for (const [key, head] of heads) {
        head.setAttribute("aria-sort", key !== sorting.key ? "none" : sorting.descending ? "descending" : "ascending");
      }
      chooser.value = sorting.key;
      turn.textContent = sorting.descending ? "↓" : "↑";
      turn.setAttribute("aria-label", sorting.descending ? "Largest first. Turn round" : "Smallest first. Turn round");
    }
    function by(key) {
      sorting = key === sorting.key ? { key, descending: !sorting.descending } : { key, descending: key !== "name" };
      update();
    }
    function head(key, word, about) {
      const node = el("th", { scope: "col", class: key === "name" ? "" : "measure" },
        el("button", { type: "button", title: about, onclick: () => by(key) }, word));
      heads.set(key, node);
      return node;
    }
    const chooser = el("select", { oninput: () => by(chooser.value) },
      el("option", { value: "name" }, "Name"), measures.map(m => el("option", { value: m.key }, m.word)));
    const turn = el("button", { type: "button", class: "icon", onclick: () => by(sorting.key) });
    const table = el("table", { class: "clusters" },
      el("thead", {}, el("tr", {}, head("name", "Cluster"), el("th", { scope: "col", class: "sight" }, "Most typical"),
        measures.map(m => head(m.key, m.word, m.about)))),
      body);
    update();
    addEventListener("resize", () => table.querySelectorAll("canvas[data-width]").forEach(draw), { signal: Router.signal });
    return el("div", { class: "page" },
      el("h2", { class: "hidden", tabindex: -1 }, "Clusters"), lead(),
      el("div", { class: "sorter" }, el("label", {}, "Sort by ", chooser), turn), table);
  }
  return { view, sorted };
})();
