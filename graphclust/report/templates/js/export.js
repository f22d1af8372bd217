// The labels, with the names that a person gave the clusters, as a table for other programs.

function downloadTable(items) {
  const quoted = value => {
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = ["row,name,cluster,cluster_name,certainty,second_choice,margin,outlier_rank,duplicate_group"];
  for (const i of items) {
    const second = Data.secondOf(i);
    lines.push([
      i, Data.name(i), Data.clusters[Data.code[i]].noise ? -1 : Data.clusters[Data.code[i]].label,
      Data.clusterName(Data.code[i]), Data.certaintyOf(i).toFixed(4), second === null ? "" : Data.clusters[second].label,
      Data.marginOf(i).toFixed(4), Data.outlyingOf(i).toFixed(4),
      Data.duplicate && Data.duplicate[i] >= 0 ? Data.duplicate[i] : "",
    ].map(quoted).join(","));
  }
  const address = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv;charset=utf-8" }));
  el("a", { href: address, download: "clusters.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
  announce(`${count(items.length, "row")} saved as clusters.csv`);
}
