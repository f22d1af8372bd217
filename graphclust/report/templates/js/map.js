// All samples as points, laid out so that neighbours in the sample graph lie together.

const SampleMap = (() => {
  const BINS = 16;
  const keys = Data.clusters.map((_, k) => k);
  const bySize = keys.filter(k => !Data.clusters[k].noise).sort((a, b) => Data.clusters[b].size - Data.clusters[a].size);
  // Kept from visit to visit.
  const overview = { x: (MapDrawing.bounds.x[0] + MapDrawing.bounds.x[1]) / 2, y: (MapDrawing.bounds.y[0] + MapDrawing.bounds.y[1]) / 2, zoom: 1 };
  const camera = { ...overview };
  const chosen = new Set();
  let colouring = "cluster";
  let marked = null;
  let byCluster = null;
  let byCertainty = null;

  // From orange by grey to blue: in order for every kind of colour vision.
  function ramp(bin) {
    const [low, middle, high] = Theme.isDark() ? [[245, 140, 50], [110, 112, 116], [95, 170, 240]]
      : [[226, 94, 0], [190, 190, 186], [38, 110, 190]];
    const t = bin / (BINS - 1);
    const [a, b, u] = t < 0.5 ? [low, middle, 2 * t] : [middle, high, 2 * t - 1];
    return a.map((v, c) => Math.round(v + (b[c] - v) * u));
  }

  const binOf = i => Math.min(BINS - 1, Math.floor(Data.certaintyOf(i) * BINS));

  function view() {
    byCluster ??= MapDrawing.grouped(i => Data.code[i], keys.length);
    const canvas = el("canvas", { tabindex: 0, role: "application", "aria-roledescription": "map",
      "aria-label": "Map of all samples. Arrow keys move it, plus and minus zoom, Enter opens the cluster in the middle." });
    const context = canvas.getContext("2d");
    const card = el("div", { class: "card", hidden: true });
    const box = el("div", { class: "stage" }, canvas, card);
    const pointers = new Map();
    let width = 0;
    let height = 0;
    let hovered = null;
    let byKeys = false;
    let waiting = false;

    const allowed = i => !chosen.size || chosen.has(Data.code[i]);

    function frame() {
      const { x: [x0, x1], y: [y0, y1] } = MapDrawing.bounds;
      const fit = Math.min((width - 96) / Math.max(x1 - x0, 0.05), (height - 96) / Math.max(y1 - y0, 0.05));
      const scale = Math.max(40, fit) * camera.zoom;
      const radius = Math.min(9, Math.max(0.9, Math.min(4, 150 / Math.sqrt(Data.n))) * camera.zoom ** 0.4);
      return { scale, radius, width, height, left: width / 2 - camera.x * scale, top: height / 2 - camera.y * scale };
    }

    function draw() {
      waiting = false;
      if (!canvas.isConnected || !width) return;
      const ratio = Math.min(devicePixelRatio || 1, 3);
      const style = getComputedStyle(document.body);
      const colors = { ink: style.color, paper: style.backgroundColor };
      const shown = frame();
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      if (colouring === "cluster") {
        const is = k => !chosen.size || chosen.has(k);
        MapDrawing.points(context, shown, byCluster, {
          layers: [
            { alpha: chosen.size ? 0.08 : 0.5, has: k => !is(k) || Data.clusters[k].noise },
            { alpha: 0.85, has: k => is(k) && !Data.clusters[k].noise }],
          rgb: Theme.rgb, shape: MapDrawing.shapeOf });
      } else {
        byCertainty ??= MapDrawing.grouped(binOf, BINS);
        MapDrawing.points(context, shown, byCertainty,
          { layers: [{ alpha: 0.9, has: () => true }], rgb: ramp, shape: () => MapDrawing.circle });
      }
      const frameOf = i => (colouring === "cluster" ? Theme.color(Data.code[i]) : `rgb(${ramp(binOf(i)).join()})`);
      const pictured = Data.images && MapDrawing.pictures(context, shown, allowed, frameOf, redraw);
      MapDrawing.labels(context, shown, chosen.size ? bySize.filter(k => chosen.has(k)) : bySize, colors, pictured ? 34 : 16);
      for (const i of [marked, hovered]) if (i !== null) ring(shown, i, colors);
      if (byKeys) cross(colors);
    }

    const redraw = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(draw);
    };

    function ring(shown, i, colors) {
      const px = MapDrawing.x[i] * shown.scale + shown.left;
      const py = MapDrawing.y[i] * shown.scale + shown.top;
      for (const [color, line] of [[colors.paper, 5], [colors.ink, 2]]) {
        context.beginPath();
        context.arc(px, py, shown.radius + 5, 0, 7);
        context.lineWidth = line;
        context.strokeStyle = color;
        context.stroke();
      }
    }

    function cross(colors) {
      context.strokeStyle = colors.ink;
      context.lineWidth = 1;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(width / 2 + 6 * dx, height / 2 + 6 * dy);
        context.lineTo(width / 2 + 16 * dx, height / 2 + 16 * dy);
      }
      context.stroke();
    }

    function zoomBy(factor, px = width / 2, py = height / 2) {
      const before = frame();
      const [ux, uy] = [(px - before.left) / before.scale, (py - before.top) / before.scale];
      camera.zoom = Math.max(0.5, Math.min(400, camera.zoom * factor));
      const { scale } = frame();
      camera.x = ux - (px - width / 2) / scale;
      camera.y = uy - (py - height / 2) / scale;
      settle();
    }

    function moveBy(dx, dy) {
      const { scale } = frame();
      camera.x -= dx / scale;
      camera.y -= dy / scale;
      settle();
    }

    // The map cannot be lost out of sight.
    function settle() {
      camera.x = Math.max(0, Math.min(1, camera.x));
      camera.y = Math.max(0, Math.min(1, camera.y));
      if (byKeys) show(sampleAt(width / 2, height / 2, 40), width / 2, height / 2);
      redraw();
    }

    function reset() {
      Object.assign(camera, overview);
      settle();
    }

    function sampleAt(px, py, reach = 14) {
      const { scale, left, top } = frame();
      return MapDrawing.nearest((px - left) / scale, (py - top) / scale, reach / scale, allowed);
    }

    function show(i, px, py, touched = false) {
      if (i !== hovered) {
        hovered = i;
        redraw();
        if (i !== null) {
          card.replaceChildren(
            ...(Data.images ? [Thumbnails.canvas(i, 112)] : []),
            el("div", { class: "words" }, el("bdi", { class: "name" }, Data.name(i)),
              el("span", {}, badge(Data.code[i], "small"), el("span", { class: "soft" }, ` ${percent(Data.certaintyOf(i))}`)),
              touched ? el("span", { class: "links" }, el("a", { href: `#cluster/${Data.code[i]}` }, "Cluster"),
                el("button", { type: "button", class: "quiet", onclick: () => Router.openSample(i) }, "Details")) : null));
        }
      }
      card.hidden = i === null;
      card.classList.toggle("touched", touched);
      canvas.style.cursor = i === null ? "grab" : "pointer";
      if (i === null) return;
      const [w, h] = [card.offsetWidth, card.offsetHeight];
      card.style.left = `${px + 18 + w > width ? Math.max(4, px - 18 - w) : px + 18}px`;
      card.style.top = `${Math.max(4, Math.min(height - h - 4, py - h / 2))}px`;
    }

    const at = event => {
      const rect = canvas.getBoundingClientRect();
      return [event.clientX - rect.left, event.clientY - rect.top];
    };
    let moved = 0;
    canvas.addEventListener("pointerdown", event => {
      if (event.button) return;
      byKeys = false;
      if (!pointers.size) moved = 0;
      pointers.set(event.pointerId, at(event));
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
      const [px, py] = at(event);
      if (!pointers.has(event.pointerId)) {
        if (event.pointerType === "mouse") show(sampleAt(px, py), px, py);
        return;
      }
      const [ox, oy] = pointers.get(event.pointerId);
      moved += Math.abs(px - ox) + Math.abs(py - oy);
      if (pointers.size === 2) {
        const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
        const grown = Math.hypot(px - other[0], py - other[1]) / Math.max(1, Math.hypot(ox - other[0], oy - other[1]));
        zoomBy(grown, (px + other[0]) / 2, (py + other[1]) / 2);
        moveBy((px - ox) / 2, (py - oy) / 2);
      } else if (moved > 4) {
        show(null);
        moveBy(px - ox, py - oy);
      }
      pointers.set(event.pointerId, [px, py]);
    });
    canvas.addEventListener("pointerup", event => {
      if (!pointers.delete(event.pointerId) || moved > 4) return;
      const [px, py] = at(event);
      const mouse = event.pointerType === "mouse";
      const i = sampleAt(px, py, mouse ? 14 : 24);
      if (mouse && i !== null) location.hash = `#cluster/${Data.code[i]}`;
      else show(i, px, py, !mouse);
    });
    canvas.addEventListener("pointercancel", event => pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => { if (!card.classList.contains("touched") && !byKeys) show(null); });
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), ...at(event));
    }, { passive: false });
    canvas.addEventListener("blur", () => { byKeys = false; redraw(); });
    canvas.addEventListener("keydown", event => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = 60;
      const acts = {
        ArrowLeft: () => moveBy(step, 0), ArrowRight: () => moveBy(-step, 0),
        ArrowUp: () => moveBy(0, step), ArrowDown: () => moveBy(0, -step),
        "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: reset,
        Enter: () => { if (hovered !== null) location.hash = `#cluster/${Data.code[hovered]}`; },
        " ": () => { if (hovered !== null) Router.openSample(hovered); },
      };
      if (!(event.key in acts)) return;
      event.preventDefault();
      event.stopPropagation();
      byKeys = true;
      acts[event.key]();
      if (hovered !== null) announce(`${Data.name(hovered)}, ${Data.clusterName(Data.code[hovered])}`);
    });

    new ResizeObserver(() => {
      const ratio = Math.min(devicePixelRatio || 1, 3);
      width = box.clientWidth;
      height = box.clientHeight;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      draw();
    }).observe(box);
    Theme.watch(redraw);

    const legend = el("ul", { class: "legend", "aria-label": "Clusters on the map" });
    const drawn = () => {
      legend.replaceChildren(...keys.map(k => el("li", {}, el("button",
        { type: "button", "aria-pressed": String(chosen.has(k)), onclick: () => {
          if (!chosen.delete(k)) chosen.add(k);
          drawn();
          redraw();
          legend.children[k].firstChild.focus();
        } },
        badge(k), el("bdi", { class: "name" }, Data.clusterName(k)), el("span", { class: "soft" }, whole.format(Data.clusters[k].size))))));
      clear.hidden = !chosen.size;
    };
    const clear = el("button", { type: "button", class: "quiet", onclick: () => { chosen.clear(); drawn(); redraw(); } }, "Show all");
    const scaleOfColours = el("div", { class: "ramp", hidden: colouring === "cluster" }, el("span", {}, "uncertain"),
      el("span", { class: "bar", "aria-hidden": "true" }), el("span", {}, "certain"));
    const select = el("select", { oninput: () => {
      colouring = select.value;
      scaleOfColours.hidden = colouring === "cluster";
      redraw();
    } }, el("option", { value: "cluster" }, "cluster"), el("option", { value: "certainty" }, Data.certaintyWord.toLowerCase()));
    select.value = colouring;
    drawn();
    return el("div", { class: "map" },
      el("h2", { class: "hidden", tabindex: -1 }, "Map"),
      box,
      el("div", { class: "zoom" },
        el("button", { type: "button", class: "icon", "aria-label": "Zoom in", onclick: () => zoomBy(1.6) }, "+"),
        el("button", { type: "button", class: "icon", "aria-label": "Zoom out", onclick: () => zoomBy(1 / 1.6) }, "−"),
        el("button", { type: "button", class: "icon", "aria-label": "Show the whole map", onclick: reset }, "⤢")),
      el("aside", { "aria-label": "Legend" },
        el("div", { class: "legend-head" }, el("label", {}, "Colour by ", select), clear), scaleOfColours, legend));
  }

  // Show where a sample lies.
  function locate(i) {
    marked = i;
    chosen.clear();
    Object.assign(camera, { x: MapDrawing.x[i], y: MapDrawing.y[i], zoom: Math.max(camera.zoom, 5) });
  }

  return { view, locate };
})();
