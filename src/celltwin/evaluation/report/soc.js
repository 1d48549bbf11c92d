const text = (value, digits) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return value < 0 && /[1-9]/.test(size) ? `−${size}` : size;
};
const trainedFirst = (models) => (model) => model.trained || models.every((m) => !m.trained) ? true : "legendonly";

// --- robustness: a line a condition, a dot an estimator ---
function drawRobustness() {
  const { conditions } = data;
  const places = [];
  conditions.forEach((c, k) => places.push(k ? places[k - 1] + (c.group === conditions[k - 1].group ? 1 : 1.8) : 0));
  const shown = trainedFirst(data.models);
  const traces = [...data.models].reverse().map((model) => {
    const known = data.stresses[model.name].map((s, k) => [s, k]).filter(([s]) => s && s.mae !== null);
    const stresses = known.map(([s]) => s);
    return {
      x: stresses.map((s) => s.mae), y: known.map(([, k]) => places[k]), mode: "markers", name: plain(model.name),
      visible: shown(model), legendrank: 10 + data.models.indexOf(model),
      error_x: { type: "data", array: stresses.map((s) => s.spread ?? 0), thickness: 1, width: 0, color: colour(model.name) },
      marker: { color: colour(model.name), size: 9, symbol: stresses.map((s) => (s.untold ? "x-thin-open" : "circle")),
        line: { width: stresses.map((s) => (s.untold ? 2.5 : 0)), color: colour(model.name) } },
      customdata: known.map(([s, k]) => [plain(conditions[k].name), text(s.worst, 2),
        text(s.coverage === null ? null : 100 * s.coverage, 1)]),
      hovertemplate: `<b>${plain(model.name)}</b>, %{customdata[0]}<br>%{x:.2f} points, worst %{customdata[1]}, `
        + "%{customdata[2]} % in the band<extra></extra>",
    };
  });
  const values = traces.flatMap((t) => t.x).filter((v) => v > 0);
  const [least, most] = extent([...values, data.limit]);
  const ticks = [-2, -1, 0, 1, 2].flatMap((d) => [1, 2, 5].map((m) => m * 10 ** d)).filter((v) => v > least / 2 && v < most * 2);
  const holder = find("robustness-figure");
  holder.style.height = `${140 + 19 * ((places.at(-1) ?? 0) + 2)}px`;
  draw("robustness-figure", traces, {
    margin: { l: 64, r: 16, t: 46 + 20 * Math.ceil(traces.length / 5), b: 46 },
    xaxis: axis("Mean absolute error (points); × marks an error over the limit that the band does not own up to", {
      type: "log", tickvals: ticks, ticktext: ticks.map(String), range: [Math.log10(least / 1.3), Math.log10(most * 1.3)] }),
    yaxis: axis("", { tickvals: places, ticktext: conditions.map((c) => plain(c.name)), zeroline: false,
      range: [(places.at(-1) ?? 0) + 0.9, -0.9] }),
    shapes: [{ type: "line", x0: data.limit, x1: data.limit, yref: "paper", y0: 0, y1: 1, layer: "below",
      line: { color: variable("--bad"), width: 1.2, dash: "dot" } }],
  });
}

