// Pictures with what was found in them, on a canvas of any size.
const SIDES = [800, 1600];  // the longer side in pixels of what is looked at, however small or large the picture is
const LARGEST = 8192;       // of what is saved: browsers refuse much larger canvases
const GROUND = "#7d818a";   // where the browser cannot show the picture itself

export const css = ([r, g, b], alpha = 1) => `rgb(${r} ${g} ${b} / ${alpha})`;

/** Give a canvas the size at which a picture of (width, height) is looked at, or saved. */
export function resize(canvas, {width, height}, saved = false) {
  const longer = Math.max(width, height);
  const scale = (saved ? Math.min(longer, LARGEST) : Math.min(Math.max(longer, SIDES[0]), SIDES[1])) / longer;
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
}

/** The ids of a panoptic PNG at a canvas's size, id = R + 256 G + 65536 B, and where each one's label belongs. */
export async function readIds(base64, {width, height}) {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  const small = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
  small.imageSmoothingEnabled = false;
  small.drawImage(image, 0, 0, width, height);
  const {data} = small.getImageData(0, 0, width, height), ids = new Uint32Array(width * height);
  for (let i = 0; i < ids.length; i++) ids[i] = data[4 * i] + 256 * data[4 * i + 1] + 65536 * data[4 * i + 2];
  return {ids, anchors: anchorsOf(ids, width)};
}

// Each segment's label goes to its pixel nearest to its middle, which itself may lie in another segment.
function anchorsOf(ids, width) {
  const found = new Map();
  const each = visit => { for (let i = 0; i < ids.length; i++) visit(ids[i], i % width, Math.floor(i / width)); };
  each((id, x, y) => {
    if (!found.has(id)) found.set(id, {x: 0, y: 0, n: 0, far: Infinity});
    const one = found.get(id);
    one.x += x; one.y += y; one.n++;
  });
  each((id, x, y) => {
    const one = found.get(id), far = (x - one.x / one.n) ** 2 + (y - one.y / one.n) ** 2;
    if (far < one.far) Object.assign(one, {far, at: [x, y]});
  });
  return new Map([...found].map(([id, {at}]) => [id, at]));
}

/**
 * Paint a picture and the given items over it, best first.
 * `masks` is what readIds gave for this canvas's size, or null; `chosen` stands out, if there is one.
 */
export function paint(canvas, image, size, {items = [], masks = null, chosen = null, opacity = 0.5}) {
  const draw = canvas.getContext("2d", {willReadFrequently: true});
  paintPicture(draw, image);
  const shown = chosen && items.includes(chosen) ? [chosen] : items;
  if (masks) paintMasks(draw, masks.ids, shown, opacity);
  for (const item of [...shown].reverse()) paintBox(draw, item, size, masks?.anchors.get(item.id), !masks || item === chosen);
}

/** Paint a picture and where the network looked in it, for an item or from a point; see looking.js. */
export function paintLooked(canvas, image, size, {map, cell, color, item, point}) {
  const draw = canvas.getContext("2d"), sx = canvas.width / size.width, sy = canvas.height / size.height;
  paintPicture(draw, image);
  draw.save();
  draw.fillStyle = "rgb(0 0 0 / .5)";
  draw.fillRect(0, 0, canvas.width, canvas.height);
  const small = new OffscreenCanvas(map[0].length, map.length), cells = new ImageData(map[0].length, map.length);
  const most = Math.max(...map.flat());
  map.flat().forEach((weight, i) => cells.data.set([...color, 255 * weight / most], 4 * i));
  small.getContext("2d").putImageData(cells, 0, 0);
  draw.imageSmoothingQuality = "high";
  draw.drawImage(small, 0, 0, map[0].length * cell.width * sx, map.length * cell.height * sy);
  draw.restore();
  if (item) return paintBox(draw, item, size, null, true);
  draw.beginPath();
  draw.arc(point[0] * sx, point[1] * sy, Math.max(5, canvas.width / 120), 0, 2 * Math.PI);
  draw.fillStyle = css(color);
  draw.strokeStyle = "#fff";
  draw.lineWidth = 2;
  draw.fill();
  draw.stroke();
}

function paintPicture(draw, image) {
  const {width, height} = draw.canvas;
  draw.fillStyle = GROUND;
  draw.clearRect(0, 0, width, height);
  if (!image) return draw.fillRect(0, 0, width, height);
  draw.save();
  draw.scale(width, height);
  draw.transform(...image.turn);
  draw.drawImage(image.bitmap, 0, 0, 1, 1);
  draw.restore();
}

function paintMasks(draw, ids, items, opacity) {
  const {width, height} = draw.canvas, layer = draw.getImageData(0, 0, width, height), pixels = layer.data;
  const colors = new Map(items.map(item => [item.id, item.color]));
  for (let i = 0; i < ids.length; i++) {
    const color = colors.get(ids[i]);
    if (!color) continue;
    const edge = (i % width && ids[i] !== ids[i - 1]) || (i >= width && ids[i] !== ids[i - width]);
    const share = edge ? Math.min(0.95, 2 * opacity) : opacity;
    for (let c = 0; c < 3; c++) pixels[4 * i + c] += share * (color[c] * (edge ? 0.6 : 1) - pixels[4 * i + c]);
  }
  draw.putImageData(layer, 0, 0);
}

function paintBox(draw, {box, color, label, score}, size, anchor, withEdges) {
  const {canvas} = draw, sx = canvas.width / size.width, sy = canvas.height / size.height;
  const x = box.x1 * sx, y = box.y1 * sy, w = (box.x2 - box.x1) * sx, h = (box.y2 - box.y1) * sy;
  const text = Math.max(12, Math.min(canvas.width, canvas.height) / 32);
  if (withEdges) {
    draw.lineWidth = Math.max(2, text / 6);
    draw.strokeStyle = css(color);
    draw.strokeRect(x, y, w, h);
  }
  const words = `${label} ${Math.round(100 * score)}%`;
  draw.font = `600 ${text}px system-ui, sans-serif`;
  const tag = draw.measureText(words).width + text * 0.7;
  const [left, top] = anchor ? [anchor[0] - tag / 2, anchor[1] - text * 0.7] : [x, y - text * 1.4];
  const tx = Math.max(0, Math.min(left, canvas.width - tag));
  const ty = Math.max(0, Math.min(top, canvas.height - text * 1.4));
  draw.fillStyle = css(color, 0.92);
  draw.fillRect(tx, ty, tag, text * 1.4);
  draw.fillStyle = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140 ? "#000" : "#fff";
  draw.fillText(words, tx + text * 0.35, ty + text * 1.05);
}
