// The charts of the last 15 minutes, drawn by uPlot.
"use strict";

/** The longest and the shortest time that the charts show, in seconds. */
const CHART_SECONDS = 15 * 60;
const CHART_SECONDS_MIN = 60;
/** The time below which the labels of the time axis have seconds, in seconds. */
const LABEL_SECONDS = 4 * 60;
const CHART_HEIGHT = 170;

/** Formats numbers as `fjord status` does. */
const format = {
  rate: (value) => (value > 0 && value < 10 ? value.toFixed(2) : Math.round(value).toLocaleString("en")),
  seconds(value) {
    if (value === 0) return "0";
    if (value < 0.01) return `${(value * 1e3).toFixed(2)} ms`;
    return value < 1 ? `${(value * 1e3).toFixed(0)} ms` : `${value.toFixed(2)} s`;
  },
  percent: (value) => `${(value * 100).toFixed(0)} %`,
  count: (value) => Math.round(value).toLocaleString("en"),
  bytes: (value) => (value < 1e6 ? `${(value / 1e3).toFixed(0)} kB` : value < 1e9 ? `${(value / 1e6).toFixed(0)} MB` : `${(value / 1e9).toFixed(2)} GB`),
  uptime(value) {
    if (value < 120) return `${value.toFixed(0)} s`;
    if (value < 7200) return `${(value / 60).toFixed(0)} min`;
    return value < 172800 ? `${(value / 3600).toFixed(0)} h` : `${(value / 86400).toFixed(0)} d`;
  },
};

/** Formats a value that may be unknown. */
const known = (formatted, value) => (value === null || value === undefined ? "–" : formatted(value));

const CHARTS = [
  {
    title: "Throughput", unit: "per second", format: format.rate,
    series: [["Requests", "requests_per_second"], ["Calls", "calls_per_second"]],
  },
  {
    title: "Latency", unit: "from request to response, and of calls", format: format.seconds,
    series: [["Request p50", "request_p50_seconds"], ["Request p99", "request_p99_seconds"], ["Call p99", "call_p99_seconds"]],
  },
  {
    title: "Errors", unit: "per second", format: format.rate,
    series: [["Requests (5xx)", "failed_per_second"], ["Calls", "errors_per_second"]],
  },
  {
    title: "Utilization", unit: "share of the slots in use, and requests waiting for one", format: format.percent,
    series: [["Slots in use", "utilization"], ["Waiting", "waiting"]], second: format.count,
  },
];

/** The width of the axis labels in pixels: enough for "1,234,567" and "100 ms". */
const AXIS_WIDTH = 62;
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Returns a range that starts at 0 and leaves room above the largest value. */
const fromZero = (least) => (_, min, max) => [0, Math.max(least, (max ?? 0) * 1.1)];

function axis(scale, formatted, side) {
  return {
    scale, side, size: AXIS_WIDTH, stroke: () => style("--dim"), font: "12px system-ui, sans-serif",
    grid: side === 3 ? { stroke: () => style("--grid"), width: 1 } : { show: false },
    ticks: { stroke: () => style("--grid"), width: 1 },
    // Ticks are round numbers, which need no decimals.
    values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) && formatted === format.rate ? format.count(tick) : formatted(tick))),
  };
}

/** A chart with its caption. */
class Chart {
  constructor(definition) {
    this.definition = definition;
    this.figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const unit = document.createElement("small");
    unit.textContent = ` ${definition.unit}`;
    caption.append(definition.title, unit);
    this.plot = document.createElement("div");
    // A screen reader reads the description instead of the drawing.
    this.plot.setAttribute("role", "img");
    this.figure.append(caption, this.plot);
  }

