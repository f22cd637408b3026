"use strict";
// Data: {runs, texts, routes, documents, left_out}. Texts and routes are named by number; -1: none, -2: withheld.
// document: [id, run, sensitivity, steps]
// step: [step, status, model, sensitivity, reason, route, tokens, language, answer, attempts, incomplete, [fields by model, open fields], places]
// attempt: [model, tier, kind, USD, seconds, reused, error, its text or a note, [tokens in, out], verdicts]
// verdict: [check, 1 passed | 0 failed | -1 unscored, reason]; route: [rule, reason, [[model, proof]], [[model, reason]]]
const PAGE = 50;
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const text = (number) => (number === -2 ? "withheld" : number < 0 ? "" : data.texts[number]);

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const count = (n) => n.toLocaleString("en");

function cost(usd, unknown = 0) {
  const known = usd === 0 ? "0" : usd < 1 ? usd.toFixed(6) : usd.toFixed(2);
  return unknown ? `${known} + ${unknown} of unknown cost` : known;
}

// A document's status is the most urgent one of its steps.
function status(steps) {
  for (const word of ["deferred", "rejected", "accepted"]) {
    if (steps.some((step) => text(step[1]) === word)) return word;
  }
  return "skipped";
}

function row(entry) {
  const [id, run, sensitivity, steps] = entry;
  const attempts = steps.flatMap((step) => step[9]);
  const models = steps.filter((step) => step[2] >= 0).map((step) => text(step[2]));
  return {
    entry, id, run: data.runs[run], sensitivity: text(sensitivity), status: status(steps),
    steps: steps.map((step) => text(step[0])), models: [...new Set(models)],
    calls: attempts.filter((attempt) => !attempt[5]).length,
    escalations: attempts.filter((attempt) => text(attempt[2]) === "escalation").length,
    cost: attempts.reduce((sum, a) => sum + Math.max(a[3], 0), 0),
    unknown: attempts.filter((attempt) => attempt[3] < 0).length,
    seconds: attempts.reduce((sum, attempt) => sum + (attempt[5] ? 0 : attempt[4]), 0),
  };
}

// All words of a document that the search looks at.
function searchText(row) {
  const words = [row.id, row.run, row.sensitivity];
  for (const step of row.entry[3]) {
    words.push(text(step[0]), text(step[1]), text(step[2]), text(step[4]), text(step[8]), text(step[10]));
    for (const attempt of step[9]) {
      words.push(text(attempt[0]), text(attempt[6]));
      for (const verdict of attempt[9]) if (verdict[1] === 0) words.push(text(verdict[0]), text(verdict[2]));
    }
  }
  return words.join("\n").toLowerCase();
}

const rows = data.documents.map(row);
const LEVELS = ["public", "internal", "confidential", "restricted"];
// value: what is sorted by; shown: what is displayed, where it is something else
const COLUMNS = [
  { key: "id", name: "Document", value: (r) => r.id },
  ...(data.runs.length > 1 ? [{ key: "run", name: "Run", value: (r) => r.run }] : []),
  { key: "sensitivity", name: "Sensitivity", value: (r) => LEVELS.indexOf(r.sensitivity), shown: (r) => r.sensitivity },
  { key: "status", name: "Status", value: (r) => r.status },
  { key: "models", name: "Answered by", value: (r) => r.models.join(", ") },
  { key: "calls", name: "Calls", value: (r) => r.calls, number: true },
  { key: "escalations", name: "Escalations", value: (r) => r.escalations, number: true },
  { key: "seconds", name: "Seconds", value: (r) => r.seconds, shown: (r) => r.seconds.toFixed(2), number: true },
  { key: "cost", name: "Cost, USD", value: (r) => (r.unknown ? Infinity : r.cost), shown: (r) => cost(r.cost, r.unknown), number: true },
];
const view = { sort: "id", down: false, page: 0, matches: rows };

const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  if (typeof a !== "number") return collator.compare(a, b);
  if (a === b) return 0; // also for two costs that are unknown (Infinity)
  return a < b ? -1 : 1;
}

