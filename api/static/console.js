/**
 * The console in the browser. Pages come whole from the server; this sends what people change to the API, keeps pages true while
 * the team works, and puts times into the reader's zone. No inline handlers: everything hangs on data attributes.
 *
 *   data-api="POST /teams/…"    a form or button that asks the API. {name} in it is taken from a field marked data-path
 *     data-constant='{…}'       merged into the body
 *     data-goto="/…"            where to go afterwards ({id} of the answer); data-refresh-after: this page anew;
 *     data-optimistic: its row goes at once, and comes back if the API refuses;
 *     data-say="…"              what to say afterwards; data-close: closes its dialog; data-secret: shows [data-secret-field]s of the answer, which a [data-secret-copy] copies
 *     data-keep: what was typed stays;  data-shows="id": the answer in that part: its [data-answer] fields (data-words: said so), [data-answer-if] and
 *     [data-answer-unless] parts, [data-answer-list] by its template;  data-opens="field": the address of ours in that field
 *   data-refresh="task member"  a part with an id that follows events whose type begins so ("*": every event)
 *     data-hold: a list that does not move while someone reads: its new [data-key] rows wait behind [data-new-of="its id"]
 *   data-filters                a form that is its page's filters, at every change or (="submit") when sent; data-utc: a local time in it
 *   data-open / data-dismiss    dialogs; data-fill='{…}' of what opens one goes into its [data-fill-text], [data-fill-confirm] and fields;
 *    data-confirm="text"  must be typed;  data-copy="text"
 *   data-rove                   a list of links of which one is reached by Tab, and the others by the arrow keys
 */
import { Refused, TeamSocket } from "/static/realtime.js";

const API = "/api/v1";
const GATHER_MS = 250;
const words = () => document.getElementById("words").dataset;
const inWords = (state) => words()[state] ?? state;
const csrf = () => document.querySelector('meta[name="csrf-token"]').content;
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

// ---------------------------------------------------------------------------------------------------- asking the API

