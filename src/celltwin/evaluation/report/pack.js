// The figures of the page of packs.
const shown = data.shown;
if (shown) {
  const names = Object.keys(shown.models);
  const select = find("model");
  options(select, names, names.length - 1);
  const error = (name) => shown.models[name].map((row, cell) => row.map((v, t) => 1e3 * (v - shown.measured[cell][t])));
  const rms = (row) => Math.sqrt(row.reduce((sum, v) => sum + (Number.isFinite(v) ? v * v : 0), 0) / row.length);
  const blueRed = [[0, "#2b6cb0"], [0.5, "#f4f4f2"], [1, "#c0392b"]];
  const all = () => {
    const name = names[select.value], errors = error(name);
    const cells = errors.map((_, cell) => `cell ${cell + 1}`);
    const sizes = errors.flat().filter(Number.isFinite).map(Math.abs).sort((a, b) => a - b);
    const most = Math.max(1, sizes[Math.floor(0.99 * (sizes.length - 1))]);
    draw("heat-figure", [{ type: "heatmap", x: shown.minutes, y: cells, z: errors, zmin: -most, zmax: most,
      colorscale: blueRed, colorbar: { title: { text: "mV" } }, hovertemplate: "%{y}, %{x} min: %{z:.1f} mV<extra></extra>" }],
      { height: Math.max(320, 120 + 11 * cells.length), xaxis: axis("time in min"), yaxis: axis("", { autorange: "reversed" }) });

    const [rows, columns] = [shown.place.map((p) => p[0]), shown.place.map((p) => p[1])];
    const wires = { x: [], y: [] };
    const join = (a, b) => {
      wires.x.push(columns[a], columns[b], null);
      wires.y.push(rows[a], rows[b], null);
    };
    for (let a = 0; a < rows.length; a++) for (let b = a + 1; b < rows.length; b++) {
      const parallel = shown.group[a] === shown.group[b] && columns[b] === columns[a] + 1;
      const first = (cell) => columns[cell] === Math.min(...columns.filter((_, k) => shown.group[k] === shown.group[cell]));
      const series = shown.string[a] === shown.string[b] && rows[b] === rows[a] + 1 && first(a) && first(b);
      if (parallel || series) join(a, b);
    }
    draw("wires-figure", [
      { mode: "lines", ...wires, line: { color: variable("--muted"), width: 2 }, hoverinfo: "skip" },
      { mode: "markers+text", x: columns, y: rows, text: cells.map((_, k) => String(k + 1)),
        textfont: { size: 9 }, hovertext: errors.map((row, k) => `cell ${k + 1}: ${rms(row).toFixed(1)} mV`), hoverinfo: "text",
        marker: { size: 24, symbol: "square", color: errors.map(rms), colorscale: "YlOrRd", showscale: true,
          colorbar: { title: { text: "mV" } }, line: { color: variable("--muted"), width: 1 } } },
    ], { height: Math.max(320, 120 + 34 * (1 + Math.max(...rows))), showlegend: false,
      xaxis: axis("across", { dtick: 1, zeroline: false }), yaxis: axis("along the string", { autorange: "reversed", dtick: 1, zeroline: false }) });

    const last = shown.minutes.length - 1;
    const weakest = shown.measured.reduce((best, row, k) => (row[last] < shown.measured[best][last] ? k : best), 0);
    draw("worst-figure", [
      { name: `cell ${weakest + 1}, measured`, x: shown.minutes, y: shown.measured[weakest], line: { color: variable("--ink"), width: 2.5 } },
      ...names.map((n) => ({ name: n, x: shown.minutes, y: shown.models[n][weakest], line: { width: 1.3 },
        visible: n === name || n === "pack-circuit" ? true : "legendonly" })),
    ], { height: 420, xaxis: axis("time in min"), yaxis: axis("voltage in V") });
  };
  select.addEventListener("change", all);
  redrawn(all);
}
