// The figures of the page of runs: each model's figure from run to run.
redrawn(() => data.groups.forEach((group) => {
  const names = group.runs.map((name, k) => `${k + 1} ${name}`);
  const traces = Object.entries(group.models).map(([name, of]) => ({
    name: plain(name), x: names, y: of.value, mode: "lines+markers", connectgaps: true,
    error_y: { type: "data", array: of.spread.map((v) => v ?? 0), visible: true, thickness: 1 },
  }));
  draw(group.figure, traces, { height: 420, xaxis: axis("", { type: "category" }),
    yaxis: axis(group.title, { type: "log", dtick: "D2" }) });
}));
