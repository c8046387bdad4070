/**
 * What the pages of people, roles and keys need besides console.js.
 *
 *   form[data-preview="/teams/…"]      each change asks that page with the form's fields, and takes over the parts [data-preview-parts];
 *     data-preview-url                 the address follows, so that what is shown can be linked
 *   select[data-dialog-from="…{value}"]  the [data-dialog-part] of that page in the dialog #from-page; closed, the select is as before
 *   form[data-invite="/teams/…"]       many addresses at once, and what became of each
 *   button[data-link-of="address"]     after it the new link of the invitation, in the dialog #link
 *   button[data-check="read"]          checks those boxes of its form whose data-action it is ("": all; "none")
 */
import { ask, clearProblem, openDialog, refresh, settle, showProblem } from "/static/console.js";

const MOST_AT_ONCE = 100;
const linkOf = (token) => `${location.origin}/invitations/accept?token=${encodeURIComponent(token)}`;

// ---------------------------------------------------------------------------------------------------- before it is saved

async function pageAt(url) {
  const response = await fetch(url, { headers: { Accept: "text/html" } });
  return response.ok && !response.redirected ? new DOMParser().parseFromString(await response.text(), "text/html") : null;
}

const newest = new WeakMap();

async function preview(form) {
  const turn = (newest.get(form) ?? 0) + 1;
  newest.set(form, turn);
  const fields = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  const url = `${form.dataset.preview}${form.dataset.preview.includes("?") ? "&" : "?"}${fields}`;
  if ("previewUrl" in form.dataset) history.replaceState(history.state, "", url);
  const page = await pageAt(url).catch(() => null);
  if (!page || newest.get(form) !== turn) return;
  for (const id of form.dataset.previewParts.split(" ")) {
    const [part, newer] = [form.querySelector(`#${id}`) ?? document.getElementById(id), page.getElementById(id)];
    if (part && newer) globalThis.Idiomorph.morph(part, newer);
  }
  settle();
}

async function openFrom(select) {
  const page = await pageAt(select.dataset.dialogFrom.replace("{value}", encodeURIComponent(select.value))).catch(() => null);
  const part = page?.querySelector("[data-dialog-part]");
  const dialog = document.getElementById("from-page");
  if (!part) return asBefore();
  part.querySelectorAll("[data-in-dialog]").forEach((each) => (each.hidden = false));
  part.classList.remove("panel");
  part.removeAttribute("data-refresh"); // what somebody is deciding on stays
  dialog.querySelector("[data-from-page]").replaceChildren(document.importNode(part, true));
  settle();
  dialog.showModal();
  dialog.querySelector("button.primary").focus();
}

function asBefore() {
  for (const select of document.querySelectorAll("select[data-dialog-from]")) {
    select.value = [...select.options].find((option) => option.defaultSelected)?.value ?? select.value;
  }
}

document.addEventListener("close", (event) => {
  if (event.target.id !== "from-page") return;
  event.target.querySelector("[data-from-page]").replaceChildren();
  asBefore();
}, true);

document.addEventListener("change", (event) => {
  if (event.target.matches("select[data-dialog-from]")) return void openFrom(event.target);
  const form = event.target.closest("form[data-preview]");
  if (form && event.target.dataset.confirm === undefined) preview(form);
});

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-preview]:not([data-api])")) return;
  event.preventDefault();
  event.stopPropagation();
  preview(event.target);
}, true);

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-check]");
  if (!button) return;
  const wanted = button.dataset.check;
  for (const field of button.form.querySelectorAll("[data-action]")) field.checked = wanted === "" || field.dataset.action === wanted;
});

// ---------------------------------------------------------------------------------------------------- invitations

