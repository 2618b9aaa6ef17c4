// Small line plots of the last minutes, as SVG made here. Each has its numbers in words beside it,
// and all it shows in its label.

import { byId, el, setText } from "./dom.js";
import { KEPT_MS } from "./series.js";
import { count, duration, rate } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 64;

const PLOTS = [
  {
    title: "Messages per second",
    least: 1,
    say: rate,
    lines: [
      { name: "handled", key: "handled", sum: "avg" },
      { name: "delivered", key: "delivered", sum: "avg" },
      { name: "failed", key: "troubled", sum: "avg", isTrouble: true },
    ],
  },
  {
    title: "Delivery time",
    least: 0.005,
    say: duration,
    lines: [
      { name: "median", key: "median" },
      { name: "95 %", key: "slow" },
    ],
  },
  {
    title: "Waiting",
    least: 4,
    say: count,
    lines: [
      { name: "in the outbox", key: "pending" },
      { name: "in flight", key: "inFlight" },
    ],
  },
];

function svg(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** The next 1, 2 or 5 times a power of ten: a round top for an axis. */
export function roundTop(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= wanted * 0.999) ?? wanted;
}

class Plot {
  constructor({ title, lines, say, least }) {
    this.title = title;
    this.lines = lines;
    this.say = say;
    this.least = least;
    this.drawing = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": title,
    });
    for (const y of [0.5, HEIGHT / 2, HEIGHT - 0.5]) {
      this.drawing.append(svg("line", { x1: 0, x2: WIDTH, y1: y, y2: y, class: "grid" }));
    }
    this.paths = lines.map((line, index) => {
      const path = svg("path", { class: `line line-${line.isTrouble ? "trouble" : index}`, d: "" });
      this.drawing.append(path);
      return path;
    });
    this.top = el("span", { class: "plot-top" });
    this.values = lines.map(() => el("b", {}));
    this.figure = el(
      "figure",
      { class: "plot" },
      el(
        "figcaption",
        {},
        el("p", { class: "plot-title" }, title),
        lines.map((line, index) =>
          el("span", { class: `key key-${line.isTrouble ? "trouble" : index}` }, `${line.name} `, this.values[index]),
        ),
      ),
      el("div", { class: "plot-area", "aria-hidden": "false" }, this.drawing, this.top),
      el("div", { class: "plot-axis", "aria-hidden": "true" }, el("span", {}, "5 min ago"), el("span", {}, "now")),
    );
  }

  draw(points, atMs) {
    const values = points.flatMap((point) => this.lines.map((line) => point[line.key])).filter((value) => value !== null);
    const top = roundTop(Math.max(0, ...values), this.least);
    const x = (point) => (WIDTH * (1 - (atMs - point.atMs) / KEPT_MS)).toFixed(1);
    const y = (value) => ((HEIGHT - 2) * (1 - value / top) + 1).toFixed(1);
    const said = this.lines.map((line, index) => {
      let path = "";
      let isOpen = false;
      for (const point of points) {
        const value = point[line.key];
        if (value !== null) path += `${isOpen ? "L" : "M"}${x(point)} ${y(value)}`;
        // a lone point between two gaps is shown as a dot: a line of no length with round ends
        if (value !== null && !isOpen) path += "h.01";
        isOpen = value !== null;
      }
      this.paths[index].setAttribute("d", path);
      const last = points.findLast((point) => point[line.key] !== null)?.[line.key] ?? null;
      const now = points.at(-1)?.[line.key] ?? null;
      setText(this.values[index], this.say(now ?? last));
      const most = Math.max(0, ...points.map((point) => point[line.key] ?? 0));
      return `${line.name} now ${this.say(now)}, most ${this.say(most)}`;
    });
    setText(this.top, this.say(top));
    this.drawing.setAttribute("aria-label", `${this.title}, last 5 minutes: ${said.join("; ")}`);
  }
}

let plots = [];

export function startPlots() {
  plots = PLOTS.map((plan) => new Plot(plan));
  byId("plots").append(...plots.map((plot) => plot.figure));
}

export function drawPlots(points, atMs) {
  for (const plot of plots) plot.draw(points, atMs);
}
