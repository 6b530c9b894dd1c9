"use strict";
// Draws the plots when they come into sight, in the colours of the theme.
(() => {
  const figures = new Map(JSON.parse($("figures-data").textContent).map((f) => [`plot-${f.id}`, f]));

  function coloured(value, style) {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
    }
    return value;
  }

  const drawn = new Set();
  function draw(node) {
    const figure = figures.get(node.id), style = getComputedStyle(document.documentElement);
    drawn.add(node);
    Plotly.react(node, coloured(figure.data, style), coloured(figure.layout, style), {
      displayModeBar: false, responsive: true, scrollZoom: false,
    });
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) { watcher.unobserve(target); draw(target); }
    }
  }, { rootMargin: "300px" });
  document.querySelectorAll(".plot").forEach((node) => watcher.observe(node));
  const again = () => drawn.forEach(draw);
  window.addEventListener("themechange", again);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach(draw));
})();
