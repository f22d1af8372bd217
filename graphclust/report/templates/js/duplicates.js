// Groups of near-duplicates, the largest first; those that two clusters share are marked.

const Duplicates = (() => {
  const groups = [];
  if (Data.duplicate) {
    for (let i = 0; i < Data.n; i++) {
      const g = Data.duplicate[i];
      if (g >= 0) (groups[g] ??= []).push(i);
    }
  }
  const clustersOf = group => [...new Set(group.map(i => Data.code[i]))];

  function view() {
    const split = groups.filter(group => clustersOf(group).length > 1);
    const side = Data.images ? (Data.sheets.pixelated ? 60 : 92) : 0;
    const host = el("div", { class: "groups" });
    const only = el("input", { type: "checkbox", oninput: () => show() });

    function show() {
      const shown = only.checked ? split : groups;
      const width = host.clientWidth || 1000;
      const tile = (side || 200) + 8;
      const most = Math.max(1, Math.floor(width / tile) - 1);
      // As many groups beside each other as fit: most are pairs.
      const shelves = [];
      let left = -1;
      for (const group of shown) {
        const wanted = Math.max(140, Math.min(group.length, most + 1) * tile) + 24;
        if (left < wanted) {
          shelves.push([]);
          left = width + 24;
        }
        shelves.at(-1).push(group);
        left -= wanted;
      }
      const rows = virtualRows({
        rows: shelves.length,
        height: (Data.images ? side : 34) + 56,
        render: row => el("div", {}, shelves[row].map(group => one(group, most))),
      });
      host.replaceChildren(shown.length || !groups.length ? rows.root : el("p", { class: "empty" }, "No group lies in different clusters."));
      rows.update();
    }

    function one(group, most) {
      const clusters = clustersOf(group);
      return el("section", { class: "group", "aria-label": count(group.length, "near-duplicate") },
        el("p", {}, `${whole.format(group.length)} in `, clusters.map(k => [clusterLink(k), " "]),
          clusters.length > 1 ? el("span", { class: "warn" }, "different") : null),
        el("div", { class: "line" },
          group.slice(0, most).map(i => el("button", { type: "button", class: "tile", title: Data.name(i), "aria-label": Data.name(i),
            style: Data.images ? { width: `${side}px` } : {}, onclick: () => Router.openSample(i, group) },
            Data.images ? Thumbnails.canvas(i, side) : el("bdi", { class: "text" }, Data.name(i)))),
          group.length > most ? el("a", { href: `#duplicates/${Data.duplicate[group[0]]}`, class: "more" }, `+${group.length - most}`) : null));
    }

    addEventListener("resize", show, { signal: Router.signal });
    host.build = show;
    const involved = groups.reduce((sum, group) => sum + group.length, 0);
    return el("div", { class: "page" },
      el("h2", { tabindex: -1 }, "Near-duplicates"),
      el("p", { class: "lead" }, groups.length
        ? `${count(groups.length, "group")} of samples that are almost the same, ${count(involved, "sample")} in all.`
        : "No two samples are almost the same."),
      split.length ? el("label", { class: "check" }, only, ` Only the ${count(split.length, "group")} in different clusters`) : null,
      host);
  }

  function open(g) {
    const group = groups[g];
    return el("div", { class: "page" },
      el("div", { class: "crumbs" }, el("a", { href: "#duplicates" }, "All near-duplicates")),
      el("div", { class: "heading" }, el("h2", { tabindex: -1 }, count(group.length, "near-duplicate"))),
      gallery({ items: group, label: "Near-duplicates", mixed: clustersOf(group).length > 1 }));
  }

  return { groups, view, open };
})();
