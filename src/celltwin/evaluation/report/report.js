// --- one record: voltage, error and current over one time axis ---
const splits = { test: "Test", validate: "Validation", train: "Training" };
let record = 0;
function drawRecord() {
  const shown = data.records[record];
  const measured = { x: floats(shown.measured.x), y: floats(shown.measured.y) };
  const traces = [{
    ...measured, name: "measured", mode: "lines", line: { color: variable("--ink"), width: 1.6 },
    hovertemplate: "measured %{y:.4f} V<extra></extra>", legendrank: 1,
  }];
  const models = data.models.filter((m) => m.name in shown.models);
  const banded = models.find((m) => shown.models[m.name].simulated.low); // the best alone: several bands hide each other
  const strip = models.filter((m) => shown.models[m.name].outside.length);
  const [low, high] = extent(measured.y);
  let wild = false; // a model that leaves the picture does not set its scale
  [...models].reverse().forEach((model) => { // the best is drawn last, on top
    const { simulated, error, outside, rmse } = shown.models[model.name];
    const score = rmse === null ? "" : `  ${rmse.toFixed(1)} mV`;
    const common = {
      name: plain(model.name), legendgroup: model.name, mode: "lines", line: { color: colour(model.name), width: 1.2 },
      visible: model.trained || models.every((m) => !m.trained) ? true : "legendonly",
    };
    if (model === banded) { // around its voltage, and, as wide, around no error
      const [x, below, above] = [floats(simulated.x), floats(simulated.low), floats(simulated.high)];
      const half = [...above].map((v, i) => 500 * (v - below[i]));
      [["y", [...above], [...below]], ["y2", half, half.map((v) => -v)]].forEach(([yaxis, top, bottom]) =>
        traces.push({ ...common, x: [...x, ...[...x].reverse()], y: [...top, ...bottom.reverse()], yaxis, fill: "toself",
          fillcolor: faint(colour(model.name), 0.22), line: { width: 0 }, showlegend: false, hoverinfo: "skip" }));
    }
    const y = floats(simulated.y);
    const [least, greatest] = extent(y);
    wild ||= greatest > high + (high - low) || least < low - (high - low);
    traces.push({ ...common, name: plain(model.name) + score, x: floats(simulated.x), y,
      hovertemplate: `${plain(model.name)} %{y:.4f} V<extra></extra>`, legendrank: 10 + models.indexOf(model) });
    traces.push({ ...common, x: floats(error.x), y: floats(error.y), yaxis: "y2", showlegend: false,
      hovertemplate: `${plain(model.name)} %{y:.1f} mV<extra></extra>` });
    if (outside.length) {
      const height = strip.indexOf(model);
      traces.push({ ...common, x: outside.flatMap(([a, b]) => [a, b, null]), y: outside.flatMap(() => [height, height, null]),
        yaxis: "y4", showlegend: false, line: { color: colour(model.name), width: 4 },
        hovertemplate: `${plain(model.name)} outside its training domain<extra></extra>` });
    }
  });
  traces.push({ x: floats(shown.current.x), y: floats(shown.current.y), yaxis: "y3", name: "current", showlegend: false,
    mode: "lines", line: { color: variable("--muted"), width: 1 }, hovertemplate: "current %{y:.2f} A<extra></extra>" });
  const some = strip.length > 0;
  draw("record-figure", traces, {
    hovermode: "x unified",
    xaxis: axis("Time (min)", { anchor: some ? "y4" : "y3", uirevision: record, hoverformat: ".2f",
      showspikes: true, spikethickness: 1, spikecolor: variable("--muted"), spikedash: "dot", spikemode: "across" }),
    yaxis: axis("Voltage (V)", { domain: [0.56, 1], uirevision: record,
      ...(wild ? { range: [low - 0.3 * (high - low), high + 0.3 * (high - low)] } : {}) }),
    yaxis2: axis("Error (mV)", { domain: [0.27, 0.53], uirevision: record, zeroline: true,
      zerolinecolor: variable("--muted"), ...(wild ? { range: [-300 * (high - low), 300 * (high - low)] } : {}) }),
    yaxis3: axis("Current (A)", { domain: [some ? 0.09 : 0, 0.24], uirevision: record }),
    ...(some ? { yaxis4: axis("", { domain: [0, 0.06], range: [-0.7, strip.length - 0.3], showticklabels: false,
      showgrid: false, zeroline: false, fixedrange: true }) } : {}),
    annotations: some ? [{ xref: "paper", yref: "paper", x: 0, y: 0.062, xanchor: "left", yanchor: "bottom",
      showarrow: false, text: "Outside the training domain", font: { size: 11, color: variable("--muted") } }] : [],
  });
  find("record").value = record;
  document.querySelectorAll("tr[data-record]").forEach((row) =>
    row.toggleAttribute("aria-current", Number(row.dataset.record) === record));
}
function choose(k) {
  record = (k + data.records.length) % data.records.length;
  drawRecord();
}

