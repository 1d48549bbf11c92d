const shade = shades(data.temperatures);
const degrees = (t) => `${Number(t.toFixed(1))} °C`.replace("-", "−");
const percent = (values) => Array.from(values, (v) => 100 * v);
const band = (x, low, high, fillcolor, more = {}) => ({
  x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()], fill: "toself", fillcolor, line: { width: 0 },
  mode: "lines", hoverinfo: "skip", showlegend: false, ...more,
});
const socAxis = (more = {}) => axis("State of charge (%)", more);
const small = { margin: { l: 58, r: 12, t: 34, b: 42 }, showlegend: false };
const bare = { displayModeBar: false };
// A logarithmic axis with ticks at 1, 2 and 5, or at whole decades where there are many.
const logAxis = (title, least, most, more = {}) => {
  const decades = Array.from({ length: 30 }, (_, k) => k - 12), far = most / least > 500;
  const ticks = decades.flatMap((k) => (far ? [1] : [1, 2, 5]).map((m) => m * 10 ** k)).filter((v) => v >= least && v <= most);
  return axis(title, { type: "log", range: [Math.log10(least), Math.log10(most)], tickvals: ticks,
    ticktext: ticks.map((v) => Number(v.toPrecision(1)).toLocaleString("en", { maximumFractionDigits: 9 })), ...more });
};

// --- open-circuit voltage: of one temperature against what was measured ---
let chosen = data.temperatures.reduce((best, t, k) =>
  Math.abs(t - 25) < Math.abs(data.temperatures[best] - 25) ? k : best, 0);
function drawOpenCircuit() {
  const { soc, each } = data.ocv;
  const one = each[chosen], x = percent(soc);
  const colours = { curve: variable("--c0"), rest: variable("--ink"), up: variable("--c1"), down: variable("--c2") };
  const branches = one.branches.map((b) => [b, b.name.endsWith("discharge") ? colours.down : colours.up, "solid"]);
  if (one.average) branches.push([one.average, variable("--c3"), "dot"]);
  const voltage = [], difference = [];
  const seen = new Set();
  branches.forEach(([b, color, dash]) => {
    const common = { x: percent(b.soc), name: b.name, legendgroup: b.name, showlegend: !seen.has(b.name), mode: "lines",
      line: { color, width: 1.5, dash } };
    seen.add(b.name);
    voltage.push({ ...common, y: b.voltage, hovertemplate: `${b.name} %{y:.4f} V<extra></extra>` });
    difference.push({ ...common, y: b.difference, hovertemplate: `${b.name} %{y:.1f} mV<extra></extra>` });
  });
  const points = { x: percent(one.rests.soc), name: "rests", mode: "markers",
    marker: { color: colours.rest, size: 7, line: { color: variable("--card"), width: 1 } } };
  const label = `open-circuit voltage, ${degrees(data.temperatures[chosen])}`;
  const curve = { x, name: label, mode: "lines", line: { color: colours.curve, width: 2.2 } };
  each.forEach((other, k) => {
    if (k === chosen) return;
    voltage.unshift({ x, y: other.voltage, name: degrees(data.temperatures[k]), mode: "lines", showlegend: false,
      line: { color: shade(data.temperatures[k], 0.55), width: 1 },
      hovertemplate: `${degrees(data.temperatures[k])} %{y:.4f} V<extra></extra>` });
  });
  voltage.push({ ...curve, y: one.voltage, customdata: one.error,
    hovertemplate: "%{y:.4f} V ± %{customdata:.1f} mV (one standard error)<extra></extra>" });
  voltage.push({ ...points, y: one.rests.voltage, customdata: one.rests.text,
    hovertemplate: "rest %{y:.4f} V, %{customdata}<extra></extra>" });
  const two = one.error.map((e) => (e === null ? 0 : 2 * e));
  difference.unshift(band(x, two.map((e) => -e), two, faint(colours.curve, 0.22)));
  difference.push({ ...curve, y: x.map(() => 0), customdata: one.error, showlegend: false,
    hovertemplate: "± %{customdata:.1f} mV (one standard error)<extra></extra>" });
  difference.push({ ...points, y: one.rests.difference, customdata: one.rests.text,
    hovertemplate: "rest %{y:.1f} mV, %{customdata}<extra></extra>" });
  const inside = difference.slice(1).flatMap((t) => t.y.filter((_, k) => t.x[k] > 5 && t.x[k] < 99.5));
  const [low, high] = extent([...inside, -5, 5]);
  const shape = { hovermode: "x", hoverdistance: 30, margin: { l: 64, r: 12, t: 70, b: 46 } };
  draw("ocv-figure", voltage, { ...shape, xaxis: socAxis(), yaxis: axis("Voltage (V)") });
  draw("difference-figure", difference, { ...shape, showlegend: false, xaxis: socAxis(),
    yaxis: axis("Distance from the curve (mV)", { range: [low - 0.1 * (high - low), high + 0.1 * (high - low)], zeroline: true }) });
  let text = "No slow charge and discharge at this temperature: hysteresis is not known.";
  if (one.gap) {
    const middle = one.gap.filter((_, k) => one.average.soc[k] > 0.2 && one.average.soc[k] < 0.9).sort((a, b) => a - b);
    const half = middle[Math.floor(middle.length / 2)];
    if (middle.length) text = `Gap between slow charge and discharge: ${half.toFixed(0)} mV (median of 20 to 90 %).`;
  }
  find("gap").textContent = text;
}

