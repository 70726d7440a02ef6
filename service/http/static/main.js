// The page: pictures come in, each is asked about once a task, and what is shown of the answers is decided here.
import {isAnswer, things, understand} from "./answers.js";
import {openCamera} from "./camera.js";
import {asCurl, asPython, copy} from "./commands.js";
import {listClasses, listItems, showFormats, showTimes, thumbnail} from "./lists.js";
import {itemAt, lookFor, lookFrom} from "./looking.js";
import {paint, paintLooked, readIds, resize} from "./painting.js";
import {asBrowsersShow, asServed} from "./picture.js";
import {asCoco, asJson, save, saveJson} from "./saving.js";
import {Refusal, ask, get, leads} from "./server.js";

const $ = id => document.getElementById(id);
const AT_ONCE = 3;    // requests on their way together
const MOST = 200;     // pictures in the strip
// Which picture there is to try by what it shows. The photograph is Stefan van der Walt's, of his cat Chelsea, under CC0.
const EXAMPLES = [{name: "example.jpg", shows: "heart"}, {name: "photograph.jpg", shows: "cat"}];
const canvas = $("canvas");

let model = null;        // what GET /model says
let keyed = false;       // whether requests need a key
let wanted = new Set();  // ids of the classes that are shown
let pictures = [];       // {file, small, answers: {task: answer or Refusal}}
let chosen = null;       // the one of them on the stage
let view = null;         // the stage: {image, size, masks} of the chosen one
let looked = null;       // where the network looked, for what was clicked last, see looking.js
let asked = null;        // the AbortController of what is being asked
let floor = null;        // a threshold for /segment below the model's own, once it is wanted
const off = new Set();   // items that are switched off

const example = () => EXAMPLES.find(({shows}) => model.categories.some(({name}) => name.toLowerCase() === shows));
const task = () => document.querySelector("[name=task]:checked").value;
const threshold = () => Number($("threshold").value);
const answerOf = picture => picture?.answers[task()];
const found = count => things(count, task() === "detect" ? "object" : "segment");

// Detections are asked for once, at any score, and chosen from here. Masks cannot: which pixel is whose depends on which
// segments there are, and each costs work; so they are asked for at the model's own threshold.
const askedAbove = () => task() === "detect" ? 0 : floor ?? model.segment_threshold;

// Scores are rounded, so that one that reads as the threshold may well lie above it.
const listed = picture => isAnswer(answerOf(picture))
  ? answerOf(picture).items.filter(item => item.score >= threshold() && wanted.has(item.given.category_id)) : [];
const drawn = picture => listed(picture).filter(item => !off.has(item));

async function describe() {
  model = await get("model");
  if (!model) return setTimeout(describe, 1000);
  const names = model.categories.map(category => category.name);
  $("model").textContent = `${model.name} · ${things(names.length, "class", "classes")} · ${model.device}`;
  document.querySelector("[value=segment]").disabled = model.task !== "panoptic";
  // Whoever tries the demo model on a photograph is told why nothing is found in it.
  $("demo").hidden = model.name !== "detr-demo";
  $("knows").textContent = `This is the demo model. It knows ${names.length} drawn shapes and surfaces ` +
    `(${names.join(", ")}), and nothing of what is in photographs.`;
  document.querySelector("#classes summary").textContent = `What the model knows: ${things(names.length, "class", "classes")}`;
  $("example").hidden = !example();
  $("looks").hidden = !model.attention;
  canvas.classList.toggle("looks", Boolean(model.attention));
  showFormats(model.formats, $("file"), $("formats"));
  want(model.categories.map(category => category.id));
  defaultThreshold();
  run();
}

async function describeServer() {
  const api = await get("openapi.json");
  if (!api) return;
  keyed = Boolean(api.security?.length);
  $("metrics").hidden = !api.paths["/metrics"] || !await leads("metrics");
  refresh();
}

function defaultThreshold() {
  $("threshold").value = task() === "detect" ? model.detect_threshold : model.segment_threshold;
  refresh();
}

