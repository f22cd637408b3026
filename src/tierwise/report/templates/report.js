"use strict";
// The data: {runs, texts, routes, documents, left_out}. Numbers name texts and routes; -1: none, -2: withheld.
// document: [id, run, sensitivity, steps]
// step: [step, status, model, sensitivity, reason, route, tokens, language, answer, attempts]
// attempt: [model, tier, kind, USD, seconds, reused, error, error's text, [tokens in, out], verdicts]
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

const counted = (n) => n.toLocaleString("en");
const cost = (usd) => (usd === null ? "unknown" : usd === 0 ? "0" : usd < 1 ? usd.toFixed(6) : usd.toFixed(2));

function status(steps) {
  for (const word of ["deferred", "rejected", "accepted"]) if (steps.some((step) => text(step[1]) === word)) return word;
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
    cost: attempts.some((attempt) => attempt[3] < 0) ? null : attempts.reduce((sum, a) => sum + a[3], 0),
    seconds: attempts.reduce((sum, attempt) => sum + (attempt[5] ? 0 : attempt[4]), 0),
  };
}

function haystack(row) {
  const words = [row.id, row.run, row.sensitivity];
  for (const step of row.entry[3]) {
    words.push(text(step[0]), text(step[1]), text(step[2]), text(step[4]), text(step[8]));
    for (const attempt of step[9]) {
      words.push(text(attempt[0]), text(attempt[6]));
      for (const verdict of attempt[9]) if (verdict[1] === 0) words.push(text(verdict[0]), text(verdict[2]));
    }
  }
  return words.join("\n").toLowerCase();
}

const rows = data.documents.map(row);
const COLUMNS = [
  { key: "id", name: "Document", of: (r) => r.id },
  ...(data.runs.length > 1 ? [{ key: "run", name: "Run", of: (r) => r.run }] : []),
  { key: "sensitivity", name: "Sensitivity", of: (r) => ["public", "internal", "confidential", "restricted"].indexOf(r.sensitivity), shown: (r) => r.sensitivity },
  { key: "status", name: "Status", of: (r) => r.status },
  { key: "models", name: "Answered by", of: (r) => r.models.join(", ") },
  { key: "calls", name: "Calls", of: (r) => r.calls, number: true },
  { key: "escalations", name: "Escalations", of: (r) => r.escalations, number: true },
  { key: "seconds", name: "Seconds", of: (r) => r.seconds, shown: (r) => r.seconds.toFixed(2), number: true },
  { key: "cost", name: "Cost, USD", of: (r) => (r.cost === null ? Infinity : r.cost), shown: (r) => cost(r.cost), number: true },
];
const view = { sort: "id", down: false, page: 0, found: rows };

const collator = new Intl.Collator("en", { numeric: true });
const compare = (a, b) => (typeof a === "number" ? (a === b ? 0 : a < b ? -1 : 1) : collator.compare(a, b));

function update() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = Object.fromEntries(["status", "step", "model", "sensitivity"].map((id) => [id, byId(id).value]));
  const escalated = byId("escalated").checked;
  if (words.length) for (const r of rows) r.words ??= haystack(r);
  view.found = rows.filter(
    (r) =>
      (!chosen.status || r.status === chosen.status) &&
      (!chosen.step || r.steps.includes(chosen.step)) &&
      (!chosen.model || r.models.includes(chosen.model)) &&
      (!chosen.sensitivity || r.sensitivity === chosen.sensitivity) &&
      (!escalated || r.escalations > 0) &&
      words.every((word) => r.words.includes(word)),
  );
  const column = COLUMNS.find((each) => each.key === view.sort);
  view.found.sort((a, b) => (view.down ? -1 : 1) * compare(column.of(a), column.of(b)) || compare(a.id, b.id));
  view.page = 0;
  draw();
}

