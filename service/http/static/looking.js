// Where the network looked: what is asked of /explain, and what of a picture was clicked.
import {ask} from "./server.js";

const ROUNDED = 0.0001;  // scores have so many digits

/** Where it looked for an item, as {item, map, cell, color}: the object of the same class, score and box. */
export async function lookFor(file, item, size) {
  const query = new URLSearchParams({threshold: Math.max(0, item.score - 2 * ROUNDED), classes: item.given.category_id});
  const {body} = await ask(file, `explain?${query}`);
  const away = ({score, box}) => Math.abs(score - item.score) / ROUNDED
    + (Math.abs(box.x1 - item.box.x1) + Math.abs(box.x2 - item.box.x2)) / size.width
    + (Math.abs(box.y1 - item.box.y1) + Math.abs(box.y2 - item.box.y2)) / size.height;
  const [nearest] = body.objects.sort((a, b) => away(a) - away(b));
  if (!nearest) throw new Error(`the server does not find ${item.label} again`);
  return {item, map: nearest.attention, cell: body.cell, color: item.color};
}

/** What is seen from a point [x, y] in pixels of the picture, as {point, map, cell, color}. */
export async function lookFrom(file, [x, y]) {
  const query = new URLSearchParams({threshold: 1, points: `${x.toFixed(1)},${y.toFixed(1)}`});
  const {body} = await ask(file, `explain?${query}`);
  return {point: [x, y], map: body.points[0].attention, cell: body.cell, color: [255, 140, 0]};
}

/** The item that lies at a point of the picture: by its mask where there are any, else that of the smallest box. */
export function itemAt([x, y], items, masks, size, canvas) {
  if (masks) {
    const at = Math.floor(y * canvas.height / size.height) * canvas.width + Math.floor(x * canvas.width / size.width);
    return items.find(item => item.id === masks.ids[at]) ?? null;
  }
  const area = ({box}) => (box.x2 - box.x1) * (box.y2 - box.y1);
  const inside = items.filter(({box}) => box.x1 <= x && x <= box.x2 && box.y1 <= y && y <= box.y2);
  return inside.sort((a, b) => area(a) - area(b))[0] ?? null;
}
