// One sample: large, with what is known about it, and its neighbours in the graph.

const Sample = (() => {
  const dialog = byId("sample");
  let list = [];
  let current = null;

  function fact(word, ...value) {
    return el("div", {}, el("dt", {}, word), el("dd", {}, value));
  }

  function show(i, items) {
    if (items) list = items;
    current = i;
    const place = list.indexOf(i);
    const second = Data.secondOf(i);
    const original = Data.original(i);
    const like = Data.neighborsOf(i);
    const group = Data.duplicate ? Data.duplicate[i] : -1;
    const rank = Data.outlyingOf(i);
    dialog.replaceChildren(el("div", { class: "inner" },
      el("div", { class: "bar" },
        el("button", { type: "button", class: "icon", "aria-label": "Previous", disabled: place <= 0, onclick: () => step(-1) }, "←"),
        el("button", { type: "button", class: "icon", "aria-label": "Next", disabled: place < 0 || place >= list.length - 1, onclick: () => step(1) }, "→"),
        place >= 0 && list.length > 1 ? el("span", { class: "soft" }, `${whole.format(place + 1)} of ${whole.format(list.length)}`) : null,
        el("span", { class: "grow" }),
        el("button", { type: "button", class: "icon", "aria-label": "Close", onclick: () => Router.closeSample() }, "×")),
      Data.images ? el("div", { class: "portrait" }, Thumbnails.canvas(i, 240)) : null,
      el("h2", { id: "sample-name", tabindex: -1 }, el("bdi", {}, Data.name(i))),
      el("dl", { class: "facts" },
        fact("Cluster", el("a", { class: "cluster-link wide", href: `#cluster/${Data.code[i]}` }, badge(Data.code[i]), el("bdi", {}, Data.clusterName(Data.code[i])))),
        fact(Data.certaintyWord, percent(Data.certaintyOf(i))),
        second === null ? null : fact("Second choice", clusterLink(second), ` ${percent(Math.max(0, Data.certaintyOf(i) - Data.marginOf(i)))}`),
        fact("Outlying", `more than ${percent(rank)} of all`),
        group >= 0 ? fact("Near-duplicates", el("a", { href: `#duplicates/${group}` }, whole.format(Duplicates.groups[group].length - 1))) : null),
      el("p", { class: "links" },
        el("a", { href: `#map/${i}` }, "Show on the map"),
        original === null ? null : el("a", { href: original, target: "_blank", rel: "noopener" }, "Original file")),
      like.length ? [
        el("div", { class: "bar" }, el("h3", {}, "Neighbours in the graph"), el("span", { class: "grow" }), el("a", { href: `#like/${i}` }, "More like this")),
        el("div", { class: Data.images ? "neighbors" : "neighbors textual" }, like.map(j => el("button",
          { type: "button", class: "tile", title: Data.name(j), "aria-label": `${Data.name(j)}, ${Data.clusterName(Data.code[j])}`,
            onclick: () => Router.openSample(j, like) },
          Data.images ? Thumbnails.canvas(j, 80) : el("bdi", { class: "text" }, Data.name(j)),
          Data.code[j] === Data.code[i] ? null : badge(Data.code[j], "small"))))] : null));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    // What had the focus was replaced.
    byId("sample-name").focus({ preventScroll: true });
    announce(`${Data.name(i)}, ${Data.clusterName(Data.code[i])}`);
  }

  function step(by) {
    const next = list[list.indexOf(current) + by];
    if (next === undefined) return;
    Router.openSample(next, list);
  }

  dialog.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "l") location.hash = `#like/${current}`;
    else if (event.key === "m") location.hash = `#map/${current}`;
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  dialog.addEventListener("cancel", event => {
    event.preventDefault();
    Router.closeSample();
  });
  // Beside the drawer is outside of it.
  dialog.addEventListener("click", event => { if (event.target === dialog) Router.closeSample(); });

  return { show, close: () => { if (dialog.open) dialog.close(); current = null; }, get current() { return current; } };
})();
