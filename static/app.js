// What every page needs: theme, menus, dialogs, toasts, copying, times, keys, one-click fixes, and live refresh.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const on = (type, run, options) => document.addEventListener(type, run, options);

  // Morphing keeps what a person is typing, and open menus and details.
  if (window.Idiomorph) {
    Object.assign(Idiomorph.defaults, { ignoreActiveValue: true });
    // Figures that another request fills in stay until it brings newer ones.
    Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => !(node.dataset && "keep" in node.dataset);
    // htmx goes on listening at an element that has lost its address: such a one is put in anew after the swap.
    const lost = new Set();
    Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node, change) => {
      if (change === "remove" && (name === "hx-get" || name === "hx-post")) lost.add(node);
      // Rows that somebody has selected stay so.
      if ((name === "checked" || name === "disabled") && node.matches("[data-select], [data-select-all], #stop-selected")) return false;
      return !(name === "open" && (node.tagName === "DETAILS" || node.tagName === "DIALOG"));
    };
    on("htmx:afterSwap", () => {
      lost.forEach((node) => { const fresh = node.cloneNode(true); node.replaceWith(fresh); htmx.process(fresh); });
      lost.clear();
    });
  }

  // ---- theme
  const applyTheme = (theme) => {
    if (theme) { localStorage.setItem("slipway-theme", theme); document.documentElement.dataset.bsTheme = theme; }
    else { localStorage.removeItem("slipway-theme"); delete document.documentElement.dataset.bsTheme; }
    markTheme();
  };
  const markTheme = () => {
    const theme = document.documentElement.dataset.bsTheme || "";
    $$("[data-theme-choice]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.themeChoice === theme)));
  };

  // ---- toasts and the live region
  const say = (text) => { const region = $("#live-region"); if (region) region.textContent = text; };
  const toast = (text, tone = "grey") => {
    const template = $("#toast-template");
    const node = template.content.firstElementChild.cloneNode(true);
    node.classList.add(`t-${tone}`);
    $("[data-text]", node).textContent = text;
    $("#toasts").append(node);
    setTimeout(() => node.remove(), 8000);
  };
  window.slipway = { toast, say };

  // ---- times: relative up to a day, exact on hover, in the viewer's zone
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const short = (seconds) => {
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    return `${Math.floor(s / 3600)} h`;
  };
  let skew = 0; // the server's clock minus ours, in ms
  const now = () => Date.now() + skew;
  const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const times = (root = document) => $$("time[datetime]", root).forEach((node) => {
    const at = Date.parse(node.dateTime);
    if (Number.isNaN(at)) return;
    if (!node.dataset.exact) { node.dataset.exact = "1"; node.title = exact.format(at); }
    if (node.dataset.form === "clock") { write(node, now() - at < 86400000 ? clock.format(at) : day.format(at)); return; }
    if (node.dataset.form !== "ago") return;
    const age = (now() - at) / 1000;
    write(node, age < -1 ? `in ${short(-age)}` : age < 86400 ? `${short(age)} ago` : day.format(at));
  });
  const freshness = () => $$("[data-seen]").forEach((node) => {
    const seen = Number(node.dataset.seen);
    const label = $("[data-label]", node);
    if (!seen) return;
    const age = (now() - seen) / 1000;
    const lost = node.dataset.trouble === "1";
    const tone = lost ? "red" : age < 45 ? "green" : "yellow";
    node.className = node.className.replace(/\bt-\w+/, `t-${tone}`);
    const use = $("use", node);
    const shape = { red: "cross", green: "dot", yellow: "triangle" }[tone];
    use.setAttribute("href", use.getAttribute("href").replace(/#.*/, `#${shape}`));
    write(label, lost ? `not reached for ${short(age)}` : `${tone === "green" ? "live" : "last seen"}${tone === "green" ? "," : ""} ${short(age)} ago`);
    document.body.classList.toggle("cluster-stale", tone !== "green");
  });
  const tick = () => { times(); freshness(); };
  setInterval(times, 5000);
  setInterval(freshness, 1000);

  // ---- how many requests wait for this person, wherever the page says so
  on("slipway:waiting", ({ detail: { count } }) => {
    $$("[data-waiting]").forEach((node) => write(node, String(count)));
    $$("[data-waiting-box]").forEach((node) => { node.hidden = !count; });
  });

  // ---- dialogs: what a link would open as a page is shown in a box
  on("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "dialog-body") { const box = $("#dialog"); if (!box.open) box.showModal(); }
    times(event.detail.target);
    markTheme();
  });
  on("htmx:oobAfterSwap", (event) => times(event.detail.target));
  on("htmx:responseError", (event) => toast(event.detail.xhr.status === 404 ? "This is not here any more." : event.detail.xhr.status === 413 ? "That is more than one request may hold. Nothing was changed." : "That did not work. The page may be out of date: reload it.", "red"));
  on("htmx:sendError", () => toast("Slipway cannot be reached just now. Nothing was lost; try again in a moment.", "red"));
  // A person reads forms again with their mistakes marked, and why what they decided about is another thing by now.
  on("htmx:beforeSwap", (event) => { if ([409, 412, 422].includes(event.detail.xhr.status)) { event.detail.shouldSwap = true; event.detail.isError = false; } });

  // ---- a field is marked wrong while its message box says so
  const markInvalid = () => $$("[id^='msg-']").forEach((box) => {
    const field = $(`#id_${box.id.slice(4)}`);
    if (!field) return;
    // Who folds a part away after that is left alone.
    if ($(".t-red", box) && field.getAttribute("aria-invalid") !== "true") field.closest("details")?.setAttribute("open", "");
    if ($(".t-red", box)) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  });
  on("htmx:afterSettle", markInvalid);
  const show = (field) => {
    field?.closest("details")?.setAttribute("open", "");
    field?.focus();
  };
  const showFirstMistake = () => show($("form[data-refused] [aria-invalid='true']"));
  // The button that was pressed is gone with its form: who pressed it goes on at what is wrong.
  on("htmx:afterSettle", ({ detail: { elt } }) => {
    if (document.activeElement === document.body) show($("[aria-invalid='true']", elt));
  });

  // ---- one-click fixes: put a value into its field, or into the expert flags
  // The fewest replicas follow the most, and the other way round, where they would stand in its way.
  const keepInOrder = (form, name) => {
    const [, stem, end] = name.match(/^(.*replicas)_(min|max)$/) || [];
    if (!stem || Number(form.elements[`${stem}_min`].value) <= Number(form.elements[`${stem}_max`].value)) return;
    form.elements[`${stem}_${end === "min" ? "max" : "min"}`].value = form.elements[name].value;
  };
  const setField = (form, name, value) => {
    const field = form.elements[name];
    // Flags of one role of a disaggregated deployment have a box of their own.
    const [, role, bare] = name.match(/^(?:(prefill|decode)_)?(.*)$/);
    const box = form.elements[role ? `${role}_args` : "args"];
    const flag = bare.replaceAll("_", "-");
    const lines = box ? box.value.split("\n").filter((line) => line.trim()) : [];
    // Of several flags in a line the others would be lost, so such a line is left as it is (deployments.forms.flags).
    const says = (line) =>
      !/\s--?[A-Za-z]/.test(line.trim())
      && [`--${flag}`, `--no-${flag}`].includes(line.trim().split(/[=\s]/)[0].replaceAll("_", "-"));
    // A flag that was written as a line is set there, also where it has a field.
    if (field && !lines.some(says)) {
      if (field.type === "checkbox") field.checked = value === "true";
      else field.value = value;
      keepInOrder(form, name);
      return field instanceof RadioNodeList ? form : field;
    }
    box.value = [...lines.filter((line) => !says(line)), ...(value ? [`--${flag}=${value}`] : [])].join("\n");
    box.closest("details")?.setAttribute("open", "");
    return box;
  };

  on("click", (event) => {
    const hit = (selector) => event.target.closest?.(selector);
    let node;
    if ((node = hit("[data-theme-choice]"))) applyTheme(node.dataset.themeChoice);
    if ((node = hit("[data-close]"))) { const box = node.closest("dialog"); if (box) { event.preventDefault(); box.close(); } else node.closest("[data-dismiss]")?.remove(); }
    if ((node = hit("[data-dialog]"))) { event.preventDefault(); $(`#${node.dataset.dialog}`).showModal(); }
    if ((node = hit("[data-set-field]")) && node.form) {
      event.preventDefault();
      const field = setField(node.form, node.dataset.setField, node.dataset.setValue);
      field.closest("details")?.setAttribute("open", "");
      field.focus?.({ preventScroll: true });
      field.dispatchEvent(new Event("change", { bubbles: true }));
      say(node.textContent.trim());
    }
    if ((node = hit("[data-copy]"))) {
      const source = $(node.dataset.copy);
      navigator.clipboard?.writeText(source.value ?? source.textContent).then(() => toast("Copied.", "green"), () => toast("The browser did not allow copying.", "yellow"));
    }
    if ((node = hit("[data-set-many]")) && node.form) {
      event.preventDefault();
      // The focus stays on the row: the fields may be in a part that is folded away.
      new URLSearchParams(node.dataset.setMany).forEach((value, name) => setField(node.form, name, value));
      node.form.dispatchEvent(new Event("change", { bubbles: true }));
      say(`Set to ${node.textContent}`);
    }
    if (event.target.nodeName === "DIALOG") event.target.close();
    $$("details.menu[open]").forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; });
  });

  on("input", (event) => $$(`[data-mirror="${event.target.id}"]`).forEach((node) => { node.textContent = event.target.value || "name"; }));

  on("change", (event) => event.target.closest?.("form[data-submit-on-change]")?.requestSubmit());

  // ---- a file is read into the text above it; one that is too large is told there, and never sent
  on("change", (event) => {
    const input = event.target.closest?.("[data-read-into]");
    const file = input?.files[0];
    if (!file) return;
    const field = $(`#id_${input.dataset.readInto}`);
    const box = $(`#msg-${input.dataset.readInto}`);
    input.value = "";
    if (file.size > Number(input.dataset.most)) {
      box.replaceChildren($(`#large-${input.dataset.readInto}`).content.cloneNode(true));
      field.setAttribute("aria-invalid", "true");
      input.focus();
      return;
    }
    file.text().then((text) => {
      field.value = text;
      box.replaceChildren();
      field.removeAttribute("aria-invalid");
      field.focus();
      say(`${file.name} is in the text now.`);
    });
  });

  // ---- keys
  const goto = { d: "deployments", o: "overview", c: "capacity", a: "approvals", m: "metrics" };
  let before = "";
  on("keydown", (event) => {
    if (event.key === "Escape") {
      const menu = $("details.menu[open]");
      if (menu) { menu.open = false; $("summary", menu).focus(); }
    }
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    const link = (name) => $(`[data-key="${name}"]`);
    if (event.key === "/") { event.preventDefault(); $("#find")?.focus(); }
    else if (event.key === "?") { event.preventDefault(); $("#keys")?.showModal(); }
    else if (event.key === "n" && before !== "g") link("new")?.click();
    else if (before === "g" && goto[event.key]) link(goto[event.key])?.click();
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const rows = $$("[data-row-link]");
      const at = rows.indexOf(document.activeElement);
      if (at >= 0) { event.preventDefault(); rows[at + (event.key === "ArrowDown" ? 1 : -1)]?.focus(); }
    }
    before = event.key;
    setTimeout(() => { before = ""; }, 900);
  });

  // ---- live: the stream only says what changed; each part then asks for itself again
  const watched = (name) => $$("[data-watch]").filter((node) => node.dataset.watch.split(" ").some((w) => w === name || (w === "deployments" && name.startsWith("deployment:"))));
  const due = new Map();
  const refresh = (node) => {
    if (!node.isConnected || due.has(node)) { due.set(node, true); return; }
    htmx.trigger(node, "slipway:changed");
    // At most three a second for one part; the last change is never lost.
    due.set(node, false);
    setTimeout(() => { const again = due.get(node); due.delete(node); if (again && node.isConnected) refresh(node); }, 350);
  };
  const changed = (names) => new Set(names.flatMap(watched)).forEach(refresh);
  const heard = {
    hello: ({ now: at, lost }) => {
      skew = at - Date.now();
      // Changes may have been missed: before the first word of this stream, or while it was away.
      if (lost) $$("[data-watch]").forEach(refresh);
    },
    changed,
    cluster: ({ seen, trouble, now: at }) => {
      skew = at - Date.now();
      $$("[data-seen]").forEach((node) => { node.dataset.seen = seen; node.dataset.trouble = trouble ? "1" : ""; });
      freshness();
    },
  };

  // One tab holds the stream and tells the others: a browser opens six connections to a site at most (HTTP/1.1), and with one
  // stream in each of six tabs the seventh would wait for ever. Where tabs cannot agree, those in the background let go.
  const relay = window.BroadcastChannel && navigator.locks ? new BroadcastChannel("slipway-live") : null;
  const recent = []; // [time at the server, names] of the last minute, for pages made before they could hear
  const tell = (kind, data) => {
    if (kind === "changed") recent.push([Date.now() + skew, data]);
    while (recent.length && recent[0][0] < Date.now() + skew - 60000) recent.shift();
    if (relay) relay.postMessage({ kind, data });
    heard[kind](data);
  };
  const stream = (ended) => {
    const source = new EventSource(document.body.dataset.live);
    for (const kind of Object.keys(heard)) source.addEventListener(kind, (event) => tell(kind, JSON.parse(event.data)));
    source.addEventListener("bye", () => { source.close(); ended(); $$("[data-watch]").forEach(refresh); });
    // The browser connects again by itself, except after an answer that is no stream: then parts are asked for now and then.
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(() => { $$("[data-watch]").forEach(refresh); stream(ended); }, 15000 + Math.random() * 5000);
    };
    addEventListener("pagehide", () => source.close());
    return source;
  };
  const share = () => {
    const made = Number(new URL(document.body.dataset.live, location.href).searchParams.get("made")) || Date.now();
    let leads = false;
    relay.onmessage = ({ data: { kind, data } }) => {
      if (kind !== "joined") heard[kind](data);
      else if (leads) recent.filter(([at]) => at >= data).forEach(([, names]) => relay.postMessage({ kind: "changed", data: names }));
    };
    relay.postMessage({ kind: "joined", data: made });
    navigator.locks.request("slipway-live", () => new Promise((done) => { leads = true; stream(() => { leads = false; done(); }); }));
  };
  const listen = () => {
    if (!document.body.dataset.live || !window.EventSource) return;
    if (relay) { share(); return; }
    let source = stream(() => {});
    on("visibilitychange", () => {
      source.close();
      if (!document.hidden) { $$("[data-watch]").forEach(refresh); source = stream(() => {}); }
    });
  };

  on("DOMContentLoaded", () => {
    markTheme();
    tick();
    listen();
    showFirstMistake();
    $$("#toasts [data-dismiss]").forEach((node) => { if (!node.classList.contains("t-red")) setTimeout(() => node.remove(), 8000); });
  });
})();