export async function ask(method, path, body) {
  const headers = { Accept: "application/json", "X-CSRF-Token": csrf() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(API + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    return { ok: false, status: 0, problem: { code: "unreachable", detail: words().unreachable } };
  }
  const text = await response.text();
  const json = text && /json/.test(response.headers.get("Content-Type") ?? "") ? JSON.parse(text) : null;
  return response.ok ? { ok: true, status: response.status, json } : { ok: false, status: response.status, problem: json ?? { detail: words().failed } };
}

/** A form's fields as the API wants them: empty optional ones left out, numbers and booleans as such, lists by repeated names. */
export function bodyOf(form) {
  const body = { ...JSON.parse(form.dataset.constant ?? "{}") };
  for (const field of form.elements) {
    if (!field.name || field.disabled || "path" in field.dataset) continue;
    if ((field.type === "checkbox" || field.type === "radio") && "list" in field.dataset) {
      body[field.name] ??= [];
      if (field.checked) body[field.name].push(field.value);
    } else if (field.type === "checkbox") body[field.name] = field.checked;
    else if (field.type === "radio") { if (field.checked) body[field.name] = field.value; }
    else if (field.value === "" && (!field.required || "optional" in field.dataset)) { if ("nullable" in field.dataset) body[field.name] = null; }
    else if (field.type === "number") body[field.name] = Number(field.value);
    else if ("lines" in field.dataset) body[field.name] = field.value.split(/[\s,;]+/).filter(Boolean);
    else if ("json" in field.dataset) body[field.name] = JSON.parse(field.value);
    else body[field.name] = field.value;
  }
  for (const field of form.querySelectorAll("[data-list][data-nullable]")) if (!body[field.name]?.length) body[field.name] = null;
  return body;
}

function pathOf(element, form) {
  const values = {};
  for (const field of form?.querySelectorAll("[data-path]") ?? []) values[field.name] = encodeURIComponent(field.value);
  return fill(element.dataset.api, values).split(/ (.*)/s);
}

export function showProblem(form, problem) {
  for (const place of form.querySelectorAll("[data-error]")) {
    const messages = flat(problem.errors?.[place.dataset.error]);
    place.textContent = messages.join(" ");
    place.hidden = !messages.length;
    const field = form.elements[place.dataset.error];
    if (field instanceof Element) field.toggleAttribute("aria-invalid", messages.length > 0);
    if (field instanceof Element && messages.length) field.setAttribute("aria-invalid", "true");
  }
  for (const part of form.querySelectorAll("[data-when]")) if (part.dataset.when === problem.code) part.hidden = false;
  const known = new Set([...form.querySelectorAll("[data-error]")].map((place) => place.dataset.error));
  const others = Object.entries(problem.errors ?? {}).filter(([name]) => !known.has(name)).flatMap(([, messages]) => flat(messages));
  const whole = form.querySelector("[data-form-error]");
  const text = others.length ? others.join(" ") : problem.errors ? words().mend : problem.detail;
  if (whole) {
    whole.textContent = text + (problem.request_id && !problem.errors ? ` (${words().request} ${problem.request_id})` : "");
    whole.hidden = false;
  } else toast(text, true);
  form.querySelector('[aria-invalid="true"]')?.focus();
}

const flat = (messages) => (messages === undefined ? [] : typeof messages === "string" ? [messages] : Array.isArray(messages) ? messages.flatMap(flat) : Object.values(messages).flatMap(flat));

export function clearProblem(form) {
  for (const place of form.querySelectorAll("[data-error], [data-form-error], [data-form-done]")) place.hidden = true;
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

let leaving = false; // what this page is about may be gone already, so it isn't fetched anew

async function act(element, form) {
  const [method, path] = pathOf(element, form);
  const button = form?.querySelector("button:not([type=button])") ?? element;
  let body;
  try {
    body = form && method !== "DELETE" ? bodyOf(form) : element.dataset.constant ? JSON.parse(element.dataset.constant) : undefined;
  } catch (error) {
    showProblem(form, { detail: error.message });
    return;
  }
  if (form) clearProblem(form);
  button.setAttribute("aria-busy", "true");
  button.disabled = true;
  const gone = "optimistic" in element.dataset ? element.closest("li, tr") : null;
  if (gone) gone.hidden = true;
  leaving = "goto" in element.dataset;
  const answer = await ask(method, path, body);
  leaving &&= answer.ok;
  button.removeAttribute("aria-busy");
  button.disabled = false;
  if (gone && !answer.ok) gone.hidden = false;
  if (!answer.ok) {
    if (form) showProblem(form, answer.problem);
    else toast(answer.problem.detail, true);
    return;
  }
  element.dispatchEvent(new CustomEvent("done", { bubbles: true, detail: answer.json }));
  if ("secret" in element.dataset) return void showSecret(element, answer.json);
  if ("close" in element.dataset) element.closest("dialog")?.close();
  if (form && !("goto" in element.dataset) && !("keep" in element.dataset)) form.reset();
  if (element.dataset.shows) showAnswer(document.getElementById(element.dataset.shows), answer.json);
  if (element.dataset.opens) {
    const address = new URL(answer.json[element.dataset.opens]);
    location.assign(address.pathname + address.search); // on this host, whatever name of it the server goes by
  }
  if (element.dataset.say) say(form, element.dataset.say);
  if ("goto" in element.dataset) location.assign(fill(element.dataset.goto, answer.json ?? {}));
  else if ("refreshAfter" in element.dataset) await refresh(() => true);
}

/** What is shown once: each [data-secret-field] gets the answer's field of that name. */
function showSecret(element, json) {
  const dialog = element.closest("dialog");
  for (const place of dialog.querySelectorAll("[data-secret-field]")) {
    place.textContent = json[place.dataset.secretField];
    place.dataset.copy = json[place.dataset.secretField];
  }
  for (const button of dialog.querySelectorAll("[data-secret-copy]")) button.dataset.copy = json[button.dataset.secretCopy];
  for (const part of dialog.querySelectorAll("[data-before-secret]")) part.hidden = true;
  for (const part of dialog.querySelectorAll("[data-after-secret]")) part.hidden = false;
  dialog.querySelector("[data-secret-copy]")?.focus();
  refresh(() => true);
}

/** An answer's fields in the part that is there for them, which is hidden until then. */
function showAnswer(part, json) {
  part.hidden = false;
  for (const place of part.querySelectorAll("[data-answer]")) {
    const value = json[place.dataset.answer] ?? "";
    place.textContent = JSON.parse(place.dataset.words ?? "{}")[value] ?? value;
  }
  for (const place of part.querySelectorAll("[data-answer-if]")) place.hidden = !json[place.dataset.answerIf];
  for (const place of part.querySelectorAll("[data-answer-unless]")) place.hidden = Boolean(json[place.dataset.answerUnless]);
  for (const list of part.querySelectorAll("[data-answer-list]")) {
    const template = list.querySelector("template");
    list.replaceChildren(template, ...json[list.dataset.answerList].map((each) => {
      const item = template.content.firstElementChild.cloneNode(true);
      showAnswer(item, each);
      return item;
    }));
  }
}

function say(form, text) {
  const place = form?.querySelector("[data-form-done]");
  if (place) [place.textContent, place.hidden] = [text, false];
  else toast(text);
}

export function toast(text, bad = false) {
  const item = Object.assign(document.createElement("p"), { className: bad ? "toast bad" : "toast", textContent: text });
  document.getElementById("toasts").append(item);
  setTimeout(() => item.remove(), bad ? 8000 : 3000);
}

// ---------------------------------------------------------------------------------------------------- staying true

/** Fetches this page anew and takes over those parts whose [data-refresh] `wanted` accepts; what people type stays. */
export async function refresh(wanted, letGo = false) {
  const parts = [...document.querySelectorAll("[data-refresh][id]")].filter((part) => wanted(part.dataset.refresh.split(" ")));
  if (!parts.length || leaving) return;
  const url = location.href;
  let text;
  try {
    const response = await fetch(url, { headers: { Accept: "text/html" } });
    if (!response.ok || response.redirected) return;
    text = await response.text();
  } catch {
    return; // the connection's state says so
  }
  if (location.href !== url) return;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of parts) {
    const newer = fresh.getElementById(part.id);
    if (!newer) {
      part.remove(); // there is nothing of it any more
      continue;
    }
    if ("hold" in part.dataset && !letGo && part.querySelector("[data-key]")) {
      hold(part, newer);
      continue;
    }
    const before = new Map([...part.querySelectorAll("[data-value]")].map((value, index) => [index, value.textContent]));
    // What somebody chose in a dialog that is open stays, if it can still be chosen.
    const chosen = [part, ...part.querySelectorAll("select")].filter((one) => one.matches("dialog[open] select")).map((select) => [select, select.value]);
    globalThis.Idiomorph.morph(part, newer, { ignoreActiveValue: true, callbacks: { beforeNodeMorphed: isNotSaying } });
    for (const [select, value] of chosen) if ([...select.options].some((option) => option.value === value)) select.value = value;
    [...document.getElementById(part.id).querySelectorAll("[data-value]")].forEach((value, index) => {
      if (before.has(index) && before.get(index) !== value.textContent) mark(value);
    });
  }
  settle();
}

/** What a form says of its last try stays until the next. */
const isNotSaying = (part) => !(part.matches?.("[data-error], [data-form-error], [data-form-done]") && !part.hidden);

/** Says how many rows wait, instead of moving those that somebody reads. */
function hold(part, newer) {
  const keys = (list) => [...list.querySelectorAll("[data-key]")].map((row) => row.dataset.key);
  const shown = new Set(keys(part));
  const waiting = keys(newer).filter((key) => !shown.has(key)).length;
  const pill = document.querySelector(`[data-new-of="${part.id}"]`);
  if (!pill) return;
  pill.hidden = !waiting;
  pill.textContent = fill(words().new, { n: waiting === keys(newer).length ? `${waiting}+` : waiting });
}

function mark(element) {
  element.classList.remove("marked");
  requestAnimationFrame(() => element.classList.add("marked"));
}

let gathered = new Set();
let gathering = null;

function follow(type) {
  gathered.add(type);
  gathering ??= setTimeout(() => {
    const types = [...gathered];
    gathered = new Set();
    gathering = null;
    if (document.hidden) return void (missedWhileHidden = true);
    refresh((kinds) => kinds.includes("*") || types.some((one) => one === "*" || kinds.some((kind) => one.startsWith(kind))));
  }, GATHER_MS);
}

let missedWhileHidden = false;
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && missedWhileHidden) {
    missedWhileHidden = false;
    refresh(() => true);
  }
  team?.socket.setState(document.hidden ? "away" : "online");
});