// --- one record from one start: state of charge, error and current over one time axis ---
const labels = [...new Set(data.records.map((r) => r.label))];
const starts = [...new Set(data.records.map((r) => r.start))].sort((a, b) => a - b);
let record = 0, woken = 0, held = 0;
function drawRecord() {
  const shown = data.records.find((r) => r.label === labels[record] && r.start === starts[woken]);
  find("record").value = record;
  find("start").value = woken;
  if (!shown) {
    draw("record-figure", [], { annotations: [{ text: "This record was not estimated from here.", showarrow: false }] });
    return;
  }
  const kept = `${record}/${woken}`;
  const labelled = { x: floats(shown.labelled.x), y: floats(shown.labelled.y) };
  const models = data.models.filter((m) => m.name in shown.models);
  const visible = trainedFirst(models);
  const traces = [];
  const strip = models.filter((m) => shown.models[m.name].outside.length);
  let [low, high] = [Infinity, -Infinity];
  [...models].reverse().forEach((model) => { // the best is drawn last, on top
    const { outside, mae, ...packed } = shown.models[model.name];
    const [x, soc, error, std] = ["x", "soc", "error", "std"].map((name) => floats(packed[name]));
    const chosen = data.models[held] === model;
    const common = {
      name: plain(model.name), legendgroup: model.name, mode: "lines", line: { color: colour(model.name), width: 1.3 },
      visible: chosen ? true : visible(model),
    };
    if (chosen) {
      const half = std.map((s) => data.band * s);
      [["y", soc], ["y2", error]].forEach(([yaxis, middle]) => {
        const upper = Array.from(middle, (v, i) => v + half[i]), lower = Array.from(middle, (v, i) => v - half[i]);
        traces.unshift({ ...common, x: [...x, ...Array.from(x).reverse()], y: [...upper, ...lower.reverse()], yaxis,
          fill: "toself", fillcolor: faint(colour(model.name), 0.18), line: { width: 0 }, showlegend: false, hoverinfo: "skip" });
      });
    }
    const settled = Array.from(error).filter((_, i) => x[i] - x[0] > 100 / 60 || x.at(-1) - x[0] < 5);
    if (common.visible === true) [low, high] = extent([...settled, low, high]);
    const score = mae === null ? "" : `  ${text(mae, 2)} points`;
    const doubt = Array.from(std, (s) => data.band * s);
    traces.push({ ...common, name: plain(model.name) + score, x, y: soc, customdata: doubt,
      hovertemplate: `${plain(model.name)} %{y:.2f} ± %{customdata:.2f} %<extra></extra>`,
      legendrank: 10 + data.models.indexOf(model) });
    traces.push({ ...common, x, y: error, yaxis: "y2", showlegend: false, customdata: doubt,
      hovertemplate: `${plain(model.name)} %{y:.2f} ± %{customdata:.2f} points<extra></extra>` });
    if (outside.length) {
      const height = strip.indexOf(model);
      traces.push({ ...common, x: outside.flatMap(([a, b]) => [a, b, null]), y: outside.flatMap(() => [height, height, null]),
        yaxis: "y4", showlegend: false, line: { color: colour(model.name), width: 4 },
        hovertemplate: `${plain(model.name)} outside its training domain<extra></extra>` });
    }
  });
  traces.push({ ...labelled, name: "labelled", mode: "lines", line: { color: variable("--ink"), width: 1.6 },
    hovertemplate: "labelled %{y:.2f} %<extra></extra>", legendrank: 1 });
  traces.push({ x: floats(shown.current.x), y: floats(shown.current.y), yaxis: "y3", name: "current", showlegend: false,
    mode: "lines", line: { color: variable("--muted"), width: 1 }, hovertemplate: "current %{y:.2f} A<extra></extra>" });
  const some = strip.length > 0;
  const room = 0.15 * Math.max(high - low, 1);
  const limits = Number.isFinite(high - low)
    ? { range: [Math.max(Math.min(low, 0) - room, -100), Math.min(Math.max(high, 0) + room, 100)] } : {};
  draw("record-figure", traces, {
    hovermode: "x unified",
    xaxis: axis("Time (min)", { anchor: some ? "y4" : "y3", uirevision: kept, hoverformat: ".2f",
      showspikes: true, spikethickness: 1, spikecolor: variable("--muted"), spikedash: "dot", spikemode: "across" }),
    yaxis: axis("State of charge (%)", { domain: [0.56, 1], uirevision: kept, range: [-3, 103] }),
    yaxis2: axis("Error (points)", { domain: [0.27, 0.53], uirevision: kept, zeroline: true,
      zerolinecolor: variable("--muted"), ...limits }),
    yaxis3: axis("Current (A)", { domain: [some ? 0.09 : 0, 0.24], uirevision: kept }),
    ...(some ? { yaxis4: axis("", { domain: [0, 0.06], range: [-0.7, strip.length - 0.3], showticklabels: false,
      showgrid: false, zeroline: false, fixedrange: true }) } : {}),
    annotations: some ? [{ xref: "paper", yref: "paper", x: 0, y: 0.062, xanchor: "left", yanchor: "bottom",
      showarrow: false, text: "Outside the training domain", font: { size: 11, color: variable("--muted") } }] : [],
  });
}
function choose(k) {
  record = (k + labels.length) % labels.length;
  drawRecord();
}

