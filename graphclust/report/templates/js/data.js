// The samples and clusters, decoded once. Arrays have one entry a sample unless said otherwise.

const Data = (() => {
  const raw = JSON.parse(byId("data").textContent);
  const kinds = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array };

  function decode([kind, text]) {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return new kinds[kind](bytes.buffer);
  }

  const arrays = {};
  for (const [name, packed] of Object.entries(raw.arrays)) arrays[name] = decode(packed);
  raw.arrays = null;
  const { n, clusters } = raw;

  // `order` lists the samples cluster by cluster; `cell` is its inverse: where a sample's thumbnail lies.
  const cell = new Uint32Array(n);
  arrays.order.forEach((sample, place) => { cell[sample] = place; });
  let start = 0;
  for (const cluster of clusters) {
    cluster.members = arrays.order.subarray(start, start + cluster.size);
    start += cluster.size;
  }

  const renamed = JSON.parse(store.get(`graphclust:${raw.key}:names`) || "{}");

  return {
    ...raw,
    ...arrays,
    cell,
    images: raw.sheets !== null,
    name: i => (raw.names ? raw.names[i] : `sample ${i}`),
    certaintyOf: i => arrays.certainty[i] / 65535,
    marginOf: i => (arrays.margin[i] / 65535) * 2 - 1,
    outlyingOf: i => arrays.outlying[i] / 65535,
    secondOf: i => (arrays.second[i] === 65535 ? null : arrays.second[i]),
    certaintyWord: raw.probability ? "Probability" : "Certainty",

    neighborsOf(i) {
      const row = arrays.neighbors.subarray(i * raw.neighbors, (i + 1) * raw.neighbors);
      return Array.from(row).filter(j => j < n && j !== i);
    },

    // The address of the original file as seen from this page, or null.
    original(i) {
      if (!raw.links) return null;
      if (i in raw.links.odd) return raw.links.odd[i] === null ? null : raw.links.base + raw.links.odd[i];
      return raw.links.base + raw.names[i].split("/").map(encodeURIComponent).join("/");
    },

    clusterName(k) {
      const { label, name } = clusters[k];
      return renamed[label] || name || (/^\d+$/.test(label) ? `Cluster ${label}` : label);
    },

    rename(k, name) {
      const text = name.trim();
      if (text) renamed[clusters[k].label] = text;
      else delete renamed[clusters[k].label];
      store.set(`graphclust:${raw.key}:names`, JSON.stringify(renamed));
    },
  };
})();

// The number (or label) of a cluster in a frame of its colour.
function badge(k, extra = "") {
  const label = Data.clusters[k].label;
  return el("span", { class: `badge ${extra}`, style: { "--c": Theme.color(k) }, "data-cluster": k },
    el("bdi", {}, label.length > 14 ? label.slice(0, 13) + "…" : label));
}

const clusterLink = k =>
  el("a", { class: "cluster-link", href: `#cluster/${k}`, title: Data.clusterName(k) }, badge(k));
