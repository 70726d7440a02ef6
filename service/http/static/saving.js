// Answers as files.

/** One answer as the server gave it, with the items that are shown only. */
export async function asJson({body}, items) {
  const shown = new Set(items.map(item => item.given));
  if (body.detections) return {...body, detections: body.detections.filter(one => shown.has(one))};
  const segments = body.segments.filter(one => shown.has(one));
  if (segments.length === body.segments.length) return body;
  return {...body, segments, panoptic_png: await keepIds(body.panoptic_png, new Set(segments.map(segment => segment.id)))};
}

// A pixel of the panoptic PNG has an id that its list knows, or is void.
async function keepIds(base64, kept) {
  const image = new Image(), canvas = document.createElement("canvas"), draw = canvas.getContext("2d");
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  Object.assign(canvas, {width: image.width, height: image.height});
  draw.drawImage(image, 0, 0);
  const layer = draw.getImageData(0, 0, image.width, image.height), {data} = layer;
  for (let i = 0; i < data.length; i += 4)
    if (!kept.has(data[i] + 256 * data[i + 1] + 65536 * data[i + 2])) data[i] = data[i + 1] = data[i + 2] = 0;
  draw.putImageData(layer, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}

const cents = pixels => Math.round(100 * pixels) / 100;  // boxes are given so

/** Items as entries of a COCO results file; a picture that is called by a number has it as its id, as COCO's own have. */
export function asCoco(name, items) {
  const stem = name.replace(/\.[^.]*$/, "");
  return items.map(({given: {category_id, score, box, rle}}) => ({
    image_id: /^\d{1,15}$/.test(stem) ? Number(stem) : stem,
    category_id,
    score,
    // Beside a box, pycocotools would take the box's area for the mask's.
    ...(rle ? {segmentation: rle} : {bbox: [box.x1, box.y1, cents(box.x2 - box.x1), cents(box.y2 - box.y1)]}),
  }));
}

export const saveJson = (value, name) => save(new Blob([JSON.stringify(value, null, 1)], {type: "application/json"}), name);

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);  // a browser may read it only once its user has agreed
}
