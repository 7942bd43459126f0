"use strict";
// Draws every figure.chart from the JSON inside it with uPlot. Values follow the pointer, or the arrow keys.
(() => {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;
  const colour = (name, opacity) => {
    probe.style.color = `var(--${name})`;
    const rgb = getComputedStyle(probe).color;
    return opacity === undefined ? rgb : rgb.replace(/rgba?\(([^)]*)\)/, (_, c) => `rgba(${c.split(",").slice(0, 3)}, ${opacity})`);
  };
  const text = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    return size >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(size >= 100 ? 4 : 3));
  };
  const short = (value) => {
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
    return size >= 1e4 ? `${+(value / 1e3).toPrecision(3)}k` : value.toLocaleString("en");
  };
  // Runs were sampled at steps of their own: the nearest step at which this series has a value.
  const nearest = (u, series, index) => {
    const values = u.data[series];
    if (series === 0 || values[index] !== null) return index;
    for (let off = 1; off < values.length; off++) {
      if (values[index - off] !== null && values[index - off] !== undefined) return index - off;
      if (values[index + off] !== null && values[index + off] !== undefined) return index + off;
    }
    return index;
  };
  const series = (line, spec, at) => {
    const stroke = colour(line.colour);
    const base = {
      label: line.label, stroke, spanGaps: true, width: line.kind === "line" ? 2 : 1.2, points: { show: false },
      value: (_, v, __, index) => text(index === null || index === undefined ? null : spec.shown?.[at]?.[index] ?? v),
    };
    if (line.kind === "points") Object.assign(base, { paths: () => null, points: { show: true, size: 5, fill: colour(line.colour, 0.45), stroke: "transparent" } });
    if (line.kind === "reference") base.dash = [6, 5];
    if (line.kind === "area") Object.assign(base, { fill: colour(line.colour), width: 0 });
    if (line.kind === "edge") Object.assign(base, { width: 0, stroke: "transparent" });
    if (line.dash) base.dash = line.dash;
    return base;
  };
  const draw = (figure) => {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const place = figure.querySelector(".plot");
    place.replaceChildren();
    const [ink, grid] = [colour("soft"), colour("line")];
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui", labelFont: "12px system-ui", labelSize: 20 };
    const plot = new uPlot({
      width: place.clientWidth, height: 280, padding: [10, 34, 0, 0],
      scales: { x: { time: false }, y: { range: (_, low, high) => {
        const [from, to] = [Math.min(spec.low ?? low, low), Math.max(spec.high ?? high, high)];
        const room = (to - from || 1) * 0.05;
        return [spec.low !== undefined && from >= spec.low ? spec.low : from - room, spec.high !== undefined && to <= spec.high ? spec.high : to + room];
      } } },
      axes: [{ ...axis, label: spec.xlabel, values: (_, ticks) => ticks.map(short), space: 70 }, { ...axis, label: spec.ylabel, size: 52, values: (_, ticks) => ticks.map(short) }],
      cursor: { dataIdx: nearest, y: false, drag: { x: true, y: false }, points: { size: 7 } },
      legend: { live: true },
      series: [{ label: spec.xlabel, value: (_, v) => text(v) }, ...spec.lines.map((line, at) => series(line, spec, at))],
      bands: (spec.bands ?? []).map((band) => ({ series: [band.high + 1, band.low + 1], fill: colour(band.colour, 0.18) })),
    }, [spec.x, ...spec.lines.map((line) => line.values)], place);
    spec.lines.forEach((line, at) => {  // edges of bands are no lines of their own
      if (line.kind === "edge") place.querySelectorAll(".u-legend .u-series")[at + 1].hidden = true;
    });
    for (const row of place.querySelectorAll(".u-legend .u-series:not(:first-child) th")) {
      row.tabIndex = 0;
      row.addEventListener("keydown", (event) => { if (event.key === "Enter") row.click(); });
    }
    return plot;
  };
  const plots = new Map();
  const redraw = (figure) => { plots.get(figure)?.destroy(); plots.set(figure, draw(figure)); };
  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const plot = plots.get(target);
      const width = target.querySelector(".plot").clientWidth;
      if (plot && width && plot.width !== width) plot.setSize({ width, height: plot.height });
    }
  });
  for (const figure of document.querySelectorAll("figure.chart")) {
    redraw(figure);
    sized.observe(figure);
    let at = null;
    figure.addEventListener("keydown", (event) => {
      const plot = plots.get(figure);
      const last = plot.data[0].length - 1;
      const to = { ArrowLeft: (at ?? last + 1) - 1, ArrowRight: (at ?? -1) + 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      at = Math.min(last, Math.max(0, to));
      plot.setCursor({ left: plot.valToPos(plot.data[0][at], "x"), top: 10 });
    });
  }
  document.addEventListener("themechange", () => { for (const figure of plots.keys()) redraw(figure); });
})();