// New pictures take the place of the old ones.
function take(files) {
  if (!files.length) return;
  asked?.abort();
  off.clear();
  pictures = files.slice(0, MOST).map(file => {
    const picture = {file, answers: {}};
    return Object.assign(picture, {small: thumbnail(file.name, () => choose(picture))});
  });
  $("strip").replaceChildren(...pictures.map(picture => picture.small.row));
  $("strip").hidden = pictures.length < 2;
  choose(pictures[0]).then(run);
  if (files.length > MOST) alert(`the first ${MOST} of ${files.length} pictures were taken`);
}

// Ask about every picture that has no answer for this task yet, the chosen one first, a few at a time.
async function run() {
  asked?.abort();
  if (!model || !pictures.length) return;
  const {signal} = asked = new AbortController();
  const waiting = pictures.filter(picture => !answerOf(picture)).sort((a, b) => (b === chosen) - (a === chosen));
  const worker = async () => { while (waiting.length && !signal.aborted) await answer(waiting.shift(), signal); };
  report();
  await Promise.all(Array.from({length: AT_ONCE}, worker));
}

async function answer(picture, signal) {
  const kind = task(), asking = askedAbove();
  picture.small.say("…");
  let got;
  try {
    got = understand(await ask(picture.file, `${kind}?threshold=${asking}`, signal), model.categories);
    got.floor = asking;
  } catch (error) {
    if (signal.aborted) return;
    got = error instanceof Refusal ? error : new Refusal(`the server's answer cannot be read: ${error.message}`);
  }
  picture.answers[kind] = got;
  if (signal.aborted) return;
  if (pictures.length > 1) await drawSmall(picture, got);
  if (picture === chosen) await choose(picture);
  else report();
}

const imageFor = (file, answer) =>
  isAnswer(answer) ? asServed(file, answer.orientation, answer.body.image) : asBrowsersShow(file);
const sizeOf = (image, answer) => isAnswer(answer) ? answer.body.image : {width: image.bitmap.width, height: image.bitmap.height};

async function drawSmall(picture, answer) {
  const image = await imageFor(picture.file, answer).catch(() => null), {canvas} = picture.small;
  if (!image) return;
  const {width, height} = sizeOf(image, answer), scale = Math.min(208 / width, 144 / height);
  Object.assign(canvas, {width: Math.ceil(width * scale), height: Math.ceil(height * scale)});
  paint(canvas, image, {width, height}, {});
  image.bitmap.close();
}

// Bring a picture onto the stage, with its answer if there is one, in the frame that the server sees it in.
async function choose(picture) {
  chosen = picture;
  for (const other of pictures) other.small.choose(other === picture);
  const answer = answerOf(picture), image = await imageFor(picture.file, answer).catch(() => null);
  if (chosen !== picture || answerOf(picture) !== answer) return image?.bitmap.close();
  view?.image?.bitmap.close();
  view = image || isAnswer(answer) ? {image, size: sizeOf(image, answer), masks: null} : null;
  if (view && document.activeElement === $("hint")) $("choose").focus();  // what is hidden loses the focus
  $("hint").hidden = Boolean(view);
  canvas.hidden = !view;
  if (view) resize(canvas, view.size);
  if (isAnswer(answer) && answer.body.panoptic_png) {
    const current = view, masks = await readIds(answer.body.panoptic_png, canvas);
    if (view !== current) return;
    view.masks = masks;
  }
  refresh();
}

