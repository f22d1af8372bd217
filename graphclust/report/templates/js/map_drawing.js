// Drawing and finding points: no state of the page in here, only positions and a view (centre and zoom).

const MapDrawing = (() => {
  const { n } = Data;
  // Shapes beside colours, for eyes that tell fewer colours apart.
  const shapes = [
    (p, x, y, r) => { p.moveTo(x + r, y); p.arc(x, y, r, 0, 7); },
    (p, x, y, r) => p.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r),
    (p, x, y, r) => { p.moveTo(x, y - 1.2 * r); p.lineTo(x + 1.1 * r, y + 0.8 * r); p.lineTo(x - 1.1 * r, y + 0.8 * r); p.closePath(); },
    (p, x, y, r) => { p.moveTo(x, y - 1.3 * r); p.lineTo(x + 1.3 * r, y); p.lineTo(x, y + 1.3 * r); p.lineTo(x - 1.3 * r, y); p.closePath(); },
    (p, x, y, r) => { p.moveTo(x, y + 1.2 * r); p.lineTo(x + 1.1 * r, y - 0.8 * r); p.lineTo(x - 1.1 * r, y - 0.8 * r); p.closePath(); },
    (p, x, y, r) => { p.rect(x - 1.2 * r, y - 0.42 * r, 2.4 * r, 0.84 * r); p.rect(x - 0.42 * r, y - 1.2 * r, 0.84 * r, 2.4 * r); },
  ];
  const noise = (p, x, y, r) => p.rect(x - 0.5 * r, y - 0.5 * r, r, r);
  const shapeOf = k => (Data.clusters[k].noise ? noise : shapes[k % shapes.length]);
  const ROUNDS = 6;

  const x = Float32Array.from(Data.x, v => v / 65535);
  const y = Float32Array.from(Data.y, v => v / 65535);

  // The part of the unit square that holds samples.
  const extent = values => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [1, 0]);
  const bounds = { x: extent(x), y: extent(y) };

  // Samples in rounds, in each by key: one path a key and round, and no key hides all others.
  function grouped(keyOf, keys) {
    const round = new Uint8Array(n);
    let seed = 1;
    for (let i = 0; i < n; i++) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      round[i] = (seed >>> 8) % ROUNDS;
    }
    const starts = new Uint32Array(ROUNDS * keys + 1);
    for (let i = 0; i < n; i++) starts[round[i] * keys + keyOf(i) + 1]++;
    for (let g = 0; g < ROUNDS * keys; g++) starts[g + 1] += starts[g];
    const next = starts.slice();
    const items = new Uint32Array(n);
    for (let i = 0; i < n; i++) items[next[round[i] * keys + keyOf(i)]++] = i;
    return { starts, items, keys, rounds: ROUNDS };
  }

  // Cells of a grid over the map, each with its samples.
  const side = Math.max(1, Math.min(512, Math.floor(Math.sqrt(n / 2))));
  const cellOf = i => Math.min(side - 1, Math.floor(y[i] * side)) * side + Math.min(side - 1, Math.floor(x[i] * side));
  const starts = new Uint32Array(side * side + 1);
  for (let i = 0; i < n; i++) starts[cellOf(i) + 1]++;
  for (let c = 0; c < side * side; c++) starts[c + 1] += starts[c];
  const within = new Uint32Array(n);
  {
    const next = starts.slice();
    for (let i = 0; i < n; i++) within[next[cellOf(i)]++] = i;
  }

  function* around(left, top, right, bottom) {
    const clamp = v => Math.max(0, Math.min(side - 1, Math.floor(v * side)));
    for (let row = clamp(top); row <= clamp(bottom); row++) {
      const from = starts[row * side + clamp(left)];
      const to = starts[row * side + clamp(right) + 1];
      for (let at = from; at < to; at++) yield within[at];
    }
  }

  // The sample nearest to a point, at most `reach` away; null if there is none.
  function nearest(px, py, reach, allowed) {
    let best = null;
    let least = reach * reach;
    for (const i of around(px - reach, py - reach, px + reach, py + reach)) {
      const distance = (x[i] - px) ** 2 + (y[i] - py) ** 2;
      if (distance <= least && allowed(i)) [best, least] = [i, distance];
    }
    return best;
  }

  // Call `draw` with the key and the samples of each group of each layer, in the order in which they are drawn.
  function eachGroup({ starts, keys, rounds }, layers, draw) {
    for (const layer of layers) {
      for (let g = 0; g < keys * rounds; g++) {
        if (starts[g] < starts[g + 1] && layer.has(g % keys)) draw(g % keys, layer.alpha, starts[g], starts[g + 1]);
      }
    }
  }

  function points(context, view, groups, style) {
    if (view.radius < 1.6) {
      specks(context, view, groups, style);
      return;
    }
    const { scale, left, top, width, height, radius } = view;
    eachGroup(groups, style.layers, (key, alpha, from, to) => {
      const shape = style.shape(key);
      context.globalAlpha = alpha;
      context.fillStyle = `rgb(${style.rgb(key).join(" ")})`;
      context.beginPath();
      for (let at = from; at < to; at++) {
        const i = groups.items[at];
        const px = x[i] * scale + left;
        const py = y[i] * scale + top;
        if (px > -9 && py > -9 && px < width + 9 && py < height + 9) shape(context, px, py, radius);
      }
      context.fill();
    });
    context.globalAlpha = 1;
  }

  // Very many points are a few pixels each, which are set in memory: ten times faster than drawn shapes.
  function specks(context, view, groups, style) {
    const { canvas } = context;
    const ratio = canvas.width / view.width;
    const size = Math.max(1, Math.round(2 * view.radius * ratio));
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    const [scale, left, top] = [view.scale, view.left, view.top].map(v => v * ratio);
    eachGroup(groups, style.layers, (key, alpha, from, to) => {
      const [r, g, b] = style.rgb(key);
      const color = ((Math.round(255 * alpha) << 24) | (b << 16) | (g << 8) | r) >>> 0;
      for (let at = from; at < to; at++) {
        const i = groups.items[at];
        const px = Math.round(x[i] * scale + left - size / 2);
        const py = Math.round(y[i] * scale + top - size / 2);
        if (px < 0 || py < 0 || px + size > canvas.width || py + size > canvas.height) continue;
        for (let row = py; row < py + size; row++) {
          const end = row * canvas.width + px + size;
          for (let pixel = end - size; pixel < end; pixel++) pixels[pixel] = color;
        }
      }
    });
    context.putImageData(image, 0, 0);
  }

  // How far most of a cluster reaches above its anchor, in units of the map.
  const above = Data.clusters.map(cluster => {
    const heights = Float32Array.from(cluster.members, i => y[i]).sort();
    return y[cluster.anchor] - heights[Math.floor(heights.length * 0.1)];
  });

  // Numbers of the clusters where they lie; the largest first, and none over another.
  function labels(context, view, keys, colors, gap) {
    const taken = [];
    context.font = `600 13px ${getComputedStyle(document.body).fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (const k of keys) {
      const cluster = Data.clusters[k];
      const text = cluster.label.length > 14 ? cluster.label.slice(0, 13) + "…" : cluster.label;
      const px = x[cluster.anchor] * view.scale + view.left;
      const reach = above[k] * view.scale;
      // A label that would hide its cluster stands above it.
      const py = y[cluster.anchor] * view.scale + view.top - (reach < 30 ? reach + gap : 0);
      const w = Math.max(22, context.measureText(text).width + 12);
      const box = [px - w / 2, py - 11, px + w / 2, py + 11];
      if (box[2] < 0 || box[3] < 0 || box[0] > view.width || box[1] > view.height) continue;
      if (taken.some(o => box[0] < o[2] + 2 && o[0] < box[2] + 2 && box[1] < o[3] + 2 && o[1] < box[3] + 2)) continue;
      taken.push(box);
      context.beginPath();
      context.roundRect(box[0], box[1], w, 22, 5);
      context.fillStyle = colors.paper;
      context.globalAlpha = 0.92;
      context.fill();
      context.globalAlpha = 1;
      context.lineWidth = 2;
      context.strokeStyle = Theme.color(k);
      context.stroke();
      context.fillStyle = colors.ink;
      context.fillText(text, px, py + 0.5);
    }
  }

  // Where the view holds few samples they are shown themselves, none over another; whether that was so.
  function pictures(context, view, allowed, color, later) {
    const size = 40;
    const { scale, left, top, width, height } = view;
    const seen = [];
    for (const i of around(-left / scale, -top / scale, (width - left) / scale, (height - top) / scale)) {
      if (!allowed(i) || !Thumbnails.has(i)) continue;
      seen.push(i);
      if (seen.length > 600) return false;
    }
    const taken = [];
    for (const i of seen) {
      const px = x[i] * scale + left;
      const py = y[i] * scale + top;
      if (px < 0 || py < 0 || px > width || py > height) continue;
      if (taken.some(([ox, oy]) => Math.abs(ox - px) < size + 6 && Math.abs(oy - py) < size + 6)) continue;
      taken.push([px, py]);
      context.fillStyle = "white";
      context.fillRect(px - size / 2 - 1, py - size / 2 - 1, size + 2, size + 2);
      Thumbnails.now(context, i, px - size / 2, py - size / 2, size, later);
      context.lineWidth = 2;
      context.strokeStyle = color(i);
      context.strokeRect(px - size / 2 - 1, py - size / 2 - 1, size + 2, size + 2);
    }
    return seen.length > 0;
  }

  return { x, y, bounds, grouped, nearest, points, labels, pictures, shapeOf, circle: shapes[0] };
})();
