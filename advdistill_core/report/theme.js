"use strict";
// The light and the dark theme, on every page.
const $ = (id) => document.getElementById(id);
const themes = ["auto", "light", "dark"];
$("theme").addEventListener("click", () => {
  const next = themes[(themes.indexOf(document.documentElement.dataset.theme || "auto") + 1) % themes.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  $("theme").textContent = `Theme: ${next}`;
  window.dispatchEvent(new Event("themechange"));
});
