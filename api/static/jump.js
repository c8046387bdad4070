/**
 * The jump box as a combobox (ARIA Authoring Practices): the entries of the page that it leads to, as one types. Arrow keys choose,
 * Enter follows, Escape closes; Enter without a choice opens the page itself.
 */
const WAIT_MS = 120;
const LIST = "jump-list";
let waiting = null;
let asked = null;

const box = () => document.querySelector("[data-jump]");
const options = () => [...document.querySelectorAll(`#${LIST} [role=option]`)];

function close() {
  clearTimeout(waiting);
  asked?.abort();
  document.getElementById(LIST)?.remove();
  box()?.setAttribute("aria-expanded", "false");
  box()?.removeAttribute("aria-activedescendant");
}

function choose(option) {
  for (const each of options()) each.setAttribute("aria-selected", each === option);
  if (!option) return void box().removeAttribute("aria-activedescendant");
  box().setAttribute("aria-activedescendant", option.id);
  option.scrollIntoView({ block: "nearest" });
}

function show(links) {
  const input = box();
  const list = Object.assign(document.createElement("ul"), { id: LIST, className: "jump-list" });
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", input.labels[0].textContent);
  links.forEach((link, index) => {
    const option = Object.assign(document.createElement("li"), { id: `${LIST}-${index}` });
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", "false");
    option.dataset.href = link.getAttribute("href");
    option.append(...[...link.childNodes].map((node) => document.importNode(node, true)));
    option.append(Object.assign(document.createElement("span"), { className: "kind", textContent: link.dataset.jumpResult }));
    list.append(option);
  });
  document.getElementById(LIST)?.remove();
  input.form.append(list);
  list.hidden = !links.length;
  input.setAttribute("aria-expanded", links.length > 0);
  const said = links.length > 1 ? input.dataset.many.replace("{n}", links.length) : links.length ? input.dataset.one : input.dataset.none;
  document.getElementById("jump-count").textContent = said;
}

async function ask() {
  const input = box();
  const text = input.value.trim();
  if (!text) return close();
  asked?.abort();
  const { signal } = (asked = new AbortController());
  try {
    const response = await fetch(`${input.form.action}?${new URLSearchParams({ q: text })}`, { signal });
    if (!response.ok || response.redirected) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (document.activeElement === input) show([...page.querySelectorAll("[data-jump-result]")]);
  } catch {
    if (!signal.aborted) close(); // else somebody typed on; without a connection, its state says so
  }
}

document.addEventListener("focusin", (event) => {
  if (!event.target.matches("[data-jump]")) return;
  for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-controls", LIST], ["aria-expanded", "false"]]) {
    if (!event.target.hasAttribute(name)) event.target.setAttribute(name, value);
  }
});

document.addEventListener("input", (event) => {
  if (!event.target.matches("[data-jump]")) return;
  clearTimeout(waiting);
  waiting = setTimeout(ask, WAIT_MS);
});

document.addEventListener("focusout", (event) => event.target.matches?.("[data-jump]") && close());

document.addEventListener("keydown", (event) => {
  if (!event.target.matches?.("[data-jump]") || event.isComposing) return;
  const all = options();
  const at = all.findIndex((option) => option.getAttribute("aria-selected") === "true");
  if (event.key === "ArrowDown" && all.length) choose(all[(at + 1) % all.length]);
  else if (event.key === "ArrowUp" && all.length) choose(all[(at <= 0 ? all.length : at) - 1]);
  else if (event.key === "Enter" && at >= 0) location.assign(all[at].dataset.href);
  else if (event.key === "Escape" && all.length) close();
  else return;
  event.preventDefault();
});

// Before the focus leaves the box, which would close the list.
document.addEventListener("mousedown", (event) => event.target.closest(`#${LIST}`) && event.preventDefault());
document.addEventListener("click", (event) => {
  const option = event.target.closest(`#${LIST} [role=option]`);
  if (option) location.assign(option.dataset.href);
});
