// Rows of a list that are selected: how many, all of them, and by keyboard (x). Selections survive live updates.
"use strict";
(() => {
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const boxes = () => $$("[data-select]");

  const count = () => {
    const chosen = boxes().filter((box) => box.checked).length;
    $$("[data-selected]").forEach((node) => { node.textContent = chosen ? `(${chosen})` : ""; });
    $$("#stop-selected").forEach((button) => { button.disabled = !chosen; });
    $$("[data-select-all]").forEach((box) => {
      box.checked = chosen > 0 && chosen === boxes().length;
      box.indeterminate = chosen > 0 && chosen < boxes().length;
    });
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-select-all]")) boxes().forEach((box) => { box.checked = event.target.checked; });
    if (!event.target.matches("[data-select-all], [data-select]")) return;
    count();
    const chosen = boxes().filter((box) => box.checked).length;
    window.slipway?.say(chosen ? `${chosen} selected` : "Nothing selected");
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (typing || event.key !== "x" || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    document.activeElement?.closest?.("tr")?.querySelector("[data-select]")?.click();
  });
  document.addEventListener("DOMContentLoaded", count);
  document.addEventListener("htmx:afterSettle", count);
})();
