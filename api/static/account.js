/** Setting up the second factor: the secret as a QR code, as text and as a link; then the recovery codes, shown once. */
import { openDialog, refresh } from "/static/console.js";

const SVG = "http://www.w3.org/2000/svg";
const QUIET_MODULES = 4; // around the code, as ISO 18004 asks

async function drawCode(place, text) {
  const { encode } = await import("/static/vendor/uqr-0.1.3.js");
  const { data, size } = encode(text, { border: QUIET_MODULES });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
  svg.setAttribute("shape-rendering", "crispEdges");
  const dark = document.createElementNS(SVG, "path");
  dark.setAttribute("d", data.flatMap((row, y) => row.flatMap((on, x) => (on ? [`M${x} ${y}h1v1h-1z`] : []))).join(""));
  svg.append(dark);
  place.replaceChildren(svg);
}

function showSecret(form, { secret, uri }) {
  const dialog = form.closest("dialog");
  const text = dialog.querySelector("[data-setup-secret]");
  text.textContent = secret.replace(/(.{4})(?=.)/g, "$1 ");
  text.dataset.copy = secret;
  dialog.querySelector("[data-setup-link]").href = uri;
  dialog.querySelector("[data-before-secret]").hidden = true;
  const next = dialog.querySelector("[data-after-secret]");
  next.hidden = false;
  drawCode(dialog.querySelector("[data-qr]"), uri);
  next.elements.code.focus();
}

function showCodes(form, { recovery_codes: codes }) {
  form.closest("dialog").close();
  const dialog = document.getElementById("codes");
  dialog.querySelector("ol").replaceChildren(...codes.map((code) => Object.assign(document.createElement("li"), { textContent: code })));
  dialog.querySelector("[data-all-codes]").dataset.copy = codes.join("\n");
  openDialog(dialog);
  refresh(() => true);
}

document.addEventListener("done", ({ target, detail }) => {
  if (target.dataset.step === "secret") showSecret(target, detail);
  else if (target.dataset.step === "codes") showCodes(target, detail);
});

// The second factor's dialogs are of its state: what was set up or taken away needs others.
document.addEventListener("close", ({ target }) => {
  if (target.id === "codes") location.reload();
}, true);
document.addEventListener("done", ({ target }) => {
  if (target.closest("#disable-factor")) location.reload();
});