// Everything that follows from the answers and from what of them is wanted.
function refresh() {
  looked = null;
  $("shown").textContent = threshold().toFixed(2);
  const answer = answerOf(chosen), items = listed(chosen);
  $("stage").classList.toggle("busy", Boolean(chosen && !answer));
  $("heading").textContent = isAnswer(answer) ? found(items.length) : answer ? "No answer" : "Found";
  if (isAnswer(answer)) {
    listItems($("list"), items, {
      off, none: answer.items.length ? "nothing above this threshold, of these classes" : "nothing found",
      onToggle: (item, on) => { off[on ? "delete" : "add"](item); repaint(); },
      onPoint: repaint, onWhy: model.attention ? item => look(item) : null,
    });
  } else listItems($("list"), [], {none: answer ? "nothing" : "nothing yet"});
  showTimes($("bar"), $("times"), isAnswer(answer) ? answer : null, answer ? "no answer" : "no answer yet");
  $("opaque").hidden = !view?.masks;
  $("again").hidden = !isAnswer(answer) || threshold() >= answer.floor;
  $("again").textContent = `Ask for segments below ${answer?.floor?.toFixed(2)}`;
  repaint();
  report();
  showCommands();
}

function repaint(item = null) {
  if (!view) return;
  const items = drawn(chosen);
  if (looked && !item) paintLooked(canvas, view.image, view.size, looked);
  else paint(canvas, view.image, view.size, {items, masks: view.masks, chosen: item, opacity: Number($("opacity").value)});
  const words = items.slice(0, 20).map(({label, score}) => `${label} ${Math.round(100 * score)} %`).join(", ");
  canvas.setAttribute("aria-label", `${chosen.file.name}, with ${found(items.length)}${words && ": "}${words}`);
}

// Ask where the network looked for an item, or from a point; clicked once more, the answer is shown again.
async function look(item, point) {
  const picture = chosen;
  tell("status", "asking where the network looked");
  try {
    const found = await (item ? lookFor(picture.file, item, view.size) : lookFrom(picture.file, point));
    if (chosen !== picture) return;
    looked = found;
    repaint();
    const words = item ? `where the network looked for ${item.label}` : "what this point of the picture looks at";
    tell("status", `${words}: click, or press Escape, to go back`);
  } catch (error) {
    alert(error.message);
    report();
  }
}

function lookAt({offsetX, offsetY, shiftKey}) {
  if (looked) return refresh();
  if (!model?.attention || !isAnswer(answerOf(chosen))) return;
  const point = [offsetX * view.size.width / canvas.clientWidth, offsetY * view.size.height / canvas.clientHeight];
  look(shiftKey ? null : itemAt(point, drawn(chosen), view.masks, view.size, canvas), point);
}

// A text that is set anew is read out anew.
const tell = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
const alert = message => tell("alert", message);

// What a screen reader is told, and what the strip says of each picture.
function report() {
  for (const picture of pictures) {
    const answer = answerOf(picture);
    picture.small.say(!answer ? "…" : isAnswer(answer) ? found(listed(picture).length) : answer.message, answer && !isAnswer(answer));
  }
  const done = pictures.filter(answerOf), failed = done.filter(picture => !isAnswer(answerOf(picture)));
  $("saving").hidden = !done.length || done.length === failed.length;
  $("save-picture").disabled = !isAnswer(answerOf(chosen));
  const several = pictures.length > 1, answer = answerOf(chosen);
  $("save-json").textContent = several ? `Save JSON of all ${done.length - failed.length}` : "Save JSON";
  if (answer) alert(isAnswer(answer) ? "" : several ? `${chosen.file.name}: ${answer.message}` : answer.message);
  if (!chosen) return;
  const parts = [];
  if (several) parts.push(`${done.length} of ${pictures.length} pictures done`);
  if (several && failed.length) parts.push(`${failed.length} without an answer`);
  if (!answer) parts.push(`asking about ${chosen.file.name}`);
  else if (isAnswer(answer)) parts.push(`${chosen.file.name}: ${found(listed(chosen).length)}`);
  if (isAnswer(answer) && view && !view.image) parts.push("this browser cannot show the picture itself");
  tell("status", parts.join("; "));
}

function showCommands() {
  const base = new URL(".", location.origin + location.pathname).href.replace(/\/$/, "");
  const all = !model || wanted.size === model.categories.length;
  const classes = all || !wanted.size ? null
    : model.categories.filter(({id}) => wanted.has(id)).map(({id, name}) => [id, name]);
  const request = {base, keyed, classes, task: task(), name: chosen?.file.name ?? "picture.jpg", threshold: threshold()};
  $("curl").textContent = asCurl(request);
  $("python").textContent = asPython(request);
}

