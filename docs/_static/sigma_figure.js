// The figure of the page about sigma: two tasks are trained in the page, with the formulas of the
// library. `sigmaFigure.simulate(settings)` trains; the rest draws.
"use strict";

const sigmaFigure = (() => {
  const TASKS = ["a", "b"];
  // What each task says that the one number of the "network" is. They disagree, so weights matter.
  const TRUTH = { a: 1, b: 2 };
  const NETWORK_RATE = 0.01;

  // weight = amplitude * exp(-s), penalty = slope * s, optimum s = log(amplitude * loss / slope)
  const FORMS = {
    nll: { amplitude: 0.5, slope: 0.5 },
    symmetric: { amplitude: 1, slope: 1 },
  };

  const DEFAULTS = {
    noiseA: 0.3, noiseB: 1, unitsB: 1, start: null, rate: 0.01,
    form: "nll", estimator: "learned", momentum: 0.1, steps: 1000,
  };

  class Adam {
    constructor(rate) {
      Object.assign(this, { rate, step: 0, mean: 0, square: 0 });
    }

    /** Returns by how much the parameter changes. */
    change(gradient) {
      this.step += 1;
      this.mean += 0.1 * (gradient - this.mean);
      this.square += 0.001 * (gradient ** 2 - this.square);
      const mean = this.mean / (1 - 0.9 ** this.step);
      const square = this.square / (1 - 0.999 ** this.step);
      return (-this.rate * mean) / (Math.sqrt(square) + 1e-8);
    }
  }

  /** Trains, and returns loss, sigma, weight and total of every step. */
  function simulate(settings) {
    const set = { ...DEFAULTS, ...settings };
    const { amplitude, slope } = FORMS[set.form];
    const noise = { a: set.noiseA, b: set.noiseB };
    const units = { a: 1, b: set.unitsB };
    const optimum = (loss) => Math.log((amplitude * loss) / slope);
    const history = { total: [], number: [] };
    const state = {};
    for (const task of TASKS) {
      const logVar = set.start === null ? null : 2 * Math.log(set.start);
      state[task] = { logVar, running: null, adam: new Adam(set.rate) };
      history[task] = { loss: [], sigma: [], weight: [], bestSigma: [], bestWeight: [] };
    }
    let number = 0;
    const network = new Adam(NETWORK_RATE);

    for (let step = 0; step < set.steps; step++) {
      let total = 0;
      let slopeOfTotal = 0;
      for (const task of TASKS) {
        const one = state[task];
        // The expected squared error: there is noise in the data, none in the curve.
        const scale = units[task] ** 2;
        const loss = scale * ((number - TRUTH[task]) ** 2 + noise[task] ** 2);
        if (set.estimator === "closed_form") {
          one.running = one.running === null ? loss : one.running + set.momentum * (loss - one.running);
          one.logVar = optimum(one.running);
        } else if (one.logVar === null) {
          one.logVar = optimum(loss);
        }
        const isFixed = set.estimator === "fixed";
        const weight = isFixed ? 1 : amplitude * Math.exp(-one.logVar);
        total += weight * loss + (isFixed ? 0 : slope * one.logVar);
        slopeOfTotal += weight * scale * 2 * (number - TRUTH[task]);

        const kept = history[task];
        kept.loss.push(loss);
        kept.sigma.push(isFixed ? NaN : Math.exp(one.logVar / 2));
        kept.weight.push(weight);
        kept.bestSigma.push(Math.exp(optimum(loss) / 2));
        kept.bestWeight.push(slope / loss);
        if (set.estimator === "learned") {
          one.logVar += one.adam.change(slope - weight * loss);
        }
      }
      history.total.push(total);
      history.number.push(number);
      number += network.change(slopeOfTotal);
    }
    return history;
  }

  // ---- drawing -------------------------------------------------------------------------------

  const LESSONS = {
    "From data": {},
    "A bad start": { start: 100, rate: 0.003 },
    "Other units": { unitsB: 1000 },
    "Other units, equal weights": { unitsB: 1000, estimator: "fixed" },
    "A negative total": { noiseA: 0.03, noiseB: 0.1, estimator: "closed_form" },
  };

  const SLIDERS = [
    // name, label, exponents of ten
    ["noiseA", "noise of task a", -2, 1],
    ["noiseB", "noise of task b", -2, 1],
    ["unitsB", "units of task b", -3, 3],
    ["start", "start of sigma", -3, 3],
    ["rate", "learning rate of sigma", -4, -1],
  ];
  const CHOICES = [
    ["form", "form", ["nll", "symmetric"]],
    ["estimator", "estimator", ["learned", "closed_form", "fixed"]],
  ];
  const PANELS = [
    ["loss", null, "loss"],
    ["sigma", "bestSigma", "sigma (dotted: closed form)"],
    ["weight", "bestWeight", "weight (dotted: closed form)"],
  ];
  const WIDTH = 340, HEIGHT = 190, LEFT = 52, RIGHT = 18, TOP = 24, BOTTOM = 22;

  const short = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e4 || size < 1e-3 ? value.toExponential(0) : String(+value.toPrecision(3));
  };

  function element(name, attributes = {}, text = "") {
    const isSvg = ["svg", "path", "text", "line", "title"].includes(name);
    const made = isSvg
      ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  /** Returns a chart; every curve is {values, kind, label}, where kind names its CSS classes. */
  function chart(title, curves, isLog, shown) {
    const position = isLog ? Math.log10 : (value) => value;
    const finite = curves.flatMap(({ values }) => values.map(position).filter(Number.isFinite));
    let low = Math.min(...finite), high = Math.max(...finite);
    const least = isLog ? 0.5 : 0.1;
    if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
    const x = (step, count) => LEFT + ((WIDTH - LEFT - RIGHT) * step) / (count - 1);
    const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (position(value) - low)) / (high - low);
    const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    svg.append(element("title", {}, title), element("text", { x: LEFT, y: 14, class: "name" }, title));
    for (const value of [low, (low + high) / 2, high].map((v) => (isLog ? 10 ** v : v))) {
      svg.append(
        element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
        element("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, short(value)),
      );
    }
    if (!isLog && low < 0 && high > 0) {
      svg.append(element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(0), y2: y(0), class: "zero" }));
    }
    const count = curves[0].values.length;
    svg.append(
      element("text", { x: LEFT, y: HEIGHT - 5 }, "step 0"),
      element("text", { x: WIDTH - RIGHT, y: HEIGHT - 5, "text-anchor": "end" }, String(count)),
    );
    for (const { values, kind, label } of curves) {
      const points = values.slice(0, shown).map((v, i) => [x(i, count), y(v)]);
      const drawn = points.filter(([, py]) => Number.isFinite(py));
      const path = drawn.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join("L");
      if (!path) continue;
      svg.append(element("path", { d: `M${path}`, class: kind }));
      if (label) {
        const [px, py] = drawn[drawn.length - 1];
        svg.append(element("text", { x: px + 4, y: py + 4, class: "name" }, label));
      }
    }
    return svg;
  }

  function draw(panels, history, shown) {
    const charts = PANELS.map(([what, best, title]) => {
      const curves = TASKS.map((task) => ({
        values: history[task][what], kind: `task-${task}`, label: task,
      }));
      if (best) {
        TASKS.forEach((task) => curves.push({ values: history[task][best], kind: `task-${task} best` }));
      }
      return chart(title, curves, true, shown);
    });
    charts.push(chart("total", [{ values: history.total, kind: "total", label: "" }], false, shown));
    panels.replaceChildren(...charts);
  }

  function describe(history) {
    const last = (values) => values[values.length - 1];
    const of = (task) =>
      `task ${task}: sigma ${short(last(history[task].sigma))}, weight ${short(last(history[task].weight))}`;
    return `After training: ${of("a")}; ${of("b")}; total ${short(last(history.total))}. ` +
      `The network's number is ${last(history.number).toFixed(2)}; task a says 1, task b says 2.`;
  }

  /** Fills an element with controls and charts. */
  function show(root) {
    let settings = { ...DEFAULTS };
    let history;
    const inputs = {};
    const lessons = element("div", { class: "lessons" });
    const controls = element("div", { class: "controls" });
    const panels = element("div", { class: "panels" });
    const words = element("p", { class: "words", "aria-live": "polite" });

    const update = () => {
      history = simulate(settings);
      draw(panels, history, settings.steps);
      words.textContent = describe(history);
    };

    for (const [name, label, low, high] of SLIDERS) {
      const value = element("output");
      const input = element("input", { type: "range", min: low, max: high, step: 0.05 });
      const box = element("label");
      box.append(element("span", {}, label), input, value);
      controls.append(box);
      input.addEventListener("input", () => {
        settings[name] = 10 ** Number(input.value);
        value.textContent = short(settings[name]);
        update();
      });
      inputs[name] = (setting) => {
        input.value = Math.log10(setting ?? 1);
        value.textContent = setting === null ? "from data" : short(setting);
      };
    }
    for (const [name, label, options] of CHOICES) {
      const select = element("select");
      options.forEach((option) => select.append(element("option", { value: option }, option)));
      const box = element("label");
      box.append(element("span", {}, label), select);
      controls.append(box);
      select.addEventListener("change", () => {
        settings[name] = select.value;
        update();
      });
      inputs[name] = (setting) => { select.value = setting; };
    }

    const apply = (changes) => {
      settings = { ...DEFAULTS, ...changes };
      for (const [name, write] of Object.entries(inputs)) write(settings[name]);
      update();
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      const mine = history, began = performance.now();
      const frame = (now) => {
        if (history !== mine) return; // a control was moved meanwhile
        const share = Math.min(1, (now - began) / 2500);
        draw(panels, mine, Math.max(2, Math.round(share * settings.steps)));
        if (share < 1) requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    };
    for (const [name, changes] of Object.entries(LESSONS)) {
      const button = element("button", { type: "button" }, name);
      button.addEventListener("click", () => apply(changes));
      lessons.append(button);
    }
    root.append(lessons, controls, panels, words);
    apply({});
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".sigma-figure").forEach(show);
  });

  return { simulate };
})();
