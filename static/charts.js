// Draws the charts that the server sent as data, one per idle moment, some screens before they come into view, and all
// before the page is printed.
(() => {
  "use strict";
  const CONFIG = { displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false };
  // When idle, but at the latest after half a second: nobody should wait for a page that goes on working.
  const idle = (work) => (window.requestIdleCallback ? window.requestIdleCallback(work, { timeout: 500 }) : setTimeout(work, 1));
  const drawn = new Map(); // plot element -> figure text it shows
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      // A plot that a swap takes away shrinks to nothing first, which Plotly calls an error.
      if (drawn.has(target) && target.isConnected && target.clientWidth) window.Plotly.Plots.resize(target);
    }
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      idle(() => draw(entry.target));
    }
  }, { rootMargin: "4000px 0px" });

  function source(plot) {
    return document.querySelector(`.chart-data[data-plot="${CSS.escape(plot.id)}"]`);
  }

  function draw(plot) {
    const data = plot.isConnected && source(plot);
    if (!data || drawn.get(plot) === data.dataset.figure) return;
    const figure = JSON.parse(data.dataset.figure);
    const layout = Object.assign({ autosize: true, height: 150, dragmode: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      transition: still ? undefined : { duration: 0 } }, figure.layout);
    layout.xaxis = Object.assign({ tickformat: "%H:%M", fixedrange: true }, layout.xaxis);
    layout.yaxis = Object.assign({ fixedrange: true }, layout.yaxis);
    window.Plotly.react(plot, figure.data, layout, CONFIG);
    if (!drawn.has(plot)) resized.observe(plot);
    drawn.set(plot, data.dataset.figure);
  }

  function scan() {
    for (const plot of drawn.keys()) {
      if (plot.isConnected) continue;
      resized.unobserve(plot);
      window.Plotly.purge(plot);
      drawn.delete(plot);
    }
    for (const plot of document.querySelectorAll(".chart-plot")) {
      if (drawn.has(plot)) idle(() => draw(plot));
      else seen.observe(plot);
    }
  }

  window.addEventListener("beforeprint", () => document.querySelectorAll(".chart-plot").forEach(draw));
  document.addEventListener("DOMContentLoaded", scan);
  document.addEventListener("htmx:afterSettle", scan);
})();