  /** Draws the empty chart. The figure must be in the document. */
  draw() {
    const { series, second, format: formatted } = this.definition;
    const scale = (n) => (second && n > 0 ? "second" : "y");
    const lines = series.map(([label], n) => ({
      label, scale: scale(n), width: 2, spanGaps: false, points: { show: false },
      stroke: () => style(`--series-${n + 1}`), dash: n === 0 ? [] : n === 1 ? [6, 3] : [2, 3],
      value: (_, value) => known(scale(n) === "second" ? second : formatted, value),
    }));
    const axes = [
      { stroke: () => style("--dim"), font: "12px system-ui, sans-serif", grid: { show: false }, ticks: { stroke: () => style("--grid"), width: 1 }, values: (_, ticks) => ticks.map((tick) => this.timeLabel(tick)), incrs: [10, 15, 30, 60, 120, 180, 300] },
      axis("y", formatted, 3),
    ];
    const scales = { x: { time: true, range: () => this.range }, y: { range: second ? () => [0, 1] : fromZero(formatted === format.seconds ? 0.001 : 1) } };
    if (second) {
      axes.push(axis("second", second, 1));
      scales.second = { range: fromZero(5) };
    }
    this.range = [Date.now() / 1e3 - CHART_SECONDS_MIN, Date.now() / 1e3];
    this.uplot = new uPlot({
      width: Math.max(200, this.plot.clientWidth), height: CHART_HEIGHT, axes, scales,
      cursor: { sync: { key: "fleet" }, drag: { x: false, y: false } },
      legend: { live: true },
      series: [{ label: "Time", value: (_, value) => (value ? new Date(value * 1e3).toLocaleTimeString([], { hour12: false }) : "–") }, ...lines],
    }, [[], ...series.map(() => [])], this.plot);
    this.uplot.over.addEventListener("mouseleave", () => this.showLastValues());
  }

  timeLabel(time) {
    const second = this.range[1] - this.range[0] < LABEL_SECONDS ? "2-digit" : undefined;
    return new Date(time * 1e3).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second, hour12: false });
  }

  fit() {
    const width = this.plot.clientWidth;
    if (width > 0 && width !== this.uplot.width) this.uplot.setSize({ width, height: CHART_HEIGHT });
  }

  /** Shows a history that ends now, at the time of this browser. */
  show(history, now) {
    const { series, title, format: formatted, second } = this.definition;
    this.last = [history, now];
    this.range = [now - Math.min(CHART_SECONDS, Math.max(CHART_SECONDS_MIN, history.age_seconds[0] ?? 0)), now];
    const values = series.map(([, key]) => history[key]);
    this.uplot.setData([history.age_seconds.map((age) => now - age), ...values]);
    if (!this.uplot.over.matches(":hover")) this.showLastValues();
    const last = series.map(([label], n) => {
      const shown = second && n > 0 ? second : formatted;
      const all = values[n].filter((value) => value !== null);
      const most = all.length > 0 ? `, at most ${shown(Math.max(...all))}` : "";
      return `${label}: now ${known(shown, values[n].at(-1))}${most}`;
    });
    this.plot.setAttribute("aria-label", `${title} in the last 15 minutes. ${last.join(". ")}.`);
  }

  /** Shows the last values in the legend, which otherwise shows those at the pointer. */
  showLastValues() {
    const last = this.uplot.data[0].length - 1;
    if (last >= 0) this.uplot.setLegend({ idx: last });
  }

  /** Draws the chart again in the colors of the current scheme. */
  recolor() {
    this.uplot.destroy();
    this.draw();
    if (!this.last) return;
    this.show(...this.last);
    // uPlot clears the legend when it draws a new chart for the first time.
    setTimeout(() => this.showLastValues());
  }
}

/** Adds the charts to an element, and returns a function that shows a history. */
function createCharts(element) {
  const charts = CHARTS.map((definition) => new Chart(definition));
  element.append(...charts.map((chart) => chart.figure));
  for (const chart of charts) {
    chart.draw();
    new ResizeObserver(() => chart.fit()).observe(chart.plot);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.recolor()));
  return (history, now) => charts.forEach((chart) => chart.show(history, now));
}
