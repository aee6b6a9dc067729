// Loaded before the first paint, so that a chosen theme never flashes. Empty: the system's.
(() => {
  const theme = localStorage.getItem("slipway-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.bsTheme = theme;
})();