async function savePicture() {
  const large = document.createElement("canvas"), {body} = answerOf(chosen);
  resize(large, view.size, true);
  const masks = body.panoptic_png ? await readIds(body.panoptic_png, large) : null;
  paint(large, view.image, view.size, {items: drawn(chosen), masks, opacity: Number($("opacity").value)});
  large.toBlob(blob => save(blob, `${stem(chosen)}.${task()}.png`));
}

const stem = ({file}) => file.name.replace(/\.[^.]*$/, "");
const answered = () => pictures.filter(picture => isAnswer(answerOf(picture)));
const nameOfFile = ending => `${pictures.length > 1 ? "answers" : stem(chosen)}.${task()}.${ending}`;

async function saveAnswers() {
  const answers = await Promise.all(answered().map(async picture =>
    ({file: picture.file.name, ...await asJson(answerOf(picture), drawn(picture))})));
  saveJson(pictures.length > 1 ? answers : answers[0], nameOfFile("json"));
}

function want(ids) {
  wanted = new Set(ids);
  listClasses($("known"), model.categories, wanted, refresh);
  find();
  refresh();
}

function find() {
  const word = $("search").value.trim().toLowerCase();
  for (const row of $("known").children) row.hidden = !row.textContent.toLowerCase().includes(word);
}

async function showExample() {
  const {name} = example(), response = await fetch(`static/${name}`).catch(() => null);
  if (response?.ok) take([new File([await response.blob()], name, {type: "image/jpeg"})]);
  else alert("the server does not answer");
}

// Segments below the model's own threshold: another request, since the server paints them anew.
function askBelow() {
  floor = threshold();
  $("threshold").focus();  // the button goes
  for (const picture of pictures) delete picture.answers.segment;
  run();
  refresh();
}

function takeFrom({files}, otherwise) {
  if (files.length) take([...files]);
  else alert(otherwise);
}

$("threshold").addEventListener("input", refresh);
canvas.addEventListener("click", lookAt);
addEventListener("keydown", ({key}) => { if (key === "Escape" && looked) refresh(); });
$("opacity").addEventListener("input", () => repaint());
$("again").addEventListener("click", askBelow);
for (const radio of document.querySelectorAll("[name=task]")) radio.addEventListener("change", async () => {
  defaultThreshold();
  if (chosen) { await choose(chosen); run(); }
});
for (const id of ["choose", "hint"]) $(id).addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { take([...$("file").files]); $("file").value = ""; });
$("example").addEventListener("click", showExample);
$("camera").addEventListener("click", () => openCamera(take, alert));
$("all").addEventListener("click", () => want(model.categories.map(category => category.id)));
$("none").addEventListener("click", () => want([]));
$("search").addEventListener("input", find);
$("save-picture").addEventListener("click", savePicture);
$("save-json").addEventListener("click", saveAnswers);
$("save-coco").addEventListener("click", () =>
  saveJson(answered().flatMap(picture => asCoco(picture.file.name, drawn(picture))), nameOfFile("coco.json")));
for (const button of document.querySelectorAll("[data-copies]")) button.addEventListener("click", async () =>
  tell("status", await copy($(button.dataset.copies)) ? "copied" : "it is selected, to be copied by hand"));
addEventListener("paste", ({clipboardData, target}) => {
  if (clipboardData.files.length || target.tagName !== "INPUT") takeFrom(clipboardData, "the clipboard holds no picture");
});
for (const name of ["dragover", "dragleave", "drop"]) addEventListener(name, event => {
  event.preventDefault();
  $("stage").classList.toggle("over", name === "dragover");
  if (name === "drop") takeFrom(event.dataTransfer, "no file was dropped: save the picture first, and drop the file");
});
describe();
describeServer();
