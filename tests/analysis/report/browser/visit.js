/* Opens a report as a reader would: desktop and phone, light and dark, and uses everything that can be used.
   node visit.js PLAYWRIGHT CHROMIUM SCREENSHOTS REPORT.html HOSTILE.html [REAL.html ...]
   Of the second report, whose names are attacks, all that counts is that it is drawn and that nothing in it runs. The others
   are written by real runs, of which nothing is known beforehand: every tensor is opened, and each picture has the page's name.
   Ends with 1 and a line for each thing that is wrong. */
"use strict";
const [, , playwright, chromium, pictures, report, hostile, ...real] = process.argv;
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const faults = [];
const views = [
  { name: "desktop-light", viewport: { width: 1280, height: 900 }, colorScheme: "light" },
  { name: "phone-dark", viewport: { width: 390, height: 844 }, colorScheme: "dark", isMobile: true, hasTouch: true },
];

function expect(holds, words) {
  if (!holds) faults.push(words);
}

async function open(browser, view, file) {
  const address = pathToFileURL(file).href;
  const { name, ...settings } = view;
  const context = await browser.newContext(settings);
  context.setDefaultTimeout(240000); // a busy machine is no fault
  const page = await context.newPage();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) faults.push(`${name}: console says ${message.text()}`);
  });
  page.on("pageerror", (error) => faults.push(`${name}: ${error.message}`));
  page.on("dialog", (dialog) => { faults.push(`${name}: a dialog says ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    if (request.url() !== address && !/^(data|blob):/.test(request.url())) faults.push(`${name}: it asks for ${request.url()}`);
  });
  await page.goto(address, { waitUntil: "load" });
  return page;
}

const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
const title = (page) => page.textContent("#detail h3");
const outline = (page) => page.evaluate(() => JSON.stringify(document.getElementById("figure-heat-share").layout.shapes[0]));
const barColour = (page) => page.evaluate(() => document.getElementById("figure-worst").data[0].marker.color);

async function fits(page, name) {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  expect(content <= window, `${name}: the page is ${content} pixels wide in a window of ${window}`);
}

async function allDrawn(page, name) {
  const empty = await page.evaluate(() =>
    [...document.querySelectorAll(".chart")]
      .filter((place) => !place.closest("[hidden]") && !place.querySelector("svg.main-svg"))
      .map((place) => place.id));
  expect(empty.length === 0, `${name}: not drawn: ${empty.join(", ")}`);
}

/* The centre of a cell of the heat map, as it lies on the screen. */
const cell = (page, column, row) => page.evaluate(([x, y]) => {
  const place = document.getElementById("figure-heat-share");
  place.scrollIntoView({ block: "center", behavior: "instant" });
  const { xaxis, yaxis } = place._fullLayout;
  const box = place.getBoundingClientRect();
  return { x: box.left + xaxis._offset + xaxis.c2p(x), y: box.top + yaxis._offset + yaxis.c2p(y) };
}, [column, row]);

async function useMap(page, name, touch) {
  const [first, frame] = [await title(page), await outline(page)];
  const at = await cell(page, 3, 4);
  if (touch) await page.touchscreen.tap(at.x, at.y);
  else await page.mouse.click(at.x, at.y);
  await page.waitForFunction((old) => document.querySelector("#detail h3").textContent !== old, first)
    .catch(() => faults.push(`${name}: choosing a cell of the heat map shows nothing`));
  const clicked = await title(page);
  const wanted = touch ? "model.layers.4.self_attn.o_proj.weight" : "model.layers.3.mlp.gate_proj.weight";
  expect(clicked === wanted, `${name}: the cell shows ${clicked}, not ${wanted}`);
  expect((await outline(page)) !== frame, `${name}: the chosen cell is not framed`);
  await page.focus("#map-frame");
  await page.keyboard.press(touch ? "ArrowDown" : "ArrowRight");
  const next = await title(page);
  expect(next === wanted.replace(/\d+/, (block) => Number(block) + 1), `${name}: the arrow key leads to ${next}`);
  expect((await page.locator("#histogram-weights svg.main-svg").count()) > 0, `${name}: no histogram of the chosen tensor`);
  await page.click("[data-map=heat-bits]");
  expect(await page.isVisible("#figure-heat-bits svg.main-svg"), `${name}: the map of bits is not drawn`);
  expect(!(await page.isVisible("#figure-heat-share")), `${name}: both maps are shown`);
  await page.click("[data-map=heat-share]");
  await page.click(".outside button");
  expect((await title(page)) === "model.embed_tokens.weight", `${name}: the head's details are not shown`);
}

async function useTable(page, name) {
  const bits = () => page.$$eval("table.browser tbody tr:not([hidden])", (rows) => {
    const column = [...document.querySelectorAll("table.browser thead th")].findIndex((heading) => heading.textContent.trim() === "bits");
    return rows.map((row) => Number(row.cells[column].dataset.value));
  });
  const heading = page.locator("table.browser thead button", { hasText: /^bits$/ });
  for (const direction of ["descending", "ascending"]) {
    await heading.click();
    const [found, sign] = [await bits(), direction === "ascending" ? 1 : -1];
    expect(found.every((value, place) => place === 0 || sign * (value - found[place - 1]) >= 0), `${name}: not ${direction} by bits`);
    expect((await heading.locator("..").getAttribute("aria-sort")) === direction, `${name}: aria-sort is not ${direction}`);
  }
  const all = (await bits()).length;
  await page.fill("#filter", "layers.1. down");
  expect((await bits()).length === 1, `${name}: the filter leaves ${(await bits()).length} of ${all} rows, not 1`);
  await page.locator("table.browser tbody tr:not([hidden]) .name").click();
  expect((await title(page)) === "model.layers.1.mlp.down_proj.weight", `${name}: a name in the table opens nothing`);
  await page.fill("#filter", "");
  await page.selectOption("#kind", "q");
  expect((await bits()).length === 30, `${name}: choosing a kind leaves ${(await bits()).length} rows, not 30`);
  await page.selectOption("#kind", "");
}

async function useTheme(page, name, picture) {
  const [before, bar] = [await background(page), await barColour(page)];
  await page.click("#theme");
  expect((await background(page)) !== before, `${name}: the theme does not change`);
  expect((await barColour(page)) !== bar, `${name}: the charts do not follow the theme`);
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: picture, fullPage: true });
  await page.click("#theme");
  expect((await background(page)) === before, `${name}: the theme does not change back`);
}

