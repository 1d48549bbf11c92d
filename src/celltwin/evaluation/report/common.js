// What the programs of all pages share; page.py puts both into one function.
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);

// --- theme: every colour comes from the style sheet, so figures follow light and dark ---
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const faint = (hex, alpha) =>
  `rgba(${[1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)).join(",")},${alpha})`;
// Plotly reads tags in its texts; names are to be shown as they are.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const axis = (title, more = {}) => ({
  title: { text: title, standoff: 6 }, gridcolor: variable("--line"), zerolinecolor: variable("--line"),
  linecolor: variable("--line"), automargin: true, ...more,
});
const layout = (more) => ({
  paper_bgcolor: variable("--card"), plot_bgcolor: variable("--card"),
  font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: variable("--ink") },
  margin: { l: 64, r: 16, t: 58, b: 46 },
  modebar: { bgcolor: "rgba(0,0,0,0)", color: variable("--muted"), activecolor: variable("--accent") },
  legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", uirevision: "keep" },
  hoverlabel: { bgcolor: variable("--card"), bordercolor: variable("--line"), font: { color: variable("--ink") } },
  ...more,
});
// Plotly offers to upload a chart to its makers' service unless told not to: the reader's data stay here.
const settings = { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "sendChartToCloud"] };
const draw = (id, traces, shape, more = {}) => Plotly.react(find(id), traces, layout(shape), { ...settings, ...more });

const floats = (text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
};
const extent = (values) => values.reduce(([a, b], v) => (Number.isFinite(v) ? [Math.min(a, v), Math.max(b, v)] : [a, b]),
  [Infinity, -Infinity]);

const options = (select, items, chosen, group = () => null) => {
  const parents = new Map();
  items.forEach((text, k) => {
    const name = group(k);
    if (name && !parents.has(name)) {
      const parent = document.createElement("optgroup");
      parent.label = name;
      select.append(parent);
      parents.set(name, parent);
    }
    (parents.get(name) ?? select).append(new Option(text, k, k === chosen, k === chosen));
  });
};

// Cold is blue, warm is red.
const shades = (temperatures) => {
  const [cold, warm] = extent(temperatures);
  return (t, alpha = 1) => `hsla(${Math.round(215 - 200 * (warm > cold ? (t - cold) / (warm - cold) : 0.5))},70%,55%,${alpha})`;
};
const redrawn = (all) => {
  all();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
};
