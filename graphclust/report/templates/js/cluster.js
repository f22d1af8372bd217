// One cluster, or several together: examples of three kinds, then everything in it.

const Cluster = (() => {
  // Representatives, borderline and outlying samples, a line or two of each.
  function section(word, about, items, caption) {
    if (!items.length) return null;
    return el("section", { class: "kind", "aria-label": word },
      el("h3", {}, word), el("p", { class: "soft" }, about),
      gallery({ items, label: word, caption, lines: Data.images ? (innerWidth < 640 ? 2 : 1) : 2 }));
  }

  function rival(i) {
    const second = Data.secondOf(i);
    if (second === null) return null;
    return [badge(second, "small"), ` ${percent(Math.max(0, Data.certaintyOf(i) - Data.marginOf(i)))}`];
  }

  function facts(cluster) {
    return el("dl", { class: "facts" },
      el("div", {}, el("dt", {}, "Samples"), el("dd", {}, whole.format(cluster.size),
        el("span", { class: "soft" }, ` ${percent(cluster.size / Data.n)}`))),
      measures.slice(1).map(m => el("div", { title: m.about }, el("dt", {}, m.word), el("dd", {}, m.show(cluster)))));
  }

  function near(cluster) {
    if (!cluster.near.length) return null;
    return el("p", { class: "near" }, el("span", { class: "soft" }, "Edges lead to "),
      cluster.near.filter(([, share], place) => place < 1 || share >= 0.001)
        .map(([k, share]) => [clusterLink(k), el("span", { class: "soft" }, ` ${percent(share)} `)]));
  }

  function heading(k) {
    const name = el("bdi", { class: "name" }, Data.clusterName(k));
    const rename = el("button", { type: "button", class: "quiet", onclick: edit }, "Rename");
    const head = el("h2", { tabindex: -1 }, badge(k, "large"), name);
    function edit() {
      const input = el("input", { value: Data.clusterName(k), "aria-label": "Name of the cluster", maxlength: 80, dir: "auto" });
      const form = el("form", { class: "rename" }, input, el("button", { type: "submit" }, "Save"));
      form.addEventListener("submit", event => {
        event.preventDefault();
        Data.rename(k, input.value);
        name.textContent = Data.clusterName(k);
        form.replaceWith(rename);
        rename.focus();
        announce(`The cluster is called ${Data.clusterName(k)}`);
      });
      form.addEventListener("keydown", event => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        form.replaceWith(rename);
        rename.focus();
      });
      rename.replaceWith(form);
      input.select();
    }
    return el("div", { class: "heading" }, head, rename);
  }

  // The one before and the one after, in the order of the first view.
  function beside(k, step) {
    const keys = Clusters.sorted();
    return keys[(keys.indexOf(k) + step + keys.length) % keys.length];
  }

  function view(k) {
    const cluster = Data.clusters[k];
    const many = cluster.size > 2;
    return el("div", { class: "page" },
      el("div", { class: "crumbs" }, el("a", { href: "#clusters" }, "All clusters"), el("span", { class: "grow" }),
        Data.clusters.length > 1 ? [
          el("a", { href: `#cluster/${beside(k, -1)}`, title: "Key [" }, "← ", Data.clusterName(beside(k, -1))),
          el("a", { href: `#cluster/${beside(k, 1)}`, title: "Key ]" }, Data.clusterName(beside(k, 1)), " →")] : null),
      heading(k), facts(cluster), near(cluster),
      many ? section("Representative", Data.probability ? "Highest probability, nearest to the centre." : "Joined to their own cluster most, nearest to the centre.",
        cluster.representative) : null,
      many ? section("Borderline", "Could as well belong elsewhere: the second choice and its share.", cluster.borderline, rival) : null,
      many ? section("Outlying", "Far from everything else. Mistakes and rarities are found here.", cluster.outlying) : null,
      sortedGallery({ items: cluster.members, label: "All" }));
  }

  function group(keys) {
    const items = [];
    for (const k of keys) for (const i of Data.clusters[k].members) items.push(i);
    return el("div", { class: "page" },
      el("div", { class: "crumbs" }, el("a", { href: "#tree" }, "Tree")),
      el("div", { class: "heading" }, el("h2", { tabindex: -1 }, `${count(keys.length, "cluster")} together`)),
      el("p", { class: "near" }, keys.map(k => [clusterLink(k), " "])),
      sortedGallery({ items, label: "All", mixed: true, firstWord: "Cluster" }));
  }

  return { view, group, beside };
})();