function draw() {
  const pages = Math.max(1, Math.ceil(view.found.length / PAGE));
  const shown = view.found.slice(view.page * PAGE, (view.page + 1) * PAGE);
  const body = byId("receipts").tBodies[0];
  body.replaceChildren(...shown.map(drawRow));
  if (!shown.length) {
    const told = rows.length ? "No document fits. Clear the search or the filters." : "No document has an outcome in this run.";
    body.append(make("tr", {}, make("td", { colspan: COLUMNS.length }, told)));
  }
  byId("found").textContent =
    view.found.length === rows.length ? `${counted(rows.length)} documents` : `${counted(view.found.length)} of ${counted(rows.length)} documents`;
  byId("page").textContent = `Page ${counted(view.page + 1)} of ${counted(pages)}`;
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
  for (const column of COLUMNS.slice(1)) {
    const shown = column.shown ? column.shown(r) : column.number ? counted(column.of(r)) : column.of(r);
    const cell = make("td", { class: column.number && "n" }, shown);
    line.append(column.key === "status" ? make("td", {}, make("span", { class: `status ${shown}` }, shown)) : cell);
  }
  return line;
}

function toggle(line, button, r) {
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) line.nextElementSibling.remove();
  else line.after(make("tr", { class: "receipt" }, make("td", { colspan: COLUMNS.length }, ...r.entry[3].map(drawStep))));
}

function value(number) {
  return number === -2 ? make("span", { class: "withheld" }, "withheld: it may quote a confidential document") : text(number);
}

function drawStep(step) {
  const [name, state, model, sensitivity, reason, routeNumber, tokens, language, answer, attempts] = step;
  const facts = make("dl", {});
  const fact = (term, ...told) => facts.append(make("dt", {}, term), make("dd", {}, ...told));
  const known = [tokens >= 0 && `${counted(tokens)} tokens`, text(language) && `language ${text(language)}`, text(sensitivity)];
  fact("Document", known.filter(Boolean).join(", "));
  const route = routeNumber >= 0 ? data.routes[routeNumber] : null;
  if (route) {
    fact("Route", [text(route[0]), text(route[1])].filter(Boolean).join(": "));
    route[2].forEach(([asked, proof], i) => fact(i ? "" : "In turn", [text(asked), text(proof)].filter(Boolean).join(": ")));
    route[3].forEach(([left, why], i) => fact(i ? "" : "Left out", `${text(left)}: ${text(why)}`));
  }
  if (reason === -2 || text(reason)) fact("Reason", value(reason));
  if (answer !== -1) fact("Answer", value(answer));
  const by = text(model) ? ` by ${text(model)}` : "";
  const title = make("h4", {}, `${text(name)} `, make("span", { class: `status ${text(state)}` }, text(state) + by));
  return make("section", {}, title, facts, attempts.length ? drawAttempts(attempts) : "");
}

function drawAttempts(attempts) {
  const heads = ["Asked", "Model", "Tier", "Came of it", "Checks", "Tokens in", "out", "Seconds", "USD"];
  const head = make("thead", {}, make("tr", {}, ...heads.map((h, i) => make("th", { scope: "col", class: i > 4 && "n" }, h))));
  const lines = attempts.map(([model, tier, kind, usd, seconds, reused, error, why, tokens, verdicts]) => {
    const came = error >= 0 ? [text(error), why === -1 ? "" : ": ", why === -1 ? "" : value(why)] : [reused ? "reused" : "answered"];
    const checks = verdicts.map(([check, passed, reason]) => {
      const told = reason !== -1 && passed !== 1 && text(reason) ? [": ", value(reason)] : [];
      return make("div", { class: passed === 0 && "failed" }, `${passed === 1 ? "✓" : passed === 0 ? "✗" : "–"} ${text(check)}`, ...told);
    });
    const number = (told) => make("td", { class: "n" }, told);
    return make("tr", {},
      make("th", { scope: "row" }, text(kind)), make("td", {}, text(model)), make("td", {}, text(tier)),
      make("td", { class: error >= 0 && "failed" }, ...came), make("td", {}, ...checks),
      number(tokens.length ? counted(tokens[0]) : "–"), number(tokens.length ? counted(tokens[1]) : "–"),
      number(reused ? "–" : seconds.toFixed(2)), number(usd < 0 ? "unknown" : cost(usd)));
  });
  return make("table", {}, head, make("tbody", {}, ...lines));
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
  for (const [id, of] of Object.entries(choices)) {
    const found = [...new Set(rows.flatMap(of))].sort();
    byId(id).append(...found.map((name) => make("option", { value: name }, name)));
    byId(id).addEventListener("change", update);
  }
  let waiting;
  byId("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 120); });
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