// ---------------------------------------------------------------------------------------------------- the team's socket

let team = null;

function connect() {
  const id = document.body.dataset.team;
  if (team?.id === id) return;
  team?.socket.close();
  team = null;
  if (!id) return;
  const socket = new TeamSocket(location.origin, id, {
    lastSeq: pageSeq(), // what happened since the page was made is not in it
    ticket: async () => {
      if (leaving) throw new Error("the page is being left"); // tried again, should that be refused
      const answer = await ask("POST", `/teams/${id}/ws-tickets`);
      if (answer.ok) return answer.json.ticket;
      if ([401, 403, 404].includes(answer.status)) throw new Refused(answer.status);
      throw new Error(answer.problem.detail);
    },
  });
  team = { id, socket, since: Date.now() };
  socket.addEventListener("event", ({ detail }) => {
    team.since = Date.now();
    document.dispatchEvent(new CustomEvent("team-event", { detail }));
    follow(detail.type === "redacted" ? "*" : detail.type);
  });
  socket.addEventListener("reset", () => follow("*"));
  let welcomed = false;
  socket.addEventListener("welcome", () => {
    if (welcomed) follow("*"); // what a page showed while the connection was away may be old
    welcomed = true;
  });
  socket.addEventListener("presence", showPeople);
  socket.addEventListener("welcome", showPeople);
  socket.addEventListener("status", ({ detail }) => showConnection(detail));
  socket.addEventListener("refused", ({ detail }) => {
    showConnection("offline");
    if (detail.code !== 401) toast(words().revoked, true);
    else if (document.querySelector("dialog[open]")) toast(words().signedOut, true); // what was typed there may be copied yet
    else location.reload(); // which asks to sign in, and comes back here
  });
  socket.open();
}