// --- training ---
function drawHistory() {
  const panels = [["validate", "Validation MAE (points)", "points"], ["train", "Loss of training", ""]];
  const traces = panels.flatMap(([name, , unit], p) => data.models.filter((m) => m.name in data.history).flatMap((model) =>
    Object.entries(data.history[model.name]).map(([seed, epochs], k) => ({
      x: epochs.map((e) => e.epoch), y: epochs.map((e) => e[name]), name: plain(model.name), legendgroup: model.name,
      showlegend: k === 0 && p === 0, mode: epochs.length > 1 ? "lines" : "markers", xaxis: p ? "x2" : "x", yaxis: p ? "y2" : "y",
      line: { color: colour(model.name), width: 1.8 }, marker: { color: colour(model.name) },
      hovertemplate: `%{y:.3f} ${unit}, seed ${plain(seed)}`,
    }))));
  draw("history-figure", traces, { grid: { rows: 1, columns: 2, pattern: "independent", xgap: 0.12 },
    xaxis: axis("Round"), yaxis: axis(panels[0][1], { type: "log" }), xaxis2: axis("Round"), yaxis2: axis(panels[1][1]) });
}

// --- all rows: as many as a reader looks at, of those that the words name ---
const MOST = 300;
const heads = [...find("rows").tHead.rows[0].cells];
const fields = heads.map(({ dataset }) => ({ field: dataset.field, digits: dataset.digits, scale: Number(dataset.scale) }));
const cells = (k) => fields.map(({ field, digits, scale }) => {
  const value = data.rows[field][k];
  return digits === "" ? value : text(value === null ? null : scale * value, Number(digits));
});
const haystack = data.rows.model.map((_, k) => cells(k).slice(0, 6).join(" ").toLowerCase());
let order = data.rows.model.map((_, k) => k);
function drawRows() {
  const words = find("filter").value.toLowerCase().replace(/-(?=\d)/g, "−").split(/\s+/);
  const found = order.filter((k) => words.every((word) =>
    haystack[k].replace(/-(?=\d)/g, "−").includes(word)));
  find("rows").tBodies[0].replaceChildren(...found.slice(0, MOST).map((k) => {
    const line = document.createElement("tr");
    cells(k).forEach((value, n) => {
      const cell = line.insertCell();
      cell.textContent = value;
      if (fields[n].digits !== "") cell.dataset.v = "";
    });
    return line;
  }));
  find("count").textContent = `${text(found.length, 0)} of ${text(haystack.length, 0)} rows`
    + (found.length > MOST ? `, the first ${MOST} shown: filter, or sort by a column's name.` : ".");
}
heads.forEach((heading, n) => heading.addEventListener("click", () => {
  const down = heading.getAttribute("aria-sort") === "ascending";
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const values = data.rows[fields[n].field], sign = down ? -1 : 1;
  order.sort((a, b) => {
    const [x, y] = [values[a], values[b]];
    if (x === null || y === null) return (x === null) - (y === null); // what has no value stays last
    return sign * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
  });
  drawRows();
}));
find("filter").addEventListener("input", drawRows);
drawRows();

// --- start ---
const drawings = [];
if (data.conditions.length) drawings.push(drawRobustness);
if (data.records.length) {
  options(find("record"), labels, 0);
  options(find("start"), starts.map((s) => `${text(100 * s, 0)} % of the cycle`), 0);
  options(find("band"), data.models.map((m) => m.name), 0);
  find("record").addEventListener("change", (event) => choose(Number(event.target.value)));
  find("start").addEventListener("change", (event) => { woken = Number(event.target.value); drawRecord(); });
  find("band").addEventListener("change", (event) => { held = Number(event.target.value); drawRecord(); });
  find("previous").addEventListener("click", () => choose(record - 1));
  find("next").addEventListener("click", () => choose(record + 1));
  drawings.push(drawRecord);
}
if (Object.keys(data.history).length) drawings.push(drawHistory);
start(drawings);
