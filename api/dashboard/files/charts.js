// The charts: points by range, which each refresh adds to, and their plots.

import { bytes, clock, date, duration, rate, short } from "./format.js";
import { attribute, make, text } from "./table.js";

// publicPlots are the charts that any visitor may see, and plots all of them in their order: title, unit,
// the least value at the top of the axis, and series with the labels of their lines.
export const publicPlots = [
  { title: "Throughput", show: rate,
    series: [["records", "stored"], ["events", "logged"], ["live", "live"]] },
  { title: "Lag behind the firehoses", show: duration, least: 1, series: [["lag", "slowest source"]] },
];
export const plots = [
  ...publicPlots,
  { title: "Repositories that wait", show: short,
    series: [["pending", "queued"], ["resync", "failing"]] },
  { title: "Received from the network", show: (v) => `${bytes(v)}/s`, base: 1024,
    series: [["received", "bytes"]] },
  { title: "CPU and memory", show: (v) => (v == null ? "–" : v.toFixed(2)),
    series: [["cpu", "CPUs"], ["memory", "memory", bytes]] },
  { title: "Disk", show: bytes, base: 1024,
    series: [["disk_used", "store"], ["disk_free", "free", bytes]] },
];

// Points are the series of one range.
class Points {
  constructor() {
    this.span = 0; // seconds
    this.clear();
  }

  clear() {
    this.times = [];
    this.series = {};
  }

  // add takes points of a refresh. They begin with the newest one that was there, which may differ.
  add({ start, step, span, series }) {
    this.span = span;
    const keep = this.times.findIndex((t) => t > start - step / 2);
    if (keep >= 0) this.cut(0, keep);
    const old = this.times.length;
    const names = Object.keys(series);
    const n = names.length ? series[names[0]].length : 0;
    for (let i = 0; i < n; i++) this.times.push(start + i * step);
    for (const name of names) {
      const values = (this.series[name] ??= new Array(old).fill(null));
      values.push(...series[name]);
    }
    this.cut(Math.max(0, this.times.length - Math.round(span / step) - 1));
  }

  // cut keeps the points from one index up to another.
  cut(from, to) {
    this.times = this.times.slice(from, to);
    for (const name in this.series) this.series[name] = this.series[name].slice(from, to);
  }

  newest() { return this.times.at(-1) ?? 0; }

  last(name) { return this.series[name]?.findLast((v) => v != null) ?? null; }
}

export class Charts {
  constructor(parent, plots) {
    this.points = { hour: new Points(), day: new Points() };
    this.range = "hour";
    this.now = 0;
    this.figures = plots.map((plot, i) => this.figure(parent, plot, i));
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.rebuild());
    const resized = new ResizeObserver(() => this.resize());
    resized.observe(parent);
  }

  figure(parent, plot, number) {
    const figure = make("figure");
    const caption = make("figcaption");
    caption.append(make("span", "title", plot.title));
    const legend = make("span", "legend");
    const values = plot.series.map(([, label], i) => {
      const item = make("span", "item");
      const value = make("b", "", "–");
      item.append(make("i", `line${i + 1}`), ` ${label} `, value);
      legend.append(item);
      return value;
    });
    caption.append(legend);
    const box = make("div", "plot");
    attribute(box, "role", "img");
    box.id = `chart-${number}`;
    figure.append(caption, box);
    parent.append(figure);
    return { plot, box, values, chart: null };
  }

  // query is what the next refresh has to send.
  query() {
    return `hour=${Math.floor(this.points.hour.newest())}&day=${Math.floor(this.points.day.newest())}`;
  }

  clear() { for (const p of Object.values(this.points)) p.clear(); }

  // add takes the charts of a refresh at a time in unix seconds.
  add(charts, now) {
    this.now = now;
    for (const name in charts) this.points[name].add(charts[name]);
    this.draw();
  }

  // last returns the newest known value of a series.
  last(name) { return this.points.hour.last(name); }

  show(range) {
    this.range = range;
    this.rebuild();
  }

  rebuild() {
    for (const f of this.figures) {
      f.chart?.destroy();
      f.chart = null;
    }
    this.draw();
  }

  resize() {
    for (const f of this.figures) {
      const { clientWidth: width, clientHeight: height } = f.box;
      if (f.chart && (f.chart.width !== width || f.chart.height !== height)) f.chart.setSize({ width, height });
    }
  }

  draw() {
    const points = this.points[this.range];
    for (const f of this.figures) {
      const data = [points.times, ...f.plot.series.map(([name]) => points.series[name] ?? points.times.map(() => null))];
      if (f.chart) f.chart.setData(data);
      else f.chart = new uPlot(this.options(f), data, f.box);
      this.legend(f, null);
      attribute(f.box, "aria-label", this.summary(f));
    }
  }

  // legend shows the values at an index, or the newest ones.
  legend(f, index) {
    const points = this.points[this.range];
    f.plot.series.forEach(([name, , show], i) => {
      const value = index == null ? points.last(name) : points.series[name]?.[index];
      text(f.values[i], (show ?? f.plot.show)(value ?? null));
    });
  }

  // summary says in words what a chart shows.
  summary(f) {
    const points = this.points[this.range];
    const parts = f.plot.series.map(([name, label, show = f.plot.show]) => {
      const known = (points.series[name] ?? []).filter((v) => v != null);
      const most = known.length ? Math.max(...known) : null;
      return `${label} now ${show(points.last(name))}, at most ${show(most)}`;
    });
    return `${f.plot.title} in the last ${this.range}: ${parts.join("; ")}`;
  }

  options(f) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = `11px ${colour("--font") || "sans-serif"}`;
    const grid = { stroke: colour("--grid"), width: 1 };
    const axis = { stroke: colour("--quiet"), font, grid, ticks: { show: false } };
    const day = this.range === "day";
    // A second unit has a scale of its own, without an axis.
    const scaleOf = ([, , show]) => (show ? "other" : "y");
    const up = (u, min, max) => [0, Math.max(max > 0 ? max * 1.1 : 1, f.plot.least ?? 0)];
    const increments = f.plot.base === 1024
      ? Array.from({ length: 60 }, (_, i) => 2 ** i) : undefined;
    return {
      width: f.box.clientWidth, height: f.box.clientHeight,
      padding: [6, 4, 0, 0],
      legend: { show: false },
      cursor: { points: { size: 6 }, drag: { x: false, y: false }, y: false },
      scales: {
        x: { time: true, range: () => [this.now - this.points[this.range].span, this.now] },
        y: { range: up }, other: { range: up },
      },
      axes: [
        { ...axis, size: 22, space: 56,
          values: (u, times) => times.map((t) => clock(t * 1000).slice(0, 5)) },
        { ...axis, size: 64, space: 26, incrs: increments,
          values: (u, values) => values.map((v) => f.plot.show(v)) },
      ],
      series: [{}, ...f.plot.series.map((s, i) => ({
        scale: scaleOf(s), stroke: colour(`--line${i + 1}`), width: 1.5,
        fill: f.plot.series.length === 1 ? colour("--fill") : undefined,
        points: { show: false }, spanGaps: false,
      }))],
      hooks: {
        setCursor: [(u) => {
          this.legend(f, u.cursor.idx);
          attribute(f.box, "title", u.cursor.idx == null ? null
            : (day ? date : clock)(u.data[0][u.cursor.idx] * 1000));
        }],
      },
    };
  }
}