/** The last event that this page was made with. */
const pageSeq = () => Number(document.getElementById("connection").dataset.seq);

let countdown = null;

function showConnection(status) {
  const place = document.getElementById("connection");
  if (!place) return;
  clearInterval(countdown);
  const text = place.querySelector("[data-text]");
  const set = (state, shown) => { place.dataset.state = state; text.textContent = shown; };
  if (status === "connected") set("live", words().live);
  else if (status === "connecting") set("connecting", words().connecting);
  else if (status === "waiting") {
    const until = Date.now() + (team?.socket.nextAttemptMs ?? 0);
    const tick = () => set("waiting", fill(words().reconnecting, { s: Math.max(0, Math.ceil((until - Date.now()) / 1000)) }));
    tick();
    countdown = setInterval(tick, 500);
  } else set("offline", fill(words().offline, { time: new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "short" }).format(team?.since) }));
}

function showPeople() {
  const people = team?.socket.people ?? new Map();
  const me = document.body.dataset.me;
  for (const dot of document.querySelectorAll("[data-presence]")) {
    const person = people.get(dot.dataset.presence);
    dot.hidden = !person;
    if (person) Object.assign(dot.dataset, { state: person.state }) && (dot.title = inWords(person.state));
  }
  let others = 0;
  for (const line of document.querySelectorAll("[data-person]")) {
    const person = people.get(line.dataset.person);
    line.hidden = !person;
    const state = line.querySelector("[data-person-state]");
    if (person && state) state.textContent = inWords(person.state);
    if (person && line.dataset.person !== me) others += 1;
  }
  for (const nobody of document.querySelectorAll("[data-nobody]")) nobody.hidden = others > 0;
  const count = document.querySelector("[data-online]");
  if (count) {
    count.hidden = people.size < 2;
    count.textContent = people.size ? `● ${people.size}` : "";
  }
}

