// How the result was made, and what the figures on the page mean.

const About = (() => {
  const meanings = [
    [Data.certaintyWord, Data.probability ? "The probability that the method gives the sample’s own cluster."
      : "The share of the sample’s edges in the graph, by weight, that lead into its own cluster."],
    ["Margin", "The difference to the second choice. Borderline samples have the smallest."],
    ["Cohesion", "The share of a cluster’s edges, by weight, that stay inside it. An unrelated grouping has about the cluster’s share of all samples."],
    ["Silhouette", "How much nearer samples are to their own cluster than to the next one, from −1 to 1, measured on a random draw."],
    ["Outlying", "The rank of the sample’s distance to its neighbours, compared with what is usual around it, unless the method gave scores of its own."],
    ["Map", "Neighbours in the graph are drawn to each other, all others pushed apart. Only nearness means something: the size of gaps and the directions do not."],
    ["Tree", "Clusters are joined by the mean weight of the edges between them (average linkage)."],
  ];

  function view() {
    return el("div", { class: "page prose" },
      el("h2", { tabindex: -1 }, "How this was made"),
      Data.made.filter(([, pairs]) => pairs.length).map(([section, pairs]) => el("section", {},
        el("h3", {}, section),
        el("table", { class: "pairs" }, el("tbody", {}, pairs.map(([key, value]) =>
          el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, el("bdi", {}, value)))))))),
      el("section", {}, el("h3", {}, "What the figures mean"),
        el("dl", { class: "meanings" }, meanings.map(([word, text]) => [el("dt", {}, word), el("dd", {}, text)]))),
      el("section", {}, el("h3", {}, "Take the labels with you"),
        el("p", {}, "All samples with cluster, certainty and second choice, and the names that you gave the clusters. Names are kept in this browser only."),
        el("button", { type: "button", onclick: () => downloadTable(Data.order) }, "Save all as CSV")));
  }
  return { view };
})();