function update() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = Object.fromEntries(["status", "step", "model", "sensitivity"].map((id) => [id, byId(id).value]));
  const escalated = byId("escalated").checked;
  if (words.length) for (const r of rows) r.words ??= searchText(r);
  view.matches = rows.filter(
    (r) =>
      (!chosen.status || r.status === chosen.status) &&
      (!chosen.step || r.steps.includes(chosen.step)) &&
      (!chosen.model || r.models.includes(chosen.model)) &&
      (!chosen.sensitivity || r.sensitivity === chosen.sensitivity) &&
      (!escalated || r.escalations > 0) &&
      words.every((word) => r.words.includes(word)),
  );
  const column = COLUMNS.find((each) => each.key === view.sort);
  view.matches.sort((a, b) => (view.down ? -1 : 1) * compare(column.value(a), column.value(b)) || compare(a.id, b.id));
  view.page = 0;
  draw();
}

function draw() {
  const pages = Math.max(1, Math.ceil(view.matches.length / PAGE));
  const shown = view.matches.slice(view.page * PAGE, (view.page + 1) * PAGE);
  const body = byId("receipts").tBodies[0];
  body.replaceChildren(...shown.map(drawRow));
  if (!shown.length) {
    const message = rows.length ? "No document matches. Clear the search or the filters." : "No document has an outcome in this run.";
    body.append(make("tr", {}, make("td", { colspan: COLUMNS.length }, message)));
  }
  const all = view.matches.length === rows.length;
  byId("found").textContent =
    all ? `${count(rows.length)} documents` : `${count(view.matches.length)} of ${count(rows.length)} documents`;
  byId("page").textContent = `Page ${count(view.page + 1)} of ${count(pages)}`;
  byId("earlier").disabled = view.page === 0;
  byId("later").disabled = view.page >= pages - 1;
  document.querySelector(".pager").hidden = pages === 1;
  for (const head of byId("receipts").tHead.querySelectorAll("th")) {
    head.setAttribute("aria-sort", head.dataset.key === view.sort ? (view.down ? "descending" : "ascending") : "none");
  }
}

function drawRow(r) {
  const line = make("tr", {});
  const button = make("button", { class: "open", "aria-expanded": "false", type: "button" }, r.id);
  button.addEventListener("click", () => toggle(line, button, r));
  line.append(make("th", { scope: "row" }, button));
  for (const column of COLUMNS.slice(1)) line.append(drawCell(column, r));
  return line;
}

function drawCell(column, r) {
  if (column.key === "status") return make("td", {}, make("span", { class: `status ${r.status}` }, r.status));
  const value = column.value(r);
  let shown = value;
  if (column.shown) shown = column.shown(r);
  else if (column.number) shown = count(value);
  return make("td", { class: column.number && "n" }, shown);
}

function toggle(line, button, r) {
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) line.nextElementSibling.remove();
  else line.after(make("tr", { class: "receipt" }, make("td", { colspan: COLUMNS.length }, ...r.entry[3].map(drawStep))));
}

// A text that may quote the document, or the word that it is withheld.
function quote(number) {
  return number === -2 ? make("span", { class: "withheld" }, "withheld: it may quote a confidential document") : text(number);
}

function drawStep(step) {
  const [name, state, model, sensitivity, reason, routeNumber, tokens, language, answer, attempts, incomplete, [fields, open], places] = step;
  const facts = make("dl", {});
  const addFact = (term, ...content) => facts.append(make("dt", {}, term), make("dd", {}, ...content));
  const about = [tokens >= 0 && `${count(tokens)} tokens`, text(language) && `language ${text(language)}`, text(sensitivity)];
  addFact("Document", about.filter(Boolean).join(", "));
  if (incomplete !== -1) addFact("Incomplete", quote(incomplete));
  if (routeNumber >= 0) drawRoute(data.routes[routeNumber], addFact);
  if (reason === -2 || text(reason)) addFact("Reason", quote(reason));
  if (answer !== -1) addFact("Answer", quote(answer));
  if (places !== -1) addFact("Quoted at", quote(places));
  if (fields !== -1) addFact("Fields of", text(fields));
  if (open !== -1) addFact("Open fields", text(open));
  const by = text(model) ? ` by ${text(model)}` : "";
  const title = make("h4", {}, `${text(name)} `, make("span", { class: `status ${text(state)}` }, text(state) + by));
  return make("section", {}, title, facts, attempts.length ? drawAttempts(attempts) : "");
}