// ---------------------------------------------------------------------------------------------------- times

const STEPS = [[60, "second"], [60, "minute"], [24, "hour"], [7, "day"], [4.34, "week"], [12, "month"], [Infinity, "year"]];

function localize(time) {
  const at = new Date(time.dateTime);
  if (Number.isNaN(at.valueOf())) return;
  const language = document.documentElement.lang;
  const exact = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" }).format(at);
  time.title = `${exact}\n${at.toISOString().replace("T", " ").slice(0, 19)} UTC`;
  if (time.dataset.style === "exact") return void (time.textContent = exact);
  let value = (at - Date.now()) / 1000;
  for (const [size, unit] of STEPS) {
    if (Math.abs(value) < size) {
      time.textContent = new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(Math.trunc(value), unit);
      return;
    }
    value /= size;
  }
}

/** A field of a moment, which its reader sees in their own zone; the server knows UTC alone. */
function localizeField(field) {
  const at = new Date(field.dataset.utc);
  if (Number.isNaN(at.valueOf())) return;
  // The default, too: a dialog's form is reset as it opens.
  field.defaultValue = field.value = new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

setInterval(() => document.querySelectorAll("time[datetime]").forEach(localize), 30_000);

// ---------------------------------------------------------------------------------------------------- small things

function cookie(name, value) {
  document.cookie = `${name}=${value}; path=/; max-age=${value ? 31536000 : 0}; samesite=lax`;
}

function showTheme() {
  const theme = document.documentElement.dataset.theme ?? "";
  for (const button of document.querySelectorAll("[data-theme-choice]")) button.setAttribute("aria-pressed", button.dataset.themeChoice === theme);
  for (const button of document.querySelectorAll("[data-language]")) button.setAttribute("aria-pressed", document.documentElement.lang.startsWith(button.dataset.language));
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-api]")) return;
  event.preventDefault();
  event.stopPropagation();
  act(form, form);
}, true);

document.addEventListener("click", async (event) => {
  const target = event.target.closest("[data-api], [data-open], [data-dismiss], [data-copy], [data-toggle], [data-theme-choice], [data-language], [data-new-of]");
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target) || event.target.closest("[data-api], [data-open]")) menu.open = false;
  const rail = document.getElementById("rail");
  if (rail?.dataset.open !== undefined && (!rail.contains(event.target) || event.target.closest("a")) && !event.target.closest("[data-toggle]")) toggleRail(false);
  if (!target || target.matches("form")) return;
  if ("api" in target.dataset) act(target, null);
  else if ("open" in target.dataset) openDialog(document.getElementById(target.dataset.open), JSON.parse(target.dataset.fill ?? "{}"));
  else if ("dismiss" in target.dataset) target.closest("dialog").close();
  else if ("copy" in target.dataset) { await navigator.clipboard.writeText(target.dataset.copy); toast(words().copied); }
  else if ("newOf" in target.dataset) { target.hidden = true; refresh((kinds) => kinds.includes("*"), true); scrollTo({ top: 0 }); }
  else if ("toggle" in target.dataset) toggleRail(rail.dataset.open === undefined);
  else if ("themeChoice" in target.dataset) { cookie("agenthq_theme", target.dataset.themeChoice); document.documentElement.dataset.theme = target.dataset.themeChoice; showTheme(); }
  else if ("language" in target.dataset) { cookie("agenthq_language", target.dataset.language); location.reload(); }
});

