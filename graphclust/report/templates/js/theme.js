// Light, dark, or as the system has it; and the colours of clusters in either.

const Theme = (() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const choices = ["auto", "light", "dark"];
  const watchers = new Set();
  let choice = store.get("graphclust:theme");
  if (!choices.includes(choice)) choice = "auto";

  const isDark = () => choice === "dark" || (choice === "auto" && system.matches);

  const channels = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
  const luminance = rgb => {
    const [r, g, b] = rgb.map(v => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };

  // Dark colours are mixed with white until they stand out from a dark page.
  function lifted(hex) {
    let rgb = channels(hex);
    while (luminance(rgb) < 0.2) rgb = rgb.map(v => v + (255 - v) * 0.12);
    return rgb.map(Math.round);
  }
  const light = Data.clusters.map(cluster => channels(cluster.color));
  const dark = Data.clusters.map(cluster => lifted(cluster.color));
  // Red, green and blue of a cluster, 0 to 255; and as CSS has it.
  const rgb = k => (isDark() ? dark : light)[k];
  const color = k => `rgb(${rgb(k).join(" ")})`;

  function apply() {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    const button = byId("theme");
    const words = { auto: "as the system", light: "light", dark: "dark" };
    button.textContent = { auto: "◐", light: "○", dark: "●" }[choice];
    button.setAttribute("aria-label", `Appearance: ${words[choice]}. Change`);
    button.title = `Appearance: ${words[choice]}`;
    for (const node of document.querySelectorAll(".badge")) node.style.setProperty("--c", color(node.dataset.cluster));
    for (const watcher of watchers) watcher();
  }

  system.addEventListener("change", apply);
  byId("theme").addEventListener("click", () => {
    choice = choices[(choices.indexOf(choice) + 1) % choices.length];
    store.set("graphclust:theme", choice);
    apply();
    announce(byId("theme").title);
  });
  return { isDark, rgb, color, apply, watch: watcher => watchers.add(watcher) };
})();
