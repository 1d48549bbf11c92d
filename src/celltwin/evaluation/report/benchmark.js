// What the programs of both benchmarks' pages share.
const colours = 14;
const colour = (name) => variable(`--c${data.models.findIndex((m) => m.name === name) % colours}`);

// --- residuals: medians of all, the band of one ---
let banded = 0;
const withResiduals = data.models.filter((m) => m.name in data.residuals);
function drawResiduals() {
  const panels = [["soc", "State of charge (1)"], ["current_ampere", "Current (A)"], ["temperature_celsius", "Temperature (°C)"]];
  const traces = [];
  const shape = { grid: { rows: 1, columns: 3, pattern: "independent", xgap: 0.12 } };
  panels.forEach(([name, title], p) => {
    const suffix = p ? p + 1 : "";
    shape[`xaxis${suffix}`] = axis(title);
    shape[`yaxis${suffix}`] = axis(p ? "" : `Error (${data.unit})`, { zeroline: true, zerolinecolor: variable("--muted") });
    withResiduals.forEach((model, k) => {
      const band = data.residuals[model.name][name];
      if (!band) return;
      const chosen = k === banded;
      const common = { legendgroup: model.name, xaxis: `x${suffix}`, yaxis: `y${suffix}`,
        visible: chosen || (model.trained && model.scored) || withResiduals.every((m) => !m.trained) ? true : "legendonly" };
      if (chosen) {
        traces.push({ ...common, x: [...band.x, ...[...band.x].reverse()], y: [...band.high, ...[...band.low].reverse()],
          fill: "toself", fillcolor: faint(colour(model.name), 0.18), line: { width: 0 }, mode: "lines", showlegend: false,
          hoverinfo: "skip" });
      }
      traces.push({ ...common, x: band.x, y: band.median, name: plain(model.name), showlegend: p === 0, mode: "lines",
        line: { color: colour(model.name), width: chosen ? 2.6 : 1.3 },
        customdata: band.x.map((_, i) => [band.low[i], band.high[i]]),
        hovertemplate: `%{y:.1f} ${data.unit} (5–95 %: %{customdata[0]:.1f} to %{customdata[1]:.1f})` });
    });
  });
  draw("residual-figure", traces, shape);
}

// --- tables ---
const key = (row, k) => {
  const cell = row.cells[k];
  if (cell.dataset.v === undefined) return cell.textContent;
  return cell.dataset.v === "" ? Infinity : Number(cell.dataset.v);
};
document.querySelectorAll("table.sortable").forEach((table) => {
  [...table.tHead.rows[0].cells].forEach((heading, k) => heading.addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sign = down ? -1 : 1;
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      rows.sort((a, b) => {
        const [x, y] = [key(a, k), key(b, k)];
        if (typeof x === "string" || typeof y === "string") return sign * String(x).localeCompare(String(y), undefined, { numeric: true });
        if (x === y) return 0;
        return x === Infinity || y === Infinity ? x - y : sign * (x - y); // what has no value stays last
      });
      body.append(...rows);
    }
  }));
});

// --- start: the drawings of a page, and those that are here ---
function start(drawings) {
  const mine = [];
  if (withResiduals.length) {
    options(find("residual-model"), withResiduals.map((m) => m.name), 0);
    find("residual-model").addEventListener("change", (event) => { banded = Number(event.target.value); drawResiduals(); });
    mine.push(drawResiduals);
  }
  redrawn(() => {
    document.querySelectorAll("[data-colour]").forEach((swatch) => {
      swatch.style.background = variable(`--c${swatch.dataset.colour % colours}`);
    });
    [...drawings, ...mine].forEach((drawing) => drawing());
  });
}
