// The address says what is shown, so that Back goes back and a link leads to a cluster: #cluster/3?sample=17

const Router = (() => {
  const main = byId("main");
  const views = [
    ["clusters", "Clusters", true],
    ["map", "Map", true],
    ["tree", "Tree", Data.tree !== null],
    ["duplicates", "Near-duplicates", Boolean(Data.duplicate)],
    ["about", "About", true],
  ].filter(view => view[2]);
  const links = views.map(([view, word]) => el("a", { href: `#${view}`, "data-view": view }, word));
  byId("views").append(...links);

  let shown = null;
  let abort = new AbortController();
  let opened = false; // whether this page, not a link, opened the sample
  let pendingList = null;
  const scrolls = new Map();
  let entry = 0;
  let entries = 0;
  history.scrollRestoration = "manual";

  function parse() {
    const [path, query = ""] = location.hash.slice(1).split("?");
    const at = path.indexOf("/");
    let argument = at < 0 ? "" : path.slice(at + 1);
    try { argument = decodeURIComponent(argument); } catch { /* a hand-written address */ }
    const sample = /^sample=(\d+)$/.exec(query);
    const number = sample ? Number(sample[1]) : -1;
    return { path, view: at < 0 ? path : path.slice(0, at), argument, sample: number >= 0 && number < Data.n ? number : null };
  }

  const index = (text, size) => (/^\d+$/.test(text) && Number(text) < size ? Number(text) : null);

  function build({ view, argument }) {
    const k = index(argument, Data.clusters.length);
    const i = index(argument, Data.n);
    if (view === "cluster" && k !== null) return ["clusters", Data.clusterName(k), () => Cluster.view(k)];
    if (view === "group") {
      const keys = argument.split(",").map(text => index(text, Data.clusters.length)).filter(key => key !== null);
      if (keys.length) return ["tree", count(keys.length, "cluster"), () => Cluster.group(keys)];
    }
    if (view === "map") {
      if (i !== null) SampleMap.locate(i);
      return ["map", "Map", SampleMap.view];
    }
    if (view === "tree" && Data.tree) return ["tree", "Tree", Tree.view];
    if (view === "duplicates" && Data.duplicate) {
      const g = index(argument, Duplicates.groups.length);
      return ["duplicates", "Near-duplicates", g === null ? Duplicates.view : () => Duplicates.open(g)];
    }
    if (view === "about") return ["about", "About", About.view];
    if (view === "like" && i !== null) return ["", `More like ${Data.name(i)}`, () => Search.alikeView(i)];
    if (view === "search" && argument.trim()) return ["", "Search", () => Search.view(argument)];
    return ["clusters", "Clusters", Clusters.view];
  }

  function render(back = false) {
    const wanted = parse();
    if (wanted.path !== shown) {
      abort.abort();
      abort = new AbortController();
      const [tab, title, make] = build(wanted);
      const first = shown === null;
      shown = wanted.path;
      for (const link of links) {
        if (link.dataset.view === tab) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
      document.title = title === "Clusters" ? Data.title : `${title} – ${Data.title}`;
      document.body.dataset.view = wanted.view;
      Sample.close();
      main.replaceChildren(make());
      if (wanted.view !== "search") byId("query").value = "";
      // Typing goes on in the search field; else a screen reader starts at the new heading.
      if (!first && document.activeElement !== byId("query")) main.querySelector("h2")?.focus({ preventScroll: true });
      // What depends on the width is laid out now, so that the page has its height before it is scrolled.
      for (const node of main.querySelectorAll(".gallery, .groups")) node.build();
      scrollTo(0, back ? scrolls.get(entry) || 0 : 0);
      if (wanted.view !== "search") announce(title);
    }
    if (wanted.sample !== null) Sample.show(wanted.sample, pendingList);
    else {
      Sample.close();
      opened = false;
    }
    pendingList = null;
  }

  addEventListener("scroll", () => scrolls.set(entry, scrollY), { passive: true });
  addEventListener("popstate", event => {
    const back = Boolean(event.state && event.state.entry !== undefined);
    if (back) entry = event.state.entry;
    else {
      entry = ++entries;
      history.replaceState({ entry }, "");
    }
    render(back);
  });

  function openSample(i, list = null) {
    pendingList = list;
    const hash = `#${shown}?sample=${i}`;
    if (Sample.current === null) {
      opened = true;
      location.hash = hash;
    } else {
      history.replaceState(history.state, "", hash);
      render();
    }
  }

  function closeSample() {
    if (opened) history.back();
    else {
      history.replaceState(history.state, "", `#${shown}`);
      render();
    }
  }

  function beside(step) {
    const { view, argument } = parse();
    if (view === "cluster") location.hash = `#cluster/${Cluster.beside(Number(argument), step)}`;
  }

  function search() {
    const words = byId("query").value;
    const encoded = encodeURIComponent(words.toWellFormed ? words.toWellFormed() : words);
    if (words.trim()) {
      if (parse().view === "search") {
        history.replaceState(history.state, "", `#search/${encoded}`);
        render();
      } else location.hash = `#search/${encoded}`;
    } else if (parse().view === "search") location.hash = "#clusters";
  }
  let typing = 0;
  byId("query").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(search, 150);
  });
  byId("search").addEventListener("submit", event => {
    event.preventDefault();
    clearTimeout(typing);
    search();
    main.querySelector(".tile, h2")?.focus();
  });
  byId("skip").addEventListener("click", () => (main.querySelector("h2") || main).focus());

  return {
    get signal() { return abort.signal; },
    openSample, closeSample, beside,
    start() {
      history.replaceState({ entry }, "");
      Theme.apply();
      // Badges below each other are of one width.
      const longest = Math.min(14, Math.max(...Data.clusters.map(cluster => cluster.label.length)));
      document.documentElement.style.setProperty("--badge", `${16 + 8 * longest}px`);
      if (parse().view === "search") byId("query").value = parse().argument;
      render();
    },
  };
})();

Router.start();
