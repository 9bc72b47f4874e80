// Draws the charts of a recording from the data in the page. Plain SVG; asks nobody for anything.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NS = Object.assign(document.createElement("template"), { innerHTML: "<svg/>" }).content.firstChild.namespaceURI;
  const UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
  const charts = []; // what a pointer over one of them shows in all

  const node = (name, attributes, parent) => {
    const made = document.createElementNS(NS, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (parent) parent.appendChild(made);
    return made;
  };
  const html = (name, parent, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    if (parent) parent.appendChild(made);
    return made;
  };
  const color = (name) => `var(--${name === "page" ? "page-cache" : name === "host" ? "other" : name === "withheld" ? "reserved" : name})`;
  const bytes = (value) => {
    const [unit, size] = UNITS.find((each) => Math.abs(value) >= each[1]) || ["B", 1];
    return (value / size).toFixed(size === 1 ? 0 : 2) + " " + unit;
  };
  const clock = (s) => {
    if (s < 120) return s.toFixed(data.end < 20 ? 2 : 1) + " s";
    const whole = Math.round(s), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    return (h ? h + " h " : "") + m + " min " + (whole % 60) + " s";
  };
  const tick = (s) => (s < 120 || data.end < 240 ? +s.toFixed(3) + " s" : +(s / 60).toFixed(1) + " min");
  // Steps of 1, 2 or 5 at a power of ten (of two for bytes), as many as have room.
  const steps = (most, count, bases) => {
    let least = most / Math.max(1, count);
    for (const base of bases) if (base >= least) return base;
    return bases[bases.length - 1];
  };
  const BYTE_STEPS = [];
  for (let power = 10; power < 46; power++) BYTE_STEPS.push(2 ** power);
  const TIME_STEPS = [];
  for (let power = -3; power < 3; power++) for (const k of [1, 2, 5]) TIME_STEPS.push(k * 10 ** power);
  for (const s of [600, 900, 1800, 3600, 7200, 21600, 43200, 86400]) TIME_STEPS.push(s);

  function frame(svg, width, height, left, bottom) {
    const end = data.end || 1e-9;
    const x = (s) => left + (Math.min(Math.max(s, 0), end) / end) * (width - left - 6);
    const step = steps(end, width / 90, TIME_STEPS);
    for (let s = 0; s <= end; s += step) {
      const label = node("text", { x: x(s), y: height - 4, "text-anchor": s === 0 ? "start" : x(s) > width - 22 ? "end" : "middle" }, svg);
      label.textContent = tick(s);
      node("line", { class: "axis", x1: x(s), x2: x(s), y1: height - bottom, y2: height - bottom + 4 }, svg);
    }
    return { x, time: (px) => ((px - left) / (width - left - 6)) * end };
  }

  function stack(place, chart) {
    const hidden = new Set();
    const legend = html("ul", null, undefined, "legend");
    const tip = html("div", place, undefined, "tip");
    let draw, at;
    const shown = () => chart.series.filter((_, i) => !hidden.has(i));
    function paint() {
      const width = place.clientWidth, height = width < 520 ? 210 : 270, left = 62, bottom = 22, top = 12;
      if (draw) draw.remove();
      const svg = (draw = node("svg", { height, role: "img", "aria-label": chart.title }));
      place.insertBefore(svg, legend);
      const sums = chart.t.map((_, i) => shown().reduce((sum, each) => sum + each.values[i], 0));
      const most = Math.max(chart.total || 0, ...sums, 1);
      const y = (value) => height - bottom - (value / most) * (height - bottom - top);
      const axis = frame(svg, width, height, left, bottom);
      const step = steps(most, height / 52, BYTE_STEPS);
      for (let value = 0; value <= most; value += step) {
        node("line", { class: "grid", x1: left, x2: width - 6, y1: y(value), y2: y(value) }, svg);
        const label = node("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, svg);
        label.textContent = bytes(value).replace(/\.00 /, " ").replace(/(\.\d)0 /, "$1 ");
      }
      const base = chart.t.map(() => 0);
      for (const each of shown()) {
        const before = base.slice();
        each.values.forEach((value, i) => (base[i] += value));
        node("path", { d: area(chart.t, before, base, axis.x, y), fill: color(each.color), "fill-opacity": .88 }, svg);
      }
      if (chart.total) {
        node("line", { class: "total", x1: left, x2: width - 6, y1: y(chart.total), y2: y(chart.total) }, svg);
        const label = node("text", { x: width - 8, y: y(chart.total) + 14, "text-anchor": "end" }, svg);
        label.textContent = "total " + bytes(chart.total);
      }
      for (const event of chart.events || []) {
        const px = axis.x(event.t);
        node("line", { class: "event", x1: px, x2: px, y1: top, y2: height - bottom }, svg);
        const d = event.change > 0 ? `M${px - 4} ${top}h8l-4 -7z` : `M${px - 4} ${top - 7}h8l-4 7z`;
        node("title", {}, node("path", { class: "mark", d }, svg)).textContent = clock(event.t) + ": " + event.text;
      }
      const cursor = node("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" }, svg);
      at = (s, own) => {
        tip.style.display = "none";
        cursor.setAttribute("visibility", s === null ? "hidden" : "visible");
        if (s === null) return;
        cursor.setAttribute("x1", axis.x(s));
        cursor.setAttribute("x2", axis.x(s));
        if (own) explain(s, axis.x(s), width);
      };
      listen(svg, axis.time);
    }
    function explain(s, px, width) {
      let i = chart.t.findIndex((each) => each > s) - 1;
      if (i < -1 || (i === -2)) i = chart.t.length - 1;
      if (i < 0) return;
      tip.textContent = "";
      html("b", tip, clock(chart.t[i]) + "  ·  " + bytes(shown().reduce((sum, each) => sum + each.values[i], 0)));
      for (const each of shown().slice().reverse()) {
        if (!each.values[i]) continue;
        const line = html("div", tip);
        html("i", line).style.background = color(each.color);
        html("span", line, each.name);
        html("em", line, bytes(each.values[i]));
      }
      const near = (chart.events || []).filter((event) => Math.abs(event.t - s) < data.end / 60);
      for (const event of near) html("span", html("div", tip), "↕ " + event.text);
      tip.style.display = "block";
      // Beside the cursor where there is room; on a phone, over it rather than off the screen.
      const wide = tip.offsetWidth, beside = px > width / 2 ? px - 12 - wide : px + 12;
      tip.style.left = Math.max(0, Math.min(beside, width - wide)) + "px";
    }
    place.appendChild(legend);
    chart.series.forEach((each, i) => {
      const button = html("button", html("li", legend));
      button.type = "button";
      html("i", button).style.background = color(each.color);
      html("span", button, each.name);
      button.addEventListener("click", () => {
        hidden.has(i) ? hidden.delete(i) : hidden.add(i);
        button.classList.toggle("off", hidden.has(i));
        paint();
      });
    });
    register(place, paint, (s, own) => at && at(s, own));
  }

  // A value holds until the next one: an area of steps, not of slopes.
  function area(times, low, high, x, y) {
    const upper = [], lower = [];
    times.forEach((t, i) => {
      const next = i + 1 < times.length ? times[i + 1] : data.end;
      upper.push(`${x(t).toFixed(1)} ${y(high[i]).toFixed(1)}H${x(next).toFixed(1)}`);
      lower.push(`${x(next).toFixed(1)} ${y(low[i]).toFixed(1)}H${x(t).toFixed(1)}`);
    });
    return upper.length ? "M" + upper.join("L") + "L" + lower.reverse().join("L") + "Z" : "";
  }

  function lanes(place, rows) {
    const tip = html("div", place, undefined, "tip");
    let draw, at;
    const levels = (row) => 1 + Math.max(-1, ...row.spans.map((span) => span.depth));
    function paint() {
      const width = place.clientWidth, narrow = width < 520, left = narrow ? 62 : 190, bar = 14, bottom = 22;
      const tall = (row) => (narrow ? 16 : 0) + bar + 3 + levels(row) * (bar + 2) + 4;
      const height = rows.reduce((sum, row) => sum + tall(row), 6) + bottom;
      if (draw) draw.remove();
      const svg = (draw = node("svg", { height, role: "img", "aria-label": "processes over time" }));
      place.insertBefore(svg, tip);
      const axis = frame(svg, width, height, left, bottom);
      let top = 4;
      for (const row of rows) {
        const label = node("text", { class: "lane", x: narrow ? 0 : 6 + Math.min(row.depth, 4) * 9, y: top + 12 }, svg);
        label.textContent = row.name.length > 26 && !narrow ? row.name.slice(0, 15) + "…" + row.name.slice(-9) : row.name;
        if (narrow) top += 16;
        bars(svg, axis, row.begin, row.end, top, bar, row.color, .9, "", `${row.name}: ${clock(row.begin)} to ${row.end === null ? "the end" : clock(row.end)}`);
        top += bar + 3;
        for (const span of row.spans) {
          const changes = [["held", span.held], ["own GPU", span.device]].filter((each) => each[1] !== null);
          const told = changes.map((each) => ` ${each[0]} ${each[1] > 0 ? "+" : ""}${bytes(each[1])}`).join(",");
          const ends = span.end === null ? "not ended" : (span.end - span.begin).toFixed(2) + " s";
          bars(svg, axis, span.begin, span.end, top + span.depth * (bar + 2), bar, row.color, span.depth % 2 ? .3 : .45, span.name, `${span.name}: ${ends}${told}`);
        }
        top += levels(row) * (bar + 2) + (narrow ? 4 : 4);
      }
      const cursor = node("line", { class: "cursor", y1: 0, y2: height - bottom, visibility: "hidden" }, svg);
      at = (s) => {
        cursor.setAttribute("visibility", s === null ? "hidden" : "visible");
        if (s === null) return;
        cursor.setAttribute("x1", axis.x(s));
        cursor.setAttribute("x2", axis.x(s));
      };
      listen(svg, axis.time);
    }
    function bars(svg, axis, begin, end, top, tall, name, opacity, text, title) {
      const from = axis.x(begin), to = axis.x(end === null ? data.end : end), wide = Math.max(1.5, to - from);
      const box = node("rect", { x: from, y: top, width: wide, height: tall, rx: 2.5, fill: color(name), "fill-opacity": opacity, stroke: "var(--card)", "stroke-width": .8 }, svg);
      node("title", {}, box).textContent = title;
      const room = Math.floor((wide - 8) / 6.2);
      if (text && room > 2) node("text", { class: "in", x: from + 5, y: top + 11 }, svg).textContent = text.length > room ? text.slice(0, room - 1) + "…" : text;
    }
    register(place, paint, (s) => at && at(s));
  }

  function register(place, paint, show) {
    charts.push({ place, show });
    paint();
    let width = place.clientWidth;
    new ResizeObserver(() => {
      if (place.clientWidth !== width) { width = place.clientWidth; paint(); }
    }).observe(place);
  }
  function listen(svg, time) {
    const show = (s) => charts.forEach((each) => each.show(s, each.place.contains(svg)));
    svg.addEventListener("pointermove", (move) => {
      const s = time(move.clientX - svg.getBoundingClientRect().left);
      show(s < 0 || s > data.end ? null : s);
    });
    svg.addEventListener("pointerleave", () => show(null));
  }

  for (const place of document.querySelectorAll("[data-chart]")) {
    const kind = place.dataset.chart;
    if (kind === "host") stack(place, { title: "host memory by process", ...data.host });
    else if (kind === "gpu") stack(place, data.gpus[+place.dataset.number]);
    else if (data.lanes.length) lanes(place, data.lanes);
  }
})();
