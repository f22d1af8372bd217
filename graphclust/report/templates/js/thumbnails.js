// Thumbnails are cut out of sprite sheets, which are loaded and decoded when one of theirs comes into sight.

const Thumbnails = (() => {
  const { sheets } = Data;
  const MOST_SHEETS = 90; // kept decoded, up to 2.4 MB each
  const AT_ONCE = 6;
  const ready = new Map(); // number of a sheet -> image, the latest used last
  const wanted = new Map(); // number of a sheet -> what to draw from it
  const embedded = document.getElementsByClassName("thumbnails");
  let loading = 0;

  // The first sheets hold all samples; in those after them the representatives of each cluster stand together.
  const frontOf = [];
  if (sheets) {
    let next = Math.ceil(Data.n / sheets.each) * sheets.each;
    for (const cluster of Data.clusters) {
      frontOf.push(next);
      next += Math.min(sheets.front, cluster.representative.length);
    }
  }

  function place(cell) {
    const within = cell % sheets.each;
    return {
      sheet: Math.floor(cell / sheets.each),
      x: (within % sheets.columns) * sheets.cell,
      y: Math.floor(within / sheets.columns) * sheets.cell,
      w: Data.width[cell],
      h: Data.height[cell],
    };
  }

  // Call `draw` with the sheet's image: at once if it is there, else later if `alive` still says so then.
  function withSheet(number, alive, draw) {
    const image = ready.get(number);
    if (image) {
      ready.delete(number);
      ready.set(number, image);
      draw(image);
      return;
    }
    const requests = wanted.get(number) || [];
    requests.push({ alive, draw });
    // The latest wish first: who scrolls fast does not wait for what has gone by.
    wanted.delete(number);
    wanted.set(number, requests);
    queueMicrotask(load);
  }

  function complain() {
    if (document.querySelector(".notice")) return;
    const folder = sheets.files.length ? decodeURIComponent(sheets.files[0].split("/")[1]) : null;
    byId("main").before(el("p", { class: "notice", role: "alert" }, folder
      ? ["Thumbnails are missing. They are in the folder ", el("bdi", {}, folder), ", which belongs beside this page."]
      : "This browser cannot show the thumbnails."));
  }

  async function load() {
    if (loading >= AT_ONCE) return;
    const number = [...wanted.keys()].pop();
    if (number === undefined) return;
    const requests = wanted.get(number);
    wanted.delete(number);
    if (!requests.some(request => request.alive())) return load();
    loading++;
    try {
      const image = new Image();
      image.src = sheets.files.length ? sheets.files[number] : `data:${sheets.mime};base64,${embedded[number].textContent}`;
      await image.decode(); // not on the thread that scrolls
      if (ready.size >= MOST_SHEETS) ready.delete(ready.keys().next().value);
      ready.set(number, image);
      for (const request of requests) if (request.alive()) request.draw(image);
    } catch {
      complain();
    }
    loading--;
    load();
    return load();
  }

  // Draw one cell into a box of a context, its shape kept, in the middle.
  function paint(context, image, cell, left, top, width, height) {
    const { x, y, w, h } = place(cell);
    const scale = Math.min(width / w, height / h);
    context.imageSmoothingEnabled = !sheets.pixelated;
    context.imageSmoothingQuality = "high";
    const [dw, dh] = [Math.round(w * scale), Math.round(h * scale)];
    context.drawImage(image, x, y, w, h, Math.round(left + (width - dw) / 2), Math.round(top + (height - dh) / 2), dw, dh);
  }

  const has = i => sheets !== null && Data.width[Data.cell[i]] > 0;
  const ratio = () => Math.min(devicePixelRatio || 1, 3);

  // A canvas of a sample, drawn as soon as its sheet is there.
  function canvas(i, size) {
    const side = Math.round(size * ratio());
    const node = el("canvas", { width: side, height: side, "aria-hidden": "true" });
    const cell = Data.cell[i];
    if (has(i)) {
      withSheet(place(cell).sheet, () => node.isConnected,
        image => paint(node.getContext("2d"), image, cell, 0, 0, side, side));
    } else node.classList.add("no-image");
    return node;
  }

  // One canvas with the representatives of a cluster side by side, as many as fit.
  function strip(node, k, width, size, gap) {
    const n = Math.max(1, Math.min(Math.floor((width + gap) / (size + gap)), sheets.front, Data.clusters[k].representative.length));
    const by = ratio();
    node.width = Math.round((n * (size + gap) - gap) * by);
    node.height = Math.round(size * by);
    node.style.width = `${n * (size + gap) - gap}px`;
    node.style.height = `${size}px`;
    const context = node.getContext("2d");
    for (let r = 0; r < n; r++) {
      const cell = frontOf[k] + r;
      if (!Data.width[cell]) continue;
      withSheet(place(cell).sheet, () => node.isConnected,
        image => paint(context, image, cell, r * (size + gap) * by, 0, size * by, size * by));
    }
  }

  // For the map: drawn now if the sheet is there; else it is loaded and `later` called.
  function now(context, i, left, top, size, later) {
    const cell = Data.cell[i];
    let done = false;
    withSheet(place(cell).sheet, () => context.canvas.isConnected, image => {
      if (done) later();
      else paint(context, image, cell, left, top, size, size);
    });
    done = true;
  }

  return { canvas, strip, now, has };
})();
