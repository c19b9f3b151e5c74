"use strict";
(() => {
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const drawn = new Set();

  // --- figures: drawn when they come into view, in the colours of the page

  const theme = (figure) => {
    const found = { "font.color": colour("--text"), "font.family": "system-ui, sans-serif" };
    for (const key of Object.keys(figure.layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        for (const line of ["gridcolor", "linecolor", "zerolinecolor"]) found[`${key}.${line}`] = colour("--line");
      }
    }
    return found;
  };
  const draw = (place) => {
    if (drawn.has(place)) return Promise.resolve();
    drawn.add(place);
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    place.figure = figure;
    const options = { responsive: true, displaylogo: false, showSendToCloud: false };
    return Plotly.newPlot(place, figure.data, figure.layout, options).then(() => Plotly.relayout(place, theme(figure)));
  };
  const places = [...document.querySelectorAll(".figure")];
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "400px" });
  places.forEach((place) => seen.observe(place));
  window.addEventListener("beforeprint", () => places.forEach(draw));

  // --- light and dark

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const paint = (name) => {
    root.dataset.theme = name;
    drawn.forEach((place) => place.figure && Plotly.relayout(place, theme(place.figure)));
  };
  paint(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => paint(dark.matches ? "dark" : "light"));
  document.querySelector(".theme").addEventListener("click", () => paint(root.dataset.theme === "dark" ? "light" : "dark"));

  // --- tables are sorted by a click on a head

  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text.toLowerCase();
  };
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => (a === b ? 0 : typeof a === typeof b ? (a < b ? -1 : 1) : typeof a === "number" ? -1 : 1);
      const rows = [...body.rows].sort((a, b) => order(value(a, head.cellIndex), value(b, head.cellIndex)));
      (up ? rows : rows.reverse()).forEach((row) => body.append(row));
    });
  }

  // --- filters of the claims: verdict, topic, words

  const filters = document.querySelector(".filters");
  if (filters) {
    const words = filters.querySelector("input"), topic = filters.querySelector("select");
    const verdicts = [...filters.querySelectorAll("button[data-verdict]")];
    const apply = () => {
      const wanted = verdicts.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.verdict);
      let shown = 0;
      for (const node of document.querySelectorAll("[data-claim]")) {
        const fits = (!wanted.length || wanted.includes(node.dataset.verdict))
          && (!topic.value || topic.value === node.dataset.topic)
          && node.textContent.toLowerCase().includes(words.value.trim().toLowerCase());
        node.hidden = !fits;
        shown += fits && node.tagName === "TR" ? 1 : 0;
      }
      filters.querySelector("output").textContent = `${shown} shown`;
    };
    verdicts.forEach((b) => b.addEventListener("click", () => {
      b.setAttribute("aria-pressed", b.getAttribute("aria-pressed") !== "true");
      apply();
    }));
    topic.addEventListener("change", apply);
    words.addEventListener("input", apply);
    apply();
  }

  // --- commands

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", () => {
      const text = button.parentElement.querySelector("code").textContent;
      const done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1500); };
      const select = () => window.getSelection().selectAllChildren(button.parentElement.querySelector("code"));
      (navigator.clipboard ? navigator.clipboard.writeText(text).then(done, select) : Promise.resolve(select()));
    });
  }
})();
