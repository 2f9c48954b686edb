/* Draws the charts in the page's colours, and makes the heat map, the details and the table of tensors answer.
   All texts go in as textContent; plotly gets texts that are escaped already. */
"use strict";
(() => {
  const byId = (name) => document.getElementById(name);
  const page = JSON.parse(byId("data").textContent);
  const phone = matchMedia("(max-width: 640px)");
  const settings = { displayModeBar: false, showTips: false };
  let chosen = -1;

  // Colours: a figure says var(--name), and a hidden element tells what that is in the theme of the moment.
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;

  function coloured(value) {
    if (typeof value === "string" && value.startsWith("var(--")) {
      probe.style.color = value;
      return getComputedStyle(probe).color;
    }
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, coloured(part)]));
    }
    return value;
  }

  function drawn(place, figure, height) {
    const ready = coloured(figure);
    return Plotly.react(place, ready.data, { ...ready.layout, height, width: place.clientWidth }, settings);
  }

  function figureOf(name) {
    const { wide, standing } = page.figures[name];
    return phone.matches && standing ? standing : wide;
  }

  function draw(place) {
    const figure = figureOf(place.dataset.figure);
    const standing = phone.matches && page.figures[place.dataset.figure].standing;
    const mark = place.dataset.figure.startsWith("heat-") ? { shapes: outline(figure) } : {};
    const height = Number(standing ? place.dataset.standingHeight : place.dataset.height);
    return drawn(place, { ...figure, layout: { ...figure.layout, ...mark } }, height);
  }

  function drawAll() {
    document.querySelectorAll(".chart").forEach((place) => {
      if (page.figures[place.dataset.figure] && !place.closest("[hidden]")) draw(place);
    });
    if (chosen >= 0) drawHistograms(page.tensors[chosen]);
  }

  // The heat map.
  function cellOf(figure, tensor) {
    const rows = figure.data[0].customdata;
    const row = rows.findIndex((cells) => cells.some((cell) => cell[0] === tensor));
    return row < 0 ? null : { row, column: rows[row].findIndex((cell) => cell[0] === tensor) };
  }

  function outline(figure) {
    const cell = cellOf(figure, chosen);
    if (!cell) return [];
    const middle = (values, index) => (typeof values[index] === "number" ? values[index] : index);
    const x = middle(figure.data[0].x, cell.column);
    const y = middle(figure.data[0].y, cell.row);
    const line = { color: "var(--ink)", width: 2.5 };
    return [{ type: "rect", x0: x - 0.5, x1: x + 0.5, y0: y - 0.5, y1: y + 0.5, line }];
  }

  const maps = [...document.querySelectorAll("#map-frame .chart")];

  function mark() {
    maps.forEach((place) => {
      if (place.data) Plotly.relayout(place, { shapes: coloured(outline(figureOf(place.dataset.figure))) });
    });
    document.querySelectorAll("tr[data-tensor]").forEach((row) => {
      if (Number(row.dataset.tensor) === chosen) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    });
  }

  function walk(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = steps[event.key];
    if (!step || event.target.id !== "map-frame") return;
    event.preventDefault();
    const figure = figureOf(maps[0].dataset.figure);
    const rows = figure.data[0].customdata;
    const from = cellOf(figure, chosen);
    let row = from ? from.row + step[0] : 0;
    let column = from ? from.column + step[1] : 0;
    while (rows[row] && rows[row][column] && rows[row][column][0] < 0) {
      row += step[0];
      column += step[1];
    }
    if (rows[row] && rows[row][column]) choose(rows[row][column][0]);
  }

  // The details of one tensor.
  function element(tag, text, name) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  function choose(tensor) {
    const detail = byId("detail");
    if (!detail || !page.tensors[tensor]) return;
    chosen = tensor;
    const one = page.tensors[tensor];
    const list = element("dl");
    one.facts.forEach(([label, value]) => {
      const pair = element("div", "", value.length > 40 ? "long" : "");
      pair.append(element("dt", label), element("dd", value));
      list.append(pair);
    });
    const fixes = one.fixes.map((fix) => element("p", `${fix}.`, "fix"));
    detail.replaceChildren(element("h3", one.name), list, ...fixes);
    if (one.histograms) detail.append(...histogramPlaces(one.histograms));
    drawHistograms(one);
    mark();
  }

  function histogramPlaces(histograms) {
    const pair = element("div", "", "pair");
    ["weights", "activations"].filter((name) => histograms[name]).forEach((name) => {
      const side = element("div");
      const place = element("div", "", "chart");
      place.id = `histogram-${name}`;
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", `Histogram of the ${name}. ${histograms.said}`);
      side.append(element("h4", name === "weights" ? "Weights" : "Activations it meets"), place);
      pair.append(side);
    });
    return [pair, element("p", `Bars: share of values. Lines: the grid's levels; shaded: clipped. ${histograms.said}`, "key")];
  }

  function drawHistograms(one) {
    ["weights", "activations"].forEach((name) => {
      const place = byId(`histogram-${name}`);
      if (place && one.histograms && one.histograms[name]) drawn(place, one.histograms[name], 240);
    });
  }

  // The table of tensors.
  const table = document.querySelector("table.browser");

  function compared(column, direction) {
    const value = (row) => row.cells[column].dataset.value;
    return (a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === undefined || right === undefined) return (left === undefined) - (right === undefined);
      const difference = left - right;
      return direction * (Number.isNaN(difference) ? left.localeCompare(right) : difference);
    };
  }

  function sort(heading) {
    const numeric = heading.classList.contains("number");
    const before = heading.getAttribute("aria-sort");
    const ascending = before === "none" ? !numeric : before === "descending";
    heading.parentElement.querySelectorAll("th").forEach((other) => other.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compared(heading.cellIndex, ascending ? 1 : -1)));
  }

  function filter() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = byId("kind").value;
    const rows = [...table.tBodies[0].rows];
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) || (kind !== "" && row.dataset.kind !== kind);
    });
    const shown = rows.filter((row) => !row.hidden).length;
    byId("count").textContent = shown === rows.length ? `${shown} tensors` : `${shown} of ${rows.length} tensors`;
  }

  function listen(place) {
    if (place.on) place.on("plotly_click", (event) => choose(event.points[0].customdata[0]));
  }

  // The tensor whose cell is the darkest, to begin with.
  function costliest() {
    if (!maps.length) return -1;
    const { z, customdata } = figureOf(maps[0].dataset.figure).data[0];
    const cells = z.flatMap((row, y) => row.map((value, x) => [value === null ? -Infinity : value, customdata[y][x][0]]));
    return cells.reduce((best, cell) => (cell[0] > best[0] ? cell : best), [-Infinity, -1])[1];
  }

  // Once a frame, and only where the width is another: phones report a resize whenever their address bar hides.
  let width = innerWidth;
  function resized() {
    if (innerWidth === width) return;
    width = innerWidth;
    requestAnimationFrame(drawAll);
  }

  drawAll();
  choose(costliest());
  maps.forEach(listen);

  const frame = byId("map-frame");
  if (frame) {
    frame.addEventListener("keydown", walk);
    frame.querySelectorAll("[data-map]").forEach((button) => {
      button.addEventListener("click", () => {
        frame.querySelectorAll("[data-map]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        maps.forEach((place) => { place.closest(".sheet").hidden = place.dataset.figure !== button.dataset.map; });
        const place = byId(`figure-${button.dataset.map}`);
        const first = !place.data;
        draw(place);
        if (first) listen(place);
      });
    });
  }
  document.querySelectorAll(".outside button").forEach((button) => {
    button.addEventListener("click", () => choose(Number(button.dataset.tensor)));
  });
  if (table) {
    table.tHead.addEventListener("click", (event) => {
      if (event.target.tagName === "BUTTON") sort(event.target.closest("th"));
    });
    table.tBodies[0].addEventListener("click", (event) => {
      if (event.target.className !== "name") return;
      choose(Number(event.target.closest("tr").dataset.tensor));
      const detail = byId("detail");
      if (detail) detail.scrollIntoView({ block: "start" });
    });
    document.querySelector(".filter").addEventListener("input", filter);
    document.querySelector(".filter").addEventListener("submit", (event) => event.preventDefault());
    filter();
  }
  byId("theme").addEventListener("click", () => {
    const scheme = getComputedStyle(document.documentElement).colorScheme;
    const system = matchMedia("(prefers-color-scheme: dark)").matches;
    const dark = scheme === "dark" || (scheme !== "light" && system);
    document.documentElement.style.colorScheme = dark ? "light" : "dark";
    drawAll();
  });
  byId("download").addEventListener("click", () => {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([byId("document").textContent], { type: "application/json" }));
    link.download = "report.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", resized);
})();
