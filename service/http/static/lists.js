// What stands beside the picture: what was found, what the model knows, where the time went, and the strip of pictures.
import {css} from "./painting.js";

const STAGES = {decode: "#7c8db5", preprocess: "#5fa8a0", queue: "#b9b4a5", infer: "#3f66d9", postprocess: "#c98a3c", encode: "#a96aa8"};

/** An element with a class and children. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

export function dot(color) {
  const element = make("span", "dot");
  if (color) element.style.background = color;
  return element;
}

const checkbox = (checked, ...children) => {
  const box = Object.assign(document.createElement("input"), {type: "checkbox", checked});
  return {box, label: make("label", "", box, ...children)};
};

/** One row an item, which can be switched off or explained, and stands out while it is pointed at. */
export function listItems(list, items, {off, none, onToggle, onPoint, onWhy}) {
  list.replaceChildren(...items.map(item => {
    const {box, label} = checkbox(!off.has(item), dot(css(item.color)), make("span", "name", item.label));
    const row = make("li", "", label, make("span", "num", `${Math.round(100 * item.score)} %`));
    if (onWhy) {
      const why = Object.assign(make("button", "small", "Why?"), {type: "button"});
      why.setAttribute("aria-label", `Where the network looked for ${item.label}`);
      why.addEventListener("click", () => onWhy(item));
      row.append(why);
    }
    box.addEventListener("change", () => onToggle(item, box.checked));
    for (const event of ["mouseenter", "focusin"]) row.addEventListener(event, () => onPoint(item));
    for (const event of ["mouseleave", "focusout"]) row.addEventListener(event, () => onPoint(null));
    return row;
  }));
  if (!items.length) list.append(make("li", "num", none));
}

/** One row a class of the model's; `wanted` is the set of ids that are shown. */
export function listClasses(list, categories, wanted, onChange) {
  list.replaceChildren(...categories.map(({id, name, color}) => {
    const {box, label} = checkbox(wanted.has(id), dot(css(color)), make("span", "name", name));
    box.addEventListener("change", () => { wanted[box.checked ? "add" : "delete"](id); onChange(); });
    return make("li", "", label);
  }));
}

/** The stages of the newest answer; without one there is `none` to read. */
export function showTimes(bar, list, answer, none) {
  bar.replaceChildren(...(answer?.stages ?? []).map(([name, duration]) => {
    const part = make("span");
    part.style.background = STAGES[name]; part.style.flexGrow = duration; part.title = name;
    return part;
  }));
  const row = (name, ms, color) => make("li", "", dot(color), make("span", "name", name), make("span", "num", ms));
  list.replaceChildren(...(answer ? [
    ...answer.stages.map(([name, duration]) => row(name, `${duration.toFixed(1)} ms`, STAGES[name])),
    row("seen from here", `${Math.round(1000 * answer.seconds)} ms`),
  ] : [make("li", "num", none)]));
}

/** A picture's place in the strip: `say` tells what became of it, `show` draws it small. */
export function thumbnail(name, onChoose) {
  const canvas = Object.assign(make("canvas"), {width: 208, height: 144}), said = make("span", "num", "waits");
  canvas.ariaHidden = "true";
  const button = Object.assign(make("button", "", canvas, make("span", "", name), said), {type: "button", title: name});
  button.addEventListener("click", onChoose);
  return {
    row: make("li", "", button),
    choose: chosen => chosen ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current"),
    say: (text, failed = false) => { said.textContent = text; said.className = failed ? "error" : "num"; },
    canvas,
  };
}

const ENDINGS = {heic: [".heic", ".heif"], tiff: [".tif", ".tiff"]};  // not every browser knows their types

/** Have these formats chosen from the disk, and say in a line which they are. */
export function showFormats(formats, chooser, line) {
  chooser.accept = formats.flatMap(kind => [`image/${kind}`, ...ENDINGS[kind] ?? []]).join();
  const names = formats.map(kind => kind.toUpperCase().replace("WEBP", "WebP"));
  line.textContent = `${names.join(", ").replace(/, ([^,]*)$/, " or $1")}.`;
}