function drawRoute([rule, reason, models, rejected], addFact) {
  addFact("Route", [text(rule), text(reason)].filter(Boolean).join(": "));
  models.forEach(([model, proof], i) => addFact(i ? "" : "Models", [text(model), text(proof)].filter(Boolean).join(": ")));
  rejected.forEach(([model, why], i) => addFact(i ? "" : "Left out", `${text(model)}: ${text(why)}`));
}

function drawAttempts(attempts) {
  const heads = ["Attempt", "Model", "Tier", "Result", "Checks", "Tokens in", "Tokens out", "Seconds", "USD"];
  const head = make("thead", {}, make("tr", {}, ...heads.map((name, i) => make("th", { scope: "col", class: i > 4 && "n" }, name))));
  return make("table", {}, head, make("tbody", {}, ...attempts.map(drawAttempt)));
}

function drawAttempt([model, tier, kind, usd, seconds, reused, error, errorText, tokens, verdicts]) {
  let result = [reused ? "reused" : "answered"];
  if (error < 0 && errorText >= 0) result.push("; ", text(errorText));
  if (error >= 0) result = errorText === -1 ? [text(error)] : [text(error), ": ", quote(errorText)];
  const number = (content) => make("td", { class: "n" }, content);
  return make("tr", {},
    make("th", { scope: "row" }, text(kind)), make("td", {}, text(model)), make("td", {}, text(tier)),
    make("td", { class: error >= 0 && "failed" }, ...result), make("td", {}, ...verdicts.map(drawVerdict)),
    number(tokens.length ? count(tokens[0]) : "–"), number(tokens.length ? count(tokens[1]) : "–"),
    number(reused ? "–" : seconds.toFixed(2)), number(usd < 0 ? "unknown" : cost(usd)));
}

function drawVerdict([check, passed, reason]) {
  const mark = { 1: "✓", 0: "✗", "-1": "–" }[passed];
  const why = reason !== -1 && passed !== 1 && text(reason) ? [": ", quote(reason)] : [];
  return make("div", { class: passed === 0 && "failed" }, `${mark} ${text(check)}`, ...why);
}

function start() {
  const head = make("tr", {});
  for (const column of COLUMNS) {
    const button = make("button", { type: "button" }, column.name);
    button.addEventListener("click", () => {
      view.down = view.sort === column.key ? !view.down : Boolean(column.number);
      view.sort = column.key;
      update();
    });
    const cell = make("th", { scope: "col", class: column.number && "n" }, button);
    cell.dataset.key = column.key;
    head.append(cell);
  }
  byId("receipts").tHead.append(head);
  const choices = { status: (r) => [r.status], step: (r) => r.steps, model: (r) => r.models, sensitivity: (r) => [r.sensitivity] };
  for (const [id, valuesOf] of Object.entries(choices)) {
    const names = [...new Set(rows.flatMap(valuesOf))].sort();
    byId(id).append(...names.map((name) => make("option", { value: name }, name)));
    byId(id).addEventListener("change", update);
  }
  let timer; // the search waits for the end of the typing
  byId("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(update, 120); });
  byId("escalated").addEventListener("change", update);
  const filters = document.querySelector(".filters");
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(update));
  byId("earlier").addEventListener("click", () => { view.page -= 1; draw(); });
  byId("later").addEventListener("click", () => { view.page += 1; draw(); });
  filters.hidden = byId("receipts").hidden = false;
  update();
}

start();