// --- learned curves ---
let curved = 0;
const withCurves = data.models.filter((m) => m.name in data.curves);
function drawCurves() {
  const curves = data.curves[withCurves[curved].name];
  const panels = [["ocv_volt", "Open-circuit voltage (V)", 1], ["r0_ohm", "R0 (mΩ)", 1e3], ["r_total_ohm", "Total resistance (mΩ)", 1e3]]
    .filter(([name]) => curves[name].length);
  const shade = shades(curves.temperature_degC);
  const shape = { grid: { rows: 1, columns: panels.length, pattern: "independent", xgap: 0.22 } };
  const traces = panels.flatMap(([name, title, scale], p) => {
    const suffix = p ? p + 1 : "";
    shape[`xaxis${suffix}`] = axis("State of charge (1)");
    shape[`yaxis${suffix}`] = axis(title, name === "ocv_volt" ? {} : { rangemode: "tozero" });
    return curves.temperature_degC.map((t, k) => ({
      x: curves.soc, y: curves[name][k].map((v) => (v === null ? null : v * scale)), name: `${t} °C`.replace("-", "−"),
      legendgroup: String(t), showlegend: p === 0, mode: "lines", line: { color: shade(t), width: 1.8 },
      xaxis: `x${suffix}`, yaxis: `y${suffix}`, hovertemplate: scale === 1 ? "%{y:.4f} V" : "%{y:.2f} mΩ",
    }));
  });
  draw("curve-figure", traces, shape);
}

function drawHistory() {
  const traces = data.models.filter((m) => m.name in data.history).flatMap((model) =>
    Object.entries(data.history[model.name]).flatMap(([seed, epochs], k) =>
      [["validate_rmse", "solid", 2], ["train_rmse", "dot", 1.2]].map(([name, dash, width]) => ({
        x: epochs.map((e) => e.epoch), y: epochs.map((e) => e[name]), name: plain(model.name), legendgroup: model.name,
        showlegend: k === 0 && dash === "solid", mode: epochs.length > 1 ? "lines" : "markers",
        line: { color: colour(model.name), dash, width },
        hovertemplate: `%{y:.2f} mV, seed ${seed}, ${dash === "solid" ? "validation" : "training"}`,
      }))));
  draw("history-figure", traces, { xaxis: axis("Epoch"), yaxis: axis("RMSE (mV)", { type: "log", dtick: "D1" }) });
}

// --- all rows ---
find("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().replace(/-/g, "−").split(/\s+/);
  for (const row of find("rows").tBodies[0].rows) {
    const text = row.textContent.toLowerCase().replace(/-/g, "−");
    row.hidden = !words.every((word) => text.includes(word));
  }
});

// --- start ---
const drawings = [];
if (data.records.length) {
  options(find("record"), data.records.map((r) => r.label), 0, (k) => splits[data.records[k].split] ?? data.records[k].split);
  find("record").addEventListener("change", (event) => choose(Number(event.target.value)));
  find("previous").addEventListener("click", () => choose(record - 1));
  find("next").addEventListener("click", () => choose(record + 1));
  document.querySelectorAll("tr[data-record]").forEach((row) => row.addEventListener("click", () => {
    choose(Number(row.dataset.record));
    find("simulated").scrollIntoView();
  }));
  drawings.push(drawRecord);
}
if (withCurves.length) {
  options(find("curve-model"), withCurves.map((m) => m.name), 0);
  find("curve-model").addEventListener("change", (event) => { curved = Number(event.target.value); drawCurves(); });
  drawings.push(drawCurves);
}
if (Object.keys(data.history).length) drawings.push(drawHistory);
start(drawings);