/** Opens a dialog as new, with these values in their places. */
export function openDialog(dialog, values = {}) {
  for (const form of dialog.querySelectorAll("form")) {
    form.reset();
    clearProblem(form);
    for (const id of form.dataset.previewParts?.split(" ") ?? []) document.getElementById(id)?.replaceChildren();
    for (const [name, value] of Object.entries(values)) if (form.elements[name] instanceof Element) form.elements[name].value = value;
  }
  for (const part of dialog.querySelectorAll("[data-before-secret]")) part.hidden = false;
  for (const part of dialog.querySelectorAll("[data-after-secret]")) part.hidden = true;
  for (const place of dialog.querySelectorAll("[data-fill-text]")) if (place.dataset.fillText in values) place.textContent = values[place.dataset.fillText];
  for (const field of dialog.querySelectorAll("[data-fill-confirm]")) field.dataset.confirm = values[field.dataset.fillConfirm] ?? "";
  dialog.showModal();
}

function toggleRail(open) {
  const rail = document.getElementById("rail");
  rail.toggleAttribute("data-open", open);
  document.querySelector("[data-toggle=rail]").setAttribute("aria-expanded", open);
  if (open) rail.querySelector("summary").focus();
}

document.addEventListener("input", (event) => {
  const field = event.target;
  if (field.dataset?.confirm !== undefined) field.setCustomValidity(field.value === field.dataset.confirm ? "" : field.dataset.confirm);
});

document.addEventListener("change", (event) => {
  const form = event.target.closest('form[data-filters=""]');
  if (form) go(form);
  if ("goWith" in event.target.dataset) location.assign(event.target.value);
});

/** To the page that a filter form describes, without its empty fields. */
function go(form) {
  const moments = new Set([...form.querySelectorAll("[data-utc]")].map((field) => field.name));
  const given = [...new FormData(form)].filter(([, value]) => value !== "");
  const query = new URLSearchParams(given.map(([name, value]) => [name, moments.has(name) ? new Date(value).toISOString() : value]));
  const url = `${form.getAttribute("action")}${query.size ? `?${query}` : ""}`;
  globalThis.htmx.ajax("GET", url, { target: "body", swap: "innerHTML" }).then(() => history.pushState({ htmx: true }, "", url));
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-filters]")) return;
  event.preventDefault();
  go(event.target);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") toggleIfOpen();
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select, [contenteditable]")) return;
  const jump = document.querySelector("[data-jump]");
  if (!jump?.checkVisibility()) return;
  event.preventDefault();
  jump.focus();
});

/** Arrow keys, Home and End move through the links of a [data-rove]; Tab comes back to where one was. */
document.addEventListener("keydown", (event) => {
  const links = [...(event.target.closest("[data-rove]")?.querySelectorAll("a") ?? [])];
  const at = links.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: links.length - 1 }[event.key];
  if (at < 0 || links[to] === undefined) return;
  event.preventDefault();
  links[at].tabIndex = -1;
  links[to].tabIndex = 0;
  links[to].focus();
});

function toggleIfOpen() {
  for (const menu of document.querySelectorAll("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
  if (document.getElementById("rail")?.dataset.open !== undefined) toggleRail(false);
}

/** After a page came, whole or in parts. */
export function settle() {
  document.querySelectorAll("time[datetime]").forEach(localize);
  document.querySelectorAll("[data-utc]").forEach(localizeField);
  showTheme();
  showPeople();
}

function arrive() {
  settle();
  connect();
  if (!team) return;
  showConnection(team.socket.status);
  if (pageSeq() < team.socket.lastSeq) follow("*"); // it came while this page was on its way
}

document.body.addEventListener("htmx:afterSettle", arrive);
document.body.addEventListener("htmx:historyRestore", arrive);
arrive();
