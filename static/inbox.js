// The inbox by keyboard: j and k move, a approves, r rejects, x selects; and how many are selected.
"use strict";
(() => {
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const cases = () => $$("[data-case]");
  const inHand = () => document.activeElement?.closest?.("[data-case]");
  const take = (card) => {
    const link = card?.querySelector("[data-row-link]");
    link?.focus();
    card?.scrollIntoView({ block: "nearest" });
  };
  const move = (by) => {
    const all = cases();
    const at = all.indexOf(inHand());
    take(at < 0 ? all[by > 0 ? 0 : all.length - 1] : all[at + by]);
  };

  // A rejection and a grant of quota need words: without them the key leads to their field.
  const press = (card, selector) => {
    const button = card?.querySelector(selector);
    const comment = card?.querySelector("[data-comment]");
    if (!button) { window.slipway?.say("You cannot decide about this one."); return; }
    const wanting = comment && !comment.value.trim() && (selector === "[data-reject]" || comment.required);
    if (wanting) {
      comment.focus();
      comment.dataset.then = selector;
      window.slipway?.say("Say why, then press Enter.");
      return;
    }
    button.click();
  };

  // Enter in a comment decides only what a key has announced before: elsewhere it would not be clear which button is meant.
  document.addEventListener("keydown", (event) => {
    const comment = event.target.closest?.("[data-comment]");
    if (!comment) return;
    if (event.key === "Escape") { delete comment.dataset.then; take(comment.closest("[data-case]")); return; }
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    const button = comment.dataset.then && comment.form.querySelector(comment.dataset.then);
    if (button && comment.value.trim()) button.click();
    else window.slipway?.say("Press one of the two buttons.");
  });
  document.addEventListener("focusout", (event) => { if (event.target.matches?.("[data-comment]")) delete event.target.dataset.then; });

  let before = "";
  const keys = {
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    a: () => press(inHand(), "[data-approve]"),
    r: () => press(inHand(), "[data-reject]"),
    x: () => inHand()?.querySelector("input[name=item]")?.click(),
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
    const taken = typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat && "ar".includes(event.key);
    const two = before === "g"; // g a goes to the approvals
    before = event.key;
    setTimeout(() => { before = ""; }, 900);
    if (taken || two || document.querySelector("dialog[open]") || !keys[event.key]) return;
    // Between links of rows the arrows move already.
    if (event.key.startsWith("Arrow") && (document.activeElement?.matches("[data-row-link]") || !inHand() && document.activeElement !== document.body)) return;
    if ("ar".includes(event.key) && !inHand()) return;
    event.preventDefault();
    keys[event.key]();
  });

  const boxes = () => $$("input[name=item][form=bulk]");
  const count = () => {
    const chosen = boxes().filter((box) => box.checked).length;
    $$("[data-selected]").forEach((node) => { node.textContent = chosen ? `(${chosen})` : ""; });
    $$("[data-select-all]").forEach((box) => {
      box.checked = chosen > 0 && chosen === boxes().length;
      box.indeterminate = chosen > 0 && chosen < boxes().length;
    });
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-select-all]")) boxes().forEach((box) => { box.checked = event.target.checked; });
    count();
  });
  document.addEventListener("DOMContentLoaded", count);
  // Whoever decided by keyboard goes on with the next one.
  document.addEventListener("htmx:afterSettle", (event) => {
    count();
    const done = event.detail.elt;
    if (!done?.matches?.("[data-done]")) return;
    const next = done.nextElementSibling;
    if (document.activeElement === document.body || !document.activeElement) {
      if (next?.matches("[data-case]")) take(next); else done.focus();
    }
  });
})();
