// What the answers say, in the form that lists and canvases want it.
import {Refusal} from "./server.js";

export const isAnswer = answer => Boolean(answer) && !(answer instanceof Refusal);

/** Give an answer's detections or segments a colour each, as `items`; `given` is what the server said. */
export function understand(answer, categories) {
  const seen = {};
  answer.items = (answer.body.detections ?? answer.body.segments).map(given => {
    const {id, label, score, box, category_id} = given, turn = seen[category_id] = (seen[category_id] ?? -1) + 1;
    return {given, id, label, score, box, color: colorOf(categories, category_id, turn)};
  });
  return answer;
}

// A category's own colour; further instances turn its lightness, so that neighbours differ.
function colorOf(categories, categoryId, turn) {
  const known = categories.find(category => category.id === categoryId);
  return (known?.color ?? [90, 130, 220]).map(part => Math.round(part * (1 - 0.16 * (turn % 4))));
}

/** A number of things in words. */
export const things = (count, word, words = `${word}s`) => `${count} ${count === 1 ? word : words}`;
