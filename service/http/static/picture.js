// Files as bitmaps, in the frame that the server's boxes are in.

// What brings a stored picture upright, by its EXIF orientation: a matrix of the square from (0, 0) to (1, 1).
const TURNS = {1: [1, 0, 0, 1, 0, 0], 2: [-1, 0, 0, 1, 1, 0], 3: [-1, 0, 0, -1, 1, 1], 4: [1, 0, 0, -1, 0, 1],
  5: [0, 1, 1, 0, 0, 0], 6: [0, 1, -1, 0, 1, 0], 7: [0, -1, -1, 0, 1, 1], 8: [0, -1, 1, 0, 0, 1]};

/** A file as the browser turns it: {bitmap, turn}, or null where it cannot show it. */
export async function asBrowsersShow(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  return bitmap && {bitmap, turn: TURNS[1]};
}

/** A file as the server sees it, or null where the browser cannot show it so. */
export async function asServed(file, orientation, {width, height}) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  ignoreExif(bytes);
  const bitmap = await createImageBitmap(new Blob([bytes])).catch(() => null);
  if (!bitmap) return null;
  const sides = [bitmap.width, bitmap.height];
  if (orientation > 4) sides.reverse();
  return sides[0] === width && sides[1] === height ? {bitmap, turn: TURNS[orientation]} : null;
}

// Browsers turn a picture by its EXIF orientation, each in its own way (of WebP some do and some do not), and a page can
// neither forbid it nor ask what was done. So EXIF gets a name in the file's bytes that nobody knows, and the pixels come
// as they are stored.
function ignoreExif(bytes) {
  const view = new DataView(bytes.buffer), name = at => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (bytes[0] === 0xff) {  // JPEG: segments up to the first scan; APP1 becomes APP15
    for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda;) {
      if (bytes[at + 1] === 0xff) { at++; continue; }
      if (bytes[at + 1] === 0xe1) bytes[at + 1] = 0xef;
      at += 2 + view.getUint16(at + 2);
    }
  } else if (name(0) === "RIFF") {  // WebP
    for (let at = 12; at + 8 <= bytes.length; at += 8 + view.getUint32(at + 4, true) + view.getUint32(at + 4, true) % 2)
      if (name(at) === "EXIF") bytes[at] = 0x78;
  } else if (name(0) === "\x89PNG") {  // the checksum is then wrong, which in a chunk that nobody knows is no error
    for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at))
      if (name(at + 4) === "eXIf") bytes[at + 4] = 0x78;
  }
}
