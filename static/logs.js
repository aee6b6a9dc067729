// Reading, following and searching one log. Its text is hostile: it only ever becomes text nodes.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("log-box");
  if (!box) return;
  const log = document.getElementById("log");
  const find = document.getElementById("log-find");
  const quiet = document.getElementById("log-quiet");
  const count = document.getElementById("log-count");
  const button = document.getElementById("log-follow");
  const most = 5000;
  let lines = [];
  let stream = null;
  let drawn = 0;

  const row = (text, word) => {
    const line = document.createElement("span");
    if (!word) { line.textContent = `${text}\n`; return line; }
    const low = text.toLowerCase();
    let at = 0;
    for (let hit = low.indexOf(word); hit >= 0; hit = low.indexOf(word, at)) {
      const mark = document.createElement("mark");
      mark.textContent = text.slice(hit, hit + word.length);
      line.append(text.slice(at, hit), mark);
      at = hit + word.length;
    }
    line.append(`${text.slice(at)}\n`);
    return line;
  };
  // One line per request that was served: true, and rarely what somebody looks for.
  const served = /"(GET|POST|HEAD) \S+ HTTP\/1\.\d" 2\d\d/;
  const draw = () => {
    drawn = 0;
    const word = find.value.trim().toLowerCase();
    const shown = lines.filter((line) => (!quiet.checked || !served.test(line)) && (!word || line.toLowerCase().includes(word)));
    log.replaceChildren(...shown.map((line) => row(line, word)));
    count.textContent = shown.length < lines.length ? `${shown.length} of ${lines.length} lines` : `${lines.length} lines`;
    log.scrollTop = log.scrollHeight;
  };
  const soon = () => { if (!drawn) drawn = requestAnimationFrame(draw); };
  const add = (text) => {
    lines.push(...text.split("\n"));
    if (lines.length > most) lines = lines.slice(-most);
    soon();
  };
  const load = async () => {
    const answer = await fetch(`${box.dataset.url}?${box.dataset.query}&tail=2000`, { headers: { Accept: "text/plain" } }).catch(() => null);
    if (!answer || !answer.ok) {
      const problem = answer ? await answer.json().catch(() => ({})) : {};
      log.textContent = problem.message || "The log cannot be read just now.";
      return;
    }
    const text = (await answer.text()).replace(/\n$/, "");
    lines = text ? text.split("\n") : [];
    if (lines.length) draw(); else log.textContent = "Nothing was written yet.";
  };
  const follow = (on) => {
    button.setAttribute("aria-pressed", String(on));
    button.querySelector("span").textContent = on ? "Following" : "Follow";
    stream?.close();
    stream = null;
    if (!on) return;
    lines = [];
    stream = new EventSource(`${box.dataset.url}follow/?${box.dataset.query}`);
    stream.addEventListener("lines", (event) => add(JSON.parse(event.data)));
    stream.addEventListener("end", (event) => { add(JSON.parse(event.data)); follow(false); });
    stream.onerror = () => { if (stream && stream.readyState === EventSource.CLOSED) follow(false); };
  };
  button.addEventListener("click", () => {
    // Nothing more comes from a container that has ended: what it wrote is shown already.
    if (box.dataset.ended === "1") { count.textContent = "the container has ended"; return; }
    follow(button.getAttribute("aria-pressed") !== "true");
  });
  find.addEventListener("input", soon);
  quiet.addEventListener("change", soon);
  addEventListener("pagehide", () => stream?.close());
  load();
});
