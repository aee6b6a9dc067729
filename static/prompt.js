// A conversation with one deployment: answers stream in, with what was measured on the way.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  document.addEventListener("DOMContentLoaded", () => {
    const box = $("chat-box");
    if (!box) return;
    const talk = [];
    let running = null;

    const show = (role, text) => {
      $("chat-empty")?.remove();
      const node = document.createElement("div");
      node.className = `msg ${role}`;
      const body = document.createElement("span");
      body.textContent = text;
      node.append(body);
      $("chat").append(node);
      $("chat").scrollTop = $("chat").scrollHeight;
      return { node, body };
    };
    const meta = (node, text) => {
      const line = document.createElement("span");
      line.className = "meta";
      line.textContent = text;
      node.append(line);
    };
    const busy = (on) => { $("send").hidden = on; $("stop").hidden = !on; };
    const sig = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

    const handle = (event, data, part) => {
      if (event === "delta") {
        part.body.textContent += data.text;
        const chat = $("chat");
        if (chat.scrollHeight - chat.scrollTop - chat.clientHeight < 120) chat.scrollTop = chat.scrollHeight;
      } else if (event === "done") {
        const words = [`first token after ${sig(data.ttft_ms)} ms`];
        if (data.tokens_per_second) words.push(`${sig(data.tokens_per_second)} tokens/s`);
        if (data.tokens) words.push(`${data.tokens} tokens`);
        words.push(`${sig(data.total_ms / 1000)} s in all`);
        if (data.finish_reason === "length") words.push("cut at the most tokens");
        meta(part.node, words.join(" · "));
      } else if (event === "error") {
        part.node.classList.add("bad");
        part.body.textContent += (part.body.textContent ? "\n" : "") + data.message;
      }
    };

    const ask = async (messages) => {
      const part = show("assistant", "");
      running = new AbortController();
      busy(true);
      try {
        const headers = { "Content-Type": "application/json", ...JSON.parse(document.body.getAttribute("hx-headers")) };
        const body = JSON.stringify({ messages, max_tokens: Number($("max_tokens").value), temperature: Number($("temperature").value) });
        const answer = await fetch(box.dataset.url, { method: "POST", headers, body, signal: running.signal });
        if (!answer.ok) {
          const problem = await answer.json().catch(() => ({}));
          handle("error", { message: problem.message || `Slipway answered ${answer.status}.` }, part);
          return;
        }
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = "";
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          rest += value;
          const blocks = rest.split("\n\n");
          rest = blocks.pop();
          for (const block of blocks) {
            const event = /^event: (.*)$/m.exec(block);
            const data = /^data: (.*)$/m.exec(block);
            if (event && data) handle(event[1], JSON.parse(data[1]), part);
          }
        }
      } catch (error) {
        if (error.name === "AbortError") meta(part.node, "stopped by you");
        else handle("error", { message: "The connection broke. Try again." }, part);
      } finally {
        busy(false);
        running = null;
        if (!part.node.classList.contains("bad")) talk.push({ role: "assistant", content: part.body.textContent });
        slipway.say("Answer complete");
        $("text").focus();
      }
    };

    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = $("text").value.trim();
      if (!text || running) return;
      $("text").value = "";
      show("user", text);
      talk.push({ role: "user", content: text });
      const system = $("system").value.trim();
      ask(system ? [{ role: "system", content: system }, ...talk] : talk);
    });
    $("text").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("composer").requestSubmit(); }
    });
    $("stop").addEventListener("click", () => running?.abort());
    $("clear").addEventListener("click", () => { running?.abort(); talk.length = 0; $("chat").replaceChildren(); $("text").focus(); });
    $("text").focus();
  });
})();
