// The request that the page makes, as a line for a shell and as a program.

/** `request` is {base, task, name, threshold, classes, keyed}: classes are [id, name] pairs, or null for all. */
export function asCurl({base, task, name, threshold, classes, keyed}) {
  const query = new URLSearchParams({threshold});
  if (classes) query.set("classes", words(classes).join(","));
  // Between double quotes a URL is the same to every shell, but for the exclamation mark.
  const url = `"${base}/${task}?${query.toString().replaceAll("%2C", ",").replaceAll("!", "%21")}"`;
  return `curl ${keyed ? '-H "X-API-Key: $DETR_API_KEY" ' : ""}-F ${formField(name)} ${url}`;
}

export function asPython({base, task, name, threshold, classes, keyed}) {
  const options = [`threshold=${threshold}`, ...(classes ? [`classes=${JSON.stringify(words(classes))}`] : [])].join(", ");
  return [
    ...(keyed ? ["import os", ""] : []),
    "from detr_client import Client",
    "",
    `client = Client(${JSON.stringify(base)}${keyed ? ', api_key=os.environ["DETR_API_KEY"]' : ""})`,
    `answer = client.${task}(${JSON.stringify(name)}, ${options})`,
    "print(answer.labels, answer.scores)",
  ].join("\n");
}

// Names are for people; one with a comma in it would be read as two.
const words = classes => classes.map(([id, name]) => name.includes(",") || !name.trim() ? String(id) : name);

// curl ends a file's name at a semicolon or a comma unless it stands between quotes of its own.
function formField(name) {
  if (/^[\w.+-]+$/.test(name)) return `image=@${name}`;
  const quoted = name.replace(/["\\]/g, "\\$&").replaceAll("'", "'\\''");
  return `'image=@"${quoted}"'`;
}

/** Select an element's text and put it into the clipboard; says whether that was possible. */
export async function copy(element) {
  getSelection().selectAllChildren(element);
  return await navigator.clipboard?.writeText(element.textContent).then(() => true, () => false)
    ?? document.execCommand("copy");  // where a page over plain HTTP has no clipboard
}
