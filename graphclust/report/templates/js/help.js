// The keys, and a switch for those who talk to their computer and would press them by speaking.

const Help = (() => {
  const dialog = byId("help");
  let single = store.get("graphclust:keys") !== "off";
  const sections = [
    ["Everywhere", [["/", "search"], ["c", "clusters"], ["m", "map"], ["t", "tree"], ["d", "near-duplicates"], ["i", "how this was made"],
      ["?", "this help"], ["Esc", "close"]]],
    ["In galleries", [["← → ↑ ↓", "move"], ["Home  End", "first, last"], ["Enter", "look at a sample"], ["[  ]", "previous, next cluster"]]],
    ["Looking at a sample", [["← →", "previous, next"], ["l", "more like this"], ["m", "show on the map"]]],
    ["On the map", [["← → ↑ ↓", "move"], ["+  −  0", "zoom in, out, whole map"], ["Enter", "open the cluster in the middle"], ["Space", "look at the sample"]]],
  ];

  function open() {
    const toggle = el("input", { type: "checkbox", oninput: () => {
      single = toggle.checked;
      store.set("graphclust:keys", single ? null : "off");
    } });
    toggle.checked = single;
    dialog.replaceChildren(el("div", { class: "inner" },
      el("div", { class: "bar" }, el("h2", { id: "help-title", tabindex: -1 }, "Keyboard"), el("span", { class: "grow" }),
        el("button", { type: "button", class: "icon", "aria-label": "Close", onclick: () => dialog.close() }, "×")),
      el("div", { class: "keys" }, sections.map(([title, keys]) => el("section", {}, el("h3", {}, title),
        el("dl", {}, keys.map(([key, what]) => [el("dt", {}, key.split("  ").map(part => el("kbd", {}, part))), el("dd", {}, what)]))))),
      el("label", { class: "check" }, toggle, " Keys of one letter are on")));
    dialog.showModal();
  }

  byId("help-button").addEventListener("click", open);
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });

  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input, select, textarea") || document.querySelector("dialog[open]")) return;
    if (!single && event.key.length === 1) return;
    const go = hash => () => { location.hash = hash; };
    const acts = {
      "/": () => byId("query").focus(), "?": open, c: go("#clusters"), m: go("#map"), i: go("#about"),
      ...(Data.tree ? { t: go("#tree") } : {}), ...(Data.duplicate ? { d: go("#duplicates") } : {}),
      "[": () => Router.beside(-1), "]": () => Router.beside(1),
    };
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  });
  return { open };
})();