/** The addresses in what somebody pasted: one a line or between commas, also as `Name <address>`; each once. */
export function addressesIn(text) {
  const found = new Map();
  for (const piece of text.split(/[\n,;]+/)) {
    const bracketed = /<([^<>\s]+)>/.exec(piece)?.[1];
    const words = piece.trim().split(/\s+/).filter(Boolean);
    const addresses = words.filter((word) => word.includes("@"));
    for (const address of bracketed ? [bracketed] : addresses.length ? addresses : words.length ? [words.join(" ")] : []) {
      found.set(address.toLowerCase(), address);
    }
  }
  return [...found.values()];
}

function label(form) {
  const button = form.querySelector("button.primary");
  const count = addressesIn(form.elements.addresses.value).length;
  button.textContent = count > 1 ? button.dataset.many.replace("{n}", count) : count ? button.dataset.one : button.dataset.none;
}

async function invite(form) {
  clearProblem(form);
  const button = form.querySelector("button.primary");
  const addresses = addressesIn(form.elements.addresses.value);
  const results = [];
  button.disabled = true;
  for (let begin = 0; begin < addresses.length; begin += MOST_AT_ONCE) {
    const some = addresses.slice(begin, begin + MOST_AT_ONCE);
    const answer = await ask("POST", form.dataset.invite, { invitations: some.map((email) => ({ email, role: form.elements.role.value })) });
    if (answer.ok) results.push(...answer.json.results);
    else if (!results.length) { // none of them was invited: what to mend stands beside the field
      button.disabled = false;
      return showProblem(form, about(answer.problem, some));
    } else results.push(...some.map((email) => ({ email, error: answer.problem })));
  }
  button.disabled = false;
  showResults(form.closest("dialog"), results);
  refresh(() => true);
}

/** The problem of a whole batch, said of the addresses that have it. */
function about(problem, addresses) {
  const each = Object.entries(problem.errors?.invitations ?? {});
  if (!each.length) return problem;
  const said = each.map(([index, fields]) => `${addresses[index]}: ${Object.values(fields).flat().join(" ")}`);
  return { ...problem, errors: { addresses: said } };
}

function showResults(dialog, results) {
  const [line, ...icons] = dialog.querySelectorAll("template");
  const icon = (name) => icons.find((template) => template.dataset.icon === name).content.cloneNode(true);
  const list = dialog.querySelector(".results");
  list.replaceChildren(...results.map(({ email, invitation, error }) => {
    const item = line.content.firstElementChild.cloneNode(true);
    item.querySelector(".verdict").append(icon(invitation ? "invited" : "refused"));
    item.querySelector(".address").textContent = email;
    item.querySelector(".why").textContent = error?.detail ?? "";
    const copy = item.querySelector("button");
    if (invitation) copy.dataset.copy = linkOf(invitation.token);
    else copy.remove();
    return item;
  }));
  const invited = results.filter(({ invitation }) => invitation).length;
  const outcome = dialog.querySelector("[data-outcome]");
  const said = invited === results.length ? outcome.dataset.all : outcome.dataset.some;
  outcome.textContent = said.replace("{n}", invited).replace("{m}", results.length - invited);
  for (const part of dialog.querySelectorAll("[data-before-secret]")) part.hidden = true;
  for (const part of dialog.querySelectorAll("[data-after-secret]")) part.hidden = false;
  outcome.focus();
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-invite]")) return;
  event.preventDefault();
  event.stopPropagation();
  invite(event.target);
}, true);

document.addEventListener("input", (event) => {
  if (event.target.form?.matches("form[data-invite]")) label(event.target.form);
});
document.addEventListener("reset", (event) => {
  if (event.target.matches("form[data-invite]")) setTimeout(() => label(event.target));
});

document.addEventListener("done", ({ target, detail }) => {
  if (target.dataset.linkOf === undefined) return;
  const dialog = document.getElementById("link");
  openDialog(dialog, { email: target.dataset.linkOf, link: linkOf(detail.token) });
  dialog.querySelector("[data-copy]").dataset.copy = linkOf(detail.token);
  refresh(() => true);
});