// --- tables over state of charge ---
function drawTables() {
  const x = percent(data.soc);
  data.tables.forEach((table, n) => {
    const values = table.values.flat();
    const [least, most] = extent(values);
    const traces = [];
    data.temperatures.forEach((t, k) => {
      const spread = table.relative[k].map((r) => Math.exp(Math.min(2 * (r ?? 0), Math.log(10))));
      traces.push(band(x, table.values[k].map((v, i) => v / spread[i]), table.values[k].map((v, i) => v * spread[i]), shade(t, 0.16)));
    });
    data.temperatures.forEach((t, k) => traces.push({ x, y: table.values[k], mode: "lines+markers", marker: { size: 4 },
      line: { color: shade(t), width: 1.8 }, name: degrees(t), customdata: table.relative[k].map((r) => (r === null ? null : 100 * r)),
      hovertemplate: `${degrees(t)}: %{y:.3~g} ${table.unit} ± %{customdata:.2~g} %<extra></extra>` }));
    draw(`table-${n}`, traces, { ...small, hovermode: "x", xaxis: socAxis(),
      title: { text: `${table.name} (${table.unit})`, font: { size: 13.5 }, x: 0.02, xanchor: "left", y: 0.97, yanchor: "top" },
      yaxis: logAxis("", least / 2.5, most * 2.5) }, bare);
  });
}

// --- over temperature ---
function drawArrhenius() {
  const colours = { 0.8: variable("--c2"), 0.5: variable("--c0"), 0.2: variable("--c1") };
  const traces = data.arrhenius.map((line) => ({
    x: line.inverse, y: line.values, mode: "lines+markers", marker: { size: 7, symbol: line.name === "R0" ? "circle" : "diamond" },
    line: { color: colours[line.soc], width: 1.8, dash: line.name === "R0" ? "solid" : "dot" },
    name: `${line.name}, ${100 * line.soc} %: ${line.energy.toFixed(0)} kJ/mol`,
    customdata: data.temperatures.map(degrees), hovertemplate: `${line.name} at ${100 * line.soc} %, %{customdata}: %{y:.2f} mΩ<extra></extra>`,
  }));
  const inverse = data.temperatures.map((t) => 1000 / (t + 273.15));
  const [least, most] = extent(data.arrhenius.flatMap((line) => line.values));
  draw("arrhenius-figure", traces, { margin: { l: 64, r: 16, t: 84, b: 60 },
    yaxis: logAxis("Resistance (mΩ)", least / 1.3, most * 1.3),
    xaxis: axis("Temperature, at even steps of 1/T", { tickvals: inverse, ticktext: data.temperatures.map(degrees), autorange: "reversed" }) });
}

