// What is asked of the server, and what is said when it gives no answer.
const TRIES = 4;  // of a request that is to come again later

/** Why a picture has no answer, in words for people. */
export class Refusal extends Error {}

/** GET a JSON document; null where there is none now. */
export async function get(path) {
  const response = await fetch(path).catch(() => null);
  return response?.ok ? response.json() : null;
}

/** Whether a page is there, which a proxy may well hide. */
export const leads = async path => Boolean((await fetch(path, {method: "HEAD"}).catch(() => null))?.ok);

/**
 * Ask about a file: `asked` is a path and its query.
 * Returns {body, orientation, stages, seconds}; stages are pairs of a name and milliseconds.
 */
export async function ask(file, asked, signal) {
  await refuseUnreadable(file);
  const started = performance.now(), form = new FormData();
  form.append("image", file);
  const response = await post(asked, form, signal);
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Refusal(reason(response.status, body));
  if (!body) throw new Refusal("the server's answer cannot be read");
  return {
    body,
    orientation: Number(response.headers.get("image-orientation")) || 1,
    stages: stagesOf(response.headers.get("server-timing") ?? ""),
    seconds: (performance.now() - started) / 1000,
  };
}

// A folder, or a file that is gone, would otherwise look like a server that does not answer.
async function refuseUnreadable(file) {
  if (!file.size) throw new Refusal("this is an empty file, or a folder");
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Refusal("this cannot be read: it may be a folder, or it was moved or changed");
  }
}

// A server that is full says when to come again.
async function post(path, form, signal) {
  for (let left = TRIES; ; left--) {
    const response = await fetch(path, {method: "POST", body: form, signal}).catch(() => {
      signal.throwIfAborted();
      throw new Refusal("the server does not answer: it is away, or it takes no file as large as this");
    });
    const wait = Number(response.headers.get("retry-after"));
    if (![429, 503].includes(response.status) || !wait || left === 1) return response;
    await new Promise(resolve => setTimeout(resolve, 1000 * Math.min(wait, 10)));
    signal.throwIfAborted();
  }
}

function reason(status, body) {
  const said = body?.error?.message ?? `the server answers with status ${status}`;
  return status === 401 ? `${said}: load this page again to give one` : said;
}

const stagesOf = header => header.split(",").map(part => part.trim().match(/^(\w+);dur=([\d.]+)$/)).filter(Boolean)
  .map(([, name, duration]) => [name, Number(duration)]);