async function save(page, name) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  const saved = JSON.parse(require("node:fs").readFileSync(await download.path(), "utf8"));
  expect(saved.tensors.length === 211, `${name}: the saved JSON has ${saved.tensors.length} tensors`);
}

async function visit(browser, view) {
  const page = await open(browser, view, report);
  await allDrawn(page, view.name);
  await fits(page, view.name);
  await page.screenshot({ path: path.join(pictures, `${view.name}.png`), fullPage: true });
  await useMap(page, view.name, Boolean(view.hasTouch));
  await useTable(page, view.name);
  for (const details of await page.locator("details > summary").all()) await details.click();
  await fits(page, view.name);
  const other = view.name.endsWith("light") ? "dark" : "light";
  await useTheme(page, view.name, path.join(pictures, `${view.name.replace(/light|dark/, other)}.png`));
  if (!view.isMobile) await save(page, view.name);
  await page.context().close();
}

/* Clicks each name in the table, within the page: what a mouse does is proved by useTable, and takes a mouse ten times as long. */
async function openEach(page, name) {
  const opened = await page.$$eval("table.browser .name", async (buttons) => {
    const found = [];
    for (const button of buttons) {
      button.click();
      await new Promise(requestAnimationFrame);
      const drawn = document.querySelectorAll("#detail .chart svg.main-svg").length;
      found.push([button.textContent, document.querySelector("#detail h3").textContent, drawn]);
    }
    return found;
  });
  expect(opened.length > 0, `${name}: no table of tensors`);
  for (const [wanted, shown, drawn] of opened) {
    expect(shown === wanted, `${name}: ${wanted} in the table opens ${shown}`);
    expect(drawn > 0, `${name}: ${wanted} has no histogram`);
  }
}

/* A page of a real run: whatever it has is drawn, every tensor opens with its histograms, and the theme changes all charts. */
async function visitReal(browser, view, file) {
  const name = `${path.basename(file, ".html")}-${view.name}`;
  const page = await open(browser, { ...view, name }, file);
  await allDrawn(page, name);
  await fits(page, name);
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
  await openEach(page, name);
  for (const details of await page.locator("details > summary").all()) await details.click();
  await fits(page, name);
  await useTheme(page, name, path.join(pictures, `${name.replace(/light|dark/, (theme) => (theme === "light" ? "dark" : "light"))}.png`));
  await page.context().close();
}

(async () => {
  const browser = await require(playwright).chromium.launch({ executablePath: chromium, args: ["--no-sandbox"] });
  try {
    for (const view of views) {
      await visit(browser, view);
      for (const file of real) await visitReal(browser, view, file);
    }
    const page = await open(browser, { ...views[1], name: "hostile" }, hostile);
    await allDrawn(page, "hostile");
    await fits(page, "hostile");
    await page.$$eval(".outside button, table.browser .name", (buttons) => buttons.forEach((button) => button.click()));
    expect(Boolean(await title(page)), "hostile: no details are shown");
    expect(await page.evaluate(() => typeof window.attacked === "undefined"), "hostile: a name of a tensor was run");
  } finally {
    await browser.close();
  }
  faults.forEach((fault) => console.log(fault));
  process.exit(faults.length ? 1 : 0);
})().catch((error) => {
  console.log([...faults, error.stack].join("\n"));
  process.exit(1);
});
