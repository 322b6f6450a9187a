// Dialogs: what is asked before something is done, and forms whose fields show what the API says of them.

import { ApiError } from "./api.js";
import { h, put } from "./dom.js";

let count = 0;

function show(dialog) {
  const before = document.activeElement;
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before?.isConnected) before.focus();
  });
  dialog.showModal();
}

/** A field: {name, label, type, value, hint, wide, options, required, autocomplete}. */
export function field(spec) {
  const id = `field-${++count}`;
  const { type = "text", value = "" } = spec;
  const common = { id, name: spec.name, required: spec.required, "aria-describedby": `${id}-wrong${spec.hint ? ` ${id}-hint` : ""}` };
  let input;
  if (type === "select") {
    input = h("select", common, spec.options.map((option) => h("option", { value: option, selected: option === value }, option)));
  } else if (type === "textarea") {
    input = h("textarea", { ...common, rows: spec.rows ?? 2, spellcheck: "false" }, value);
  } else {
    const more = { type, value: type === "checkbox" ? "on" : value, checked: type === "checkbox" && value !== "", autocomplete: spec.autocomplete ?? "off" };
    input = h("input", { ...common, ...more, inputmode: spec.inputmode, placeholder: spec.placeholder, spellcheck: "false" });
  }
  const wrong = h("div", { class: "wrong", id: `${id}-wrong` });
  const hint = spec.hint && h("div", { class: "note", id: `${id}-hint` }, spec.hint);
  const label = type === "checkbox" ? h("label", { class: "check", for: id }, input, spec.label) : h("label", { for: id }, spec.label);
  const node = h("div", { class: `field${spec.wide ? " wide" : ""}` }, label, type === "checkbox" ? null : input, hint, wrong);
  return { node, input, name: spec.name, get value() { return type === "checkbox" ? input.checked : input.value.trim(); }, say(text) {
    put(wrong, text);
    if (text) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  } };
}

/** Puts what an error says at the fields that it names, and the rest into `place`. Returns whether it was the API's. */
export function explain(error, fields, place) {
  if (!(error instanceof ApiError)) throw error;
  const rest = [];
  const said = new Map();
  for (const { field: path, message } of error.errors) {
    const at = fields.find(({ name }) => path === name || path.startsWith(`${name}.`) || path.startsWith(`${name}[`));
    if (at) said.set(at, [...(said.get(at) ?? []), path === at.name ? message : `${path}: ${message}`]);
    else rest.push(path === "body" ? message : `${path}: ${message}`);
  }
  for (const [at, messages] of said) at.say(messages.join("; "));
  put(place, error.errors.length ? rest.join("; ") : error.message);
  [...said.keys()][0]?.input.focus();
}

/** A form in a dialog. `work(values)` does it; what it throws is shown. Done once it returns. */
export function form(title, fields, submit, work, { about, danger } = {}) {
  const all = fields.map(field);
  const wrong = h("div", { class: "wrong", role: "alert" });
  const button = h("button", { class: danger ? "danger" : "main", type: "submit" }, submit);
  const id = `dialog-${++count}`;
  const dialog = h("dialog", { "aria-labelledby": id },
    h("form", { novalidate: true, onsubmit: async (event) => {
      event.preventDefault();
      all.forEach((one) => one.say(""));
      put(wrong);
      button.disabled = true;
      try {
        await work(Object.fromEntries(all.map((one) => [one.name, one.value])));
        dialog.close();
      } catch (error) {
        explain(error, all, wrong);
      } finally {
        button.disabled = false;
      }
    } },
    h("h2", { id }, title), about && h("div", { class: "muted" }, about), all.length > 0 && h("div", { class: "form" }, all.map((one) => one.node)), wrong,
    h("div", { class: "end" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), button)));
  show(dialog);
}

/** Asks whether something is to be done, and does it. */
export const confirm = (title, about, submit, work, danger) => form(title, [], submit, work, { about, danger });

/** Shows something that is shown only once. */
export function reveal(title, about, secret) {
  const id = `dialog-${++count}`;
  const dialog = h("dialog", { "aria-labelledby": id }, h("div", { class: "inside" },
    h("h2", { id }, title), h("div", { class: "muted" }, about),
    h("output", { class: "mono", tabindex: 0 }, secret),
    h("div", { class: "end" },
      navigator.clipboard && h("button", { type: "button", onclick: () => navigator.clipboard.writeText(secret) }, "Copy"),
      h("button", { class: "main", type: "button", onclick: () => dialog.close() }, "Done"))));
  show(dialog);
}