// --- runs ---
let run = 0;
const opened = new Map();
function columns(k) {
  if (!opened.has(k)) {
    const shown = data.runs[k];
    const [time, measured, simulated, current] = ["time", "measured", "simulated", "current"].map((name) => floats(shown[name]));
    opened.set(k, { time, measured, simulated, current, error: simulated.map((v, i) => 1e3 * (v - measured[i])) });
  }
  return opened.get(k);
}
function drawRun() {
  const { time, measured, simulated, current, error } = columns(run);
  const hours = Array.from(time, (t) => t / 3600);
  const line = (y, name, color, more = {}) => ({ x: hours, y, name, mode: "lines", line: { color, width: 1.2 }, ...more });
  draw("run-figure", [
    line(measured, "measured", variable("--ink"), { hovertemplate: "measured %{y:.4f} V<extra></extra>" }),
    line(simulated, `simulated, RMSE ${data.runs[run].rmse} mV`, variable("--c1"), { hovertemplate: "simulated %{y:.4f} V<extra></extra>" }),
    line(error, "error", variable("--c1"), { yaxis: "y2", showlegend: false, hovertemplate: "error %{y:.1f} mV<extra></extra>" }),
    line(current, "current", variable("--muted"), { yaxis: "y3", showlegend: false, line: { color: variable("--muted"), width: 1, shape: "vh" },
      hovertemplate: "current %{y:.3f} A<extra></extra>" }),
  ], {
    hovermode: "x unified",
    xaxis: axis("Time (h)", { anchor: "y3", uirevision: run, hoverformat: ".4f" }),
    yaxis: axis("Voltage (V)", { domain: [0.54, 1], uirevision: run }),
    yaxis2: axis("Error (mV)", { domain: [0.25, 0.5], uirevision: run, zeroline: true, zerolinecolor: variable("--muted") }),
    yaxis3: axis("Current (A)", { domain: [0, 0.2], uirevision: run }),
  });
  drawZooms();
  find("run").value = run;
}
function drawZooms() {
  const { time, measured, simulated, error } = columns(run);
  const holder = find("zoom-figures");
  const { zooms } = data.runs[run];
  [...holder.children].forEach((child) => Plotly.purge(child));
  holder.replaceChildren(...zooms.map((_, n) => {
    const panel = document.createElement("div");
    panel.className = "figure";
    panel.id = `zoom-${n}`;
    return panel;
  }));
  zooms.forEach((zoom, n) => {
    const index = [...time.keys()].filter((k) => time[k] >= zoom.from && time[k] <= zoom.to);
    const x = index.map((k) => time[k] - zoom.begin);
    const pick = (values) => index.map((k) => values[k]);
    draw(`zoom-${n}`, [
      { x, y: pick(measured), name: "measured", mode: "markers", marker: { color: variable("--ink"), size: 4 },
        hovertemplate: "measured %{y:.4f} V<extra></extra>" },
      { x, y: pick(simulated), name: "simulated", mode: "lines", line: { color: variable("--c1"), width: 1.6 },
        hovertemplate: "simulated %{y:.4f} V<extra></extra>" },
      { x, y: pick(error), name: "error", mode: "lines", yaxis: "y2", line: { color: variable("--c1"), width: 1.3 },
        hovertemplate: "error %{y:.1f} mV<extra></extra>" },
    ], { ...small, hovermode: "x unified",
      title: { text: zoom.title, font: { size: 13 }, x: 0.02, xanchor: "left", y: 0.97, yanchor: "top" },
      xaxis: axis("Time (s)", { anchor: "y2", hoverformat: ".1f" }), yaxis: axis("V", { domain: [0.42, 1] }),
      yaxis2: axis("mV", { domain: [0, 0.3], zeroline: true, zerolinecolor: variable("--muted"), nticks: 4 }) }, bare);
  });
}
function choose(k) {
  run = (k + data.runs.length) % data.runs.length;
  drawRun();
}

// --- start ---
options(find("ocv-temperature"), data.temperatures.map(degrees), chosen);
find("ocv-temperature").addEventListener("change", (event) => { chosen = Number(event.target.value); drawOpenCircuit(); });
find("temperatures").append(...data.temperatures.map((t) => {
  const entry = document.createElement("span"), swatch = document.createElement("i");
  swatch.className = "swatch";
  swatch.style.background = shade(t);
  entry.append(swatch, degrees(t));
  return entry;
}));
find("table-figures").append(...data.tables.map((_, n) => {
  const panel = document.createElement("div");
  panel.className = "figure";
  panel.id = `table-${n}`;
  return panel;
}));
options(find("run"), data.runs.map((r) => `${r.label}, ${r.soc[0]} to ${r.soc[1]} %, ${r.rmse} mV`), 0);
find("run").addEventListener("change", (event) => choose(Number(event.target.value)));
find("previous").addEventListener("click", () => choose(run - 1));
find("next").addEventListener("click", () => choose(run + 1));
redrawn(() => {
  drawOpenCircuit();
  drawTables();
  if (data.arrhenius.length) drawArrhenius();
  drawRun();
});
