// The models that run in the pages. A chapter's weights come as a script of their own (live/NN.js, written by book/live.py),
// because a page opened from the file system may load scripts but fetch nothing.
//
// Plain JavaScript, no runtime: all these networks are stacks of dense layers of at most a few hundred units, whose forward
// pass is one short loop. The WebAssembly of ONNX Runtime alone is over ten megabytes, several times what all the weights
// weigh, takes longer to start than these networks to answer, and is fetched, which a page on the file system may not do.
"use strict";

window.clteachLive = (() => {
  const models = {};
  const views = {};
  const times = {};

  // ---------------------------------------------------------------------------------------------------------- networks

  // Half-precision numbers, base64, little-endian, as Float32Array.
  function decode(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const halves = new DataView(bytes.buffer);
    const found = new Float32Array(bytes.length / 2);
    for (let i = 0; i < found.length; i++) {
      const h = halves.getUint16(2 * i, true);
      const exponent = (h >> 10) & 31;
      const fraction = h & 1023;
      const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
      found[i] = h >> 15 ? -size : size;
    }
    return found;
  }

  const activations = {
    "": (v) => v,
    relu: (v) => (v > 0 ? v : 0),
    leaky: (v) => (v > 0 ? v : 0.01 * v),
    elu: (v) => (v > 0 ? v : Math.expm1(v)),
  };

  // h = g ⊙ φ(W h + b), layer after layer; gates g, where there are any, one array per hidden layer
  function forward(layers, x, gates) {
    let h = x;
    layers.forEach(({ weight, bias, then }, index) => {
      const inputs = h;
      const n = inputs.length;
      const act = activations[then];
      const gate = gates?.[index];
      const out = new Float64Array(bias.length);
      for (let o = 0; o < out.length; o++) {
        if (gate && gate[o] === 0) continue;
        let sum = bias[o];
        for (let i = 0, w = o * n; i < n; i++, w++) sum += weight[w] * inputs[i];
        out[o] = act(sum) * (gate ? gate[o] : 1);
      }
      h = out;
    });
    return h;
  }

  function softmax(logits) {
    const top = Math.max(...logits);
    const each = Array.from(logits, (v) => Math.exp(v - top));
    const sum = each.reduce((a, b) => a + b, 0);
    return each.map((v) => v / sum);
  }

  const sigmoid = (values) => Array.from(values, (v) => 1 / (1 + Math.exp(-v)));
  const argmax = (values) => values.reduce((best, v, i) => (v > values[best] ? i : best), 0);
  const distance = (a, b) => Math.hypot(...a.map((v, i) => v - b[i]));

  // ---------------------------------------------------------------------------------------------------------- elements

  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  let ids = 0;
  // A labelled slider; `told` writes its value as the words that stand beside it and that a screen reader says.
  function slider(label, [min, max, step], value, told, changed) {
    const id = `live-slider-${++ids}`;
    const output = h("output", { for: id });
    const input = h("input", { type: "range", id, min, max, step, value });
    const tell = () => {
      output.textContent = told(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      tell();
      changed(Number(input.value));
    });
    tell();
    const element = h("div", { class: "live-slider" }, h("label", { for: id }, label), input, output);
    return {
      element,
      get value() {
        return Number(input.value);
      },
      set(v) {
        input.value = v;
        tell();
      },
    };
  }

  // Buttons of which one is pressed.
  function choice(label, names, chosen, changed) {
    const press = (index) => buttons.forEach((each, i) => each.setAttribute("aria-pressed", i === index));
    const buttons = names.map((name, index) =>
      button(name, `${label} ${name}`, () => {
        press(index);
        changed(index);
      }),
    );
    press(chosen);
    const element = h("div", { class: "live-choice", role: "group", "aria-label": label }, h("small", {}, label), ...buttons);
    return { element, set: press };
  }

  // A button that is on or off.
  function toggle(label, on, changed) {
    const element = button(label, label, () => {
      each.set(!each.on);
      changed();
    });
    const each = {
      element,
      on,
      set(value) {
        each.on = value;
        element.setAttribute("aria-pressed", value);
      },
    };
    each.set(on);
    return each;
  }

  // Random numbers from a seed, so that everyone sees the same ones: N(0, 1), or uniform ones (mulberry32).
  function normal(seed) {
    let state = seed;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const draw = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return Object.assign(draw, { uniform });
  }

  function button(text, label, clicked) {
    return h("button", { type: "button", "aria-label": label, onclick: clicked }, text);
  }

  // A picture of n x n pixels in [0, 1], white on black like the data, not smoothed.
  function picture(label, size) {
    const canvas = h("canvas", { width: 8, height: 8, class: "live-pixels", role: "img", "aria-label": label });
    canvas.style.width = `${size}px`;
    return {
      canvas,
      show(values, text) {
        const side = Math.round(Math.sqrt(values.length));
        canvas.width = canvas.height = side;
        const context = canvas.getContext("2d");
        const image = context.createImageData(side, side);
        values.forEach((v, i) => image.data.set([255 * v, 255 * v, 255 * v, 255], 4 * i));
        context.putImageData(image, 0, 0);
        if (text) canvas.setAttribute("aria-label", text);
      },
    };
  }

  // Bars of the probabilities of ten classes.
  function bars(color) {
    const each = [...Array(10).keys()].map((digit) => {
      const bar = h("i", {});
      if (color) bar.style.background = color;
      return { bar, column: h("div", {}, h("span", {}, bar), h("b", {}, String(digit))) };
    });
    const element = h("div", { class: "live-bars", role: "img" }, ...each.map(({ column }) => column));
    return {
      element,
      show(p, name, known = 10) {
        const best = argmax(p);
        each.forEach(({ bar, column }, digit) => {
          bar.style.height = `${100 * p[digit]}%`;
          column.className = digit >= known ? "unknown" : digit === best ? "best" : "";
        });
        const told = p.map((v, digit) => [v, digit]).filter(([v]) => v >= 0.05).sort((a, b) => b[0] - a[0]);
        const words = told.map(([v, digit]) => `${digit} with ${percent(v)}`).join(", ");
        element.setAttribute("aria-label", `${name}: ${words}`);
      },
    };
  }

  const percent = (share) => `${Math.round(100 * share)} %`;
  const letters = (text) => Array.from(text, (c) => Math.round((c.charCodeAt(0) - 97) * (255 / 16)) / 255);

  // A canvas drawn in units of CSS pixels, sharp on every screen.
  function sharp(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  }

  // --------------------------------------------------------------------------------------------------- a field to draw on

  // The digits were made by people on paper, cut out, and scaled to 32 x 32 black or white dots; the dots in each square of
  // 4 x 4 were counted (Alpaydin & Kaynak 1998). The same is done with what is drawn here.
  const DOTS = 32;
  const PEN = 1.9; // half the width of the pen in dots

  function rasterise(strokes) {
    const points = strokes.flat();
    const [left, top] = [0, 1].map((axis) => Math.min(...points.map((p) => p[axis])));
    const [right, bottom] = [0, 1].map((axis) => Math.max(...points.map((p) => p[axis])));
    // a dot is not blown up to a blot that fills the field
    const scale = (DOTS - 2 * PEN) / Math.max(right - left, bottom - top, 0.15);
    const place = ([x, y]) => [
      DOTS / 2 + scale * (x - (left + right) / 2),
      DOTS / 2 + scale * (y - (top + bottom) / 2),
    ];
    const dots = new Uint8Array(DOTS * DOTS);
    for (const stroke of strokes) {
      const placed = stroke.map(place);
      placed.forEach((end, index) => {
        const start = placed[Math.max(index - 1, 0)];
        const [dx, dy] = [end[0] - start[0], end[1] - start[1]];
        const length = dx * dx + dy * dy;
        const span = (a, b) => [Math.max(0, Math.floor(Math.min(a, b) - PEN)), Math.min(DOTS, Math.ceil(Math.max(a, b) + PEN))];
        const [x0, x1] = span(start[0], end[0]);
        const [y0, y1] = span(start[1], end[1]);
        for (let y = y0; y < y1; y++) {
          for (let x = x0; x < x1; x++) {
            const along = length ? ((x + 0.5 - start[0]) * dx + (y + 0.5 - start[1]) * dy) / length : 0;
            const near = Math.min(1, Math.max(0, along));
            const [ex, ey] = [x + 0.5 - start[0] - near * dx, y + 0.5 - start[1] - near * dy];
            if (ex * ex + ey * ey <= PEN * PEN) dots[y * DOTS + x] = 1;
          }
        }
      });
    }
    const counts = new Array(64).fill(0);
    dots.forEach((dot, i) => {
      counts[8 * (i >> 7) + ((i & 31) >> 2)] += dot;
    });
    return counts.map((count) => Math.round((count * 255) / 16) / 255);
  }

  // The field, its buttons, and what the network sees; `changed` gets 64 pixels, or null when nothing is drawn.
  function pad(examples, changed) {
    const size = 216;
    const canvas = h("canvas", {
      class: "live-pad",
      tabindex: 0,
      role: "application",
      "aria-label":
        "Field to draw a digit on. With the keyboard: the arrow keys move the pen, the space bar lowers and lifts it, Delete clears the field.",
    });
    canvas.style.width = canvas.style.height = `${size}px`;
    const seen = picture("What the network sees: nothing yet", 72);
    let strokes = [];
    let given = null; // an example's pixels, where one was chosen
    let pen = { x: 0.5, y: 0.25, down: false, shown: false };
    let pointer = null;
    const next = new Array(10).fill(0);

    function draw() {
      const context = sharp(canvas, size, size);
      context.fillStyle = "#000";
      context.fillRect(0, 0, size, size);
      if (given) {
        const side = size / 8;
        given.forEach((v, i) => {
          context.fillStyle = `rgb(${[v, v, v].map((each) => Math.round(255 * each))})`;
          context.fillRect((i % 8) * side, Math.floor(i / 8) * side, side + 1, side + 1);
        });
      }
      context.strokeStyle = context.fillStyle = "#fff";
      context.lineWidth = size / 11;
      context.lineCap = context.lineJoin = "round";
      for (const stroke of strokes) {
        context.beginPath();
        stroke.forEach(([x, y]) => context.lineTo(x * size, y * size));
        if (stroke.length === 1) context.lineTo(stroke[0][0] * size + 0.1, stroke[0][1] * size);
        context.stroke();
      }
      if (!strokes.length && !given) {
        context.fillStyle = "#bbb";
        context.font = "16px sans-serif";
        context.textAlign = "center";
        context.fillText("draw a digit here", size / 2, size / 2);
      }
      if (pen.shown) {
        context.beginPath();
        context.arc(pen.x * size, pen.y * size, 8, 0, 2 * Math.PI);
        context.strokeStyle = "#56b4e9";
        context.lineWidth = 3;
        context.stroke();
        if (pen.down) {
          context.fillStyle = "#56b4e9";
          context.fill();
        }
      }
    }

    function update() {
      const started = performance.now();
      const x = given ?? (strokes.length ? rasterise(strokes) : null);
      draw();
      seen.show(x ?? new Array(64).fill(0), x ? "What the network sees: 8 times 8 pixels" : "Nothing is drawn yet");
      changed(x);
      times.change = performance.now() - started;
    }

    function clear() {
      strokes = [];
      given = null;
      pen.down = false;
      update();
    }

    function begin(point) {
      given = null;
      strokes.push([point]);
    }

    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    canvas.addEventListener("pointerdown", (event) => {
      pointer = event.pointerId;
      canvas.setPointerCapture(pointer);
      pen.shown = false;
      begin(at(event));
      update();
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== pointer) return;
      const point = at(event);
      const stroke = strokes[strokes.length - 1];
      if (distance(point, stroke[stroke.length - 1]) < 0.015) return;
      stroke.push(point);
      update();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        pointer = null;
      });
    }
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const move = moves[event.key];
      pen.shown = true;
      if (move) {
        pen.x = Math.min(0.95, Math.max(0.05, pen.x + move[0] / 16));
        pen.y = Math.min(0.95, Math.max(0.05, pen.y + move[1] / 16));
        if (pen.down) strokes[strokes.length - 1].push([pen.x, pen.y]);
      } else if (event.key === " ") {
        pen.down = !pen.down;
        if (pen.down) begin([pen.x, pen.y]);
      } else if (event.key === "Delete" || event.key === "Backspace") {
        clear();
      } else {
        if (event.key === "Tab") pen.shown = false;
        return;
      }
      event.preventDefault();
      update();
    });
    canvas.addEventListener("blur", () => {
      pen.shown = pen.down = false;
      draw();
    });

    function example(digit) {
      const rows = examples.classes.flatMap((c, row) => (c === digit ? [row] : []));
      put(letters(examples.images[rows[next[digit]++ % rows.length]]));
    }

    const samples = [...Array(10).keys()].map((digit) =>
      button(String(digit), `Take a test image of a ${digit}`, () => example(digit)),
    );
    function put(x) {
      strokes = [];
      given = x;
      update();
    }

    const element = h(
      "div",
      { class: "live-draw" },
      canvas,
      h(
        "div",
        { class: "live-side" },
        h("div", { class: "live-seen" }, seen.canvas, h("small", {}, "what the network sees")),
        button("clear", "Clear the field", clear),
      ),
      h(
        "div",
        { class: "live-examples", role: "group", "aria-label": "Or take a test image" },
        h("small", {}, "or a test image of a"),
        ...samples,
      ),
    );
    return { element, put, example };
  }

  // ------------------------------------------------------------------------------------- 00: what three methods call it

  models["00"] = ({ networks, facts }) => {
    const classify = (x, name, t) => {
      const known = 2 * t + 2; // after task t + 1 two more digits are known
      const p = softmax(forward(networks[`${name} ${t + 1}`], x).slice(0, known));
      return [...p, ...new Array(10 - known).fill(0)];
    };
    return {
      classify,
      answer: (x) => facts.methods.flatMap(({ name }) => [0, 1, 2, 3, 4].flatMap((t) => classify(x, name, t))),
    };
  };

  views["00"] = (place, { facts, model }) => {
    let x = null;
    const time = slider(
      "time",
      [1, 5, 1],
      1,
      (t) => `after task ${t} of 5: ${t === 1 ? "0 and 1" : `0 to ${2 * t - 1}`} are learned`,
      () => show(),
    );
    const said = h("p", { role: "status", class: "live-said" });
    const methods = facts.methods.map((each) => {
      // the colour of joint training is that of ink, which depends on the theme
      const chart = bars(each.name === "joint" ? "var(--pst-color-text-base)" : each.color);
      const cells = [0, 1, 2, 3, 4].map(() => h("td", {}, "–"));
      return { ...each, chart, cells };
    });
    const charts = methods.map(({ label, chart }) => h("div", { class: "live-chart" }, h("small", {}, label), chart.element));
    const table = h(
      "table",
      { class: "live-table" },
      h("caption", {}, "what each calls it, after each task"),
      h(
        "thead",
        {},
        h("tr", {}, h("th", { scope: "col" }, "task"), ...[1, 2, 3, 4, 5].map((t) => h("th", { scope: "col" }, String(t)))),
      ),
      h("tbody", {}, ...methods.map(({ label, cells }) => h("tr", {}, h("th", { scope: "row" }, label), ...cells))),
    );

    function show() {
      const t = time.value - 1;
      const now = methods.map(({ name, label, chart, cells }, row) => {
        cells.forEach((cell, s) => {
          cell.textContent = x ? argmax(model.classify(x, name, s)) : "–";
          cell.className = s === t ? "now" : "";
          cell.title = `${label}, after task ${s + 1}: right on ${percent(facts.right[row][s])} of all test images`;
        });
        const p = x ? model.classify(x, name, t) : new Array(10).fill(0);
        chart.show(p, x ? label : `${label}: nothing is drawn`, 2 * t + 2);
        return x ? `${label} calls it ${argmax(p)} (${percent(Math.max(...p))})` : "";
      });
      said.textContent = x ? `After task ${t + 1}: ${now.join(", ")}.` : "Draw a digit, or take a test image.";
    }

    const field = pad(facts.examples, (drawn) => {
      x = drawn;
      show();
    });
    place.append(
      h("div", { class: "live-columns" }, field.element, h("div", { class: "live-main" }, time.element, ...charts)),
      table,
      said,
    );
    field.example(0);
  };

  // -------------------------------------------------------------------------------------------- 02: the latent plane

  models["02"] = ({ networks }) => ({ answer: (z) => sigmoid(forward(networks["vae decoder"], z)) });

  views["02"] = (place, { facts, model }) => {
    const size = 320;
    const limit = 3;
    const canvas = h("canvas", { class: "live-plane", role: "img" });
    const drawn = picture("The decoder's picture of this point", 150);
    const nearest = picture("The nearest test image", 72);
    const near = h("small", {});
    const said = h("p", { role: "status", class: "live-said" });
    const at = [0, 1].map((axis) =>
      slider(`z${"₁₂"[axis]}`, [-limit, limit, 0.05], 0, (v) => v.toFixed(2), () => show()),
    );
    canvas.setAttribute(
      "aria-label",
      `The latent plane with ${facts.points.length} test images, each written as its digit. The sliders below move the point.`,
    );

    const toScreen = ([x, y]) => [(size * (x + limit)) / (2 * limit), (size * (limit - y)) / (2 * limit)];

    function draw(z) {
      const context = sharp(canvas, size, size);
      context.fillStyle = "#16181d"; // dark in both themes: the ten colours are told apart best on it
      context.fillRect(0, 0, size, size);
      context.strokeStyle = "#444";
      context.beginPath();
      context.moveTo(size / 2, 0);
      context.lineTo(size / 2, size);
      context.moveTo(0, size / 2);
      context.lineTo(size, size / 2);
      context.stroke();
      context.font = "bold 11px sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      facts.points.forEach((point, i) => {
        context.fillStyle = facts.colors[facts.classes[i]];
        context.fillText(facts.classes[i], ...toScreen(point));
      });
      const [x, y] = toScreen(z);
      context.beginPath();
      context.arc(x, y, 9, 0, 2 * Math.PI);
      context.lineWidth = 3;
      context.strokeStyle = "#fff";
      context.stroke();
    }

    function show() {
      const started = performance.now();
      const z = at.map(({ value }) => value);
      const apart = facts.points.map((point) => distance(point, z));
      const i = apart.reduce((best, v, index) => (v < apart[best] ? index : best), 0);
      const digit = facts.classes[i];
      drawn.show(model.answer(z), `The decoder's picture of the point ${z.map((v) => v.toFixed(2)).join(", ")}`);
      nearest.show(letters(facts.images[i]), `The nearest test image, ${digit === 8 ? "an" : "a"} ${digit}`);
      near.textContent = `nearest test image: ${digit === 8 ? "an" : "a"} ${digit}`;
      const ten = apart
        .map((v, index) => [v, facts.classes[index]])
        .sort((a, b) => a[0] - b[0])
        .slice(0, 10);
      const counts = new Map();
      ten.forEach(([, c]) => counts.set(c, (counts.get(c) ?? 0) + 1));
      const words = [...counts].sort((a, b) => b[1] - a[1]).map(([c, n]) => `${n} × ${c}`);
      said.textContent = `At z = (${z.map((v) => v.toFixed(2)).join(", ")}) the ten nearest test images are ${words.join(", ")}.`;
      draw(z);
      times.change = performance.now() - started;
    }

    let held = false;
    const move = (event) => {
      const box = canvas.getBoundingClientRect();
      at[0].set(((event.clientX - box.left) / box.width) * 2 * limit - limit);
      at[1].set(limit - ((event.clientY - box.top) / box.height) * 2 * limit);
      show();
    };
    canvas.addEventListener("pointerdown", (event) => {
      held = true;
      canvas.setPointerCapture(event.pointerId);
      move(event);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => held && move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (held = false));

    place.append(
      h(
        "div",
        { class: "live-columns" },
        canvas,
        h(
          "div",
          { class: "live-main" },
          h("div", { class: "live-pair" }, h("div", {}, drawn.canvas, h("small", {}, "the decoder's picture")), h("div", {}, nearest.canvas, near)),
          ...at.map(({ element }) => element),
        ),
      ),
      said,
    );
    show();
  };

  // ----------------------------------------------------------------------------------------- 03: the bands of tasks

  models["03"] = ({ networks, tensors }) => {
    const codes = tensors["learner decoder.codes"];
    function decode(local, task, bits, z) {
      const part = (name) => networks[`learner ${local ? "local_decoder" : "decoder"}.${name}`];
      const code = codes.row(task);
      const merged = [...z, ...forward(part("task_net"), code), ...forward(part("bit_net"), bits)];
      return sigmoid(forward(part("decoder"), forward(part("merge"), merged)));
    }
    return { decode, answer: (x) => decode(x[0] > 0, x[1], x.slice(2, 6), x.slice(6)) };
  };

  views["03"] = (place, { facts, model }) => {
    let task = 0;
    const said = h("p", { role: "status", class: "live-said" });
    const pictures = ["before alignment", "aligned"].map((name) => ({ name, ...picture(`${name}: the picture`, 150) }));
    const tasks = choice("task", [...Array(5).keys()].map((t) => `${t + 1}: ${2 * t}, ${2 * t + 1}`), 0, (t) => {
      task = t;
      show();
    });
    const bits = [0, 1, 2, 3].map((k) => toggle(`bit ${k + 1}`, k % 2 === 0, () => show()));
    const z = [...Array(8).keys()].map((k) => slider(`z${"₁₂₃₄₅₆₇₈"[k]}`, [-3, 3, 0.1], 0, (v) => v.toFixed(1), () => show()));
    const draws = normal(0);
    const another = button("draw bits and z", "draw bits and z from the prior of this task", () => {
      bits.forEach((bit, k) => bit.set(draws.uniform() < facts.frequency[task][k]));
      z.forEach((each) => each.set(Math.round(10 * draws()) / 10));
      show();
    });

    function show() {
      const started = performance.now();
      const given = [bits.map((bit) => (bit.on ? 1 : -1)), z.map(({ value }) => value)];
      pictures.forEach(({ show: paint, name }, aligned) =>
        paint(model.decode(!aligned, task, ...given), `${name}: picture of task ${task + 1}`),
      );
      const often = facts.frequency[task].map((share, k) => `${k ? "bit" : "Bit"} ${k + 1} ${k ? "in" : "is on in"} ${percent(share)}${k ? "" : " of its images"}`);
      said.textContent =
        `Task ${task + 1}, the digits ${2 * task} and ${2 * task + 1}. ${often.join(", ")}. ` +
        `Left: the local decoder, which has just learned task 5 alone. Right: the decoder after alignment.`;
      times.change = performance.now() - started;
    }

    const shown = pictures.map(({ canvas, name }) => h("div", {}, canvas, h("small", {}, name)));
    place.append(
      tasks.element,
      h(
        "div",
        { class: "live-columns" },
        h("div", {}, h("div", { class: "live-pair" }, ...shown), h("div", { class: "live-choice" }, ...bits.map(({ element }) => element), another)),
        h("div", { class: "live-main" }, ...z.map(({ element }) => element)),
      ),
      said,
    );
    another.click();
  };

  // -------------------------------------------------------------------------------------- 05: brain-inspired replay

  models["05"] = ({ networks, tensors, facts }) => {
    const keys = facts.shares.map((share) => (share === 0 ? "0.0" : String(share)));
    const gates = (k, digit) => [0, 1].map((layer) => tensors[`${keys[k]} vae.gates_${layer}`]?.row(digit));
    function dream(k, digit, context, eps) {
      const mean = tensors[`${keys[k]} vae.prior_mean`].row(digit);
      const logvar = tensors[`${keys[k]} vae.prior_logvar`].row(digit);
      // z = μ_c + σ_c ε
      const z = Float64Array.from(eps, (e, i) => mean[i] + Math.exp(0.5 * logvar[i]) * e);
      return sigmoid(forward(networks[`${keys[k]} vae.decoder`], z, gates(k, context)));
    }
    return { dream, gates, answer: (x) => dream(x[0], x[1], x[2], x.slice(3)) };
  };

  views["05"] = (place, { facts, model }) => {
    const names = [...Array(10).keys()].map(String);
    const said = h("p", { role: "status", class: "live-said" });
    const drawn = picture("The dream", 150);
    const strip = h("canvas", { class: "live-strip", role: "img" });
    strip.style.width = "240px";
    const noise = normal(0);
    const draw = () => Float64Array.from({ length: 100 }, () => noise());
    let eps = draw();
    let [digit, context] = [0, 0];
    const classes = choice("class of z", names, 0, (c) => {
      digit = context = c;
      contexts.set(c);
      show();
    });
    const contexts = choice("class of the gates", names, 0, (c) => {
      context = c;
      show();
    });
    const last = facts.shares.length - 1;
    const share = slider("share X gated", [0, last, 1], 1, (k) => percent(facts.shares[k]), () => show());
    const width = slider("z, times the spread", [0, 2, 0.1], 1, (v) => (v ? v.toFixed(1) : "0: the class's mean"), () => show());
    const another = button("another z", "Draw another z", () => {
      eps = draw();
      show();
    });

    function show() {
      const started = performance.now();
      const k = share.value;
      drawn.show(
        model.dream(k, digit, context, eps.map((e) => e * width.value)),
        `A dream with z of class ${digit} and the gates of class ${context}`,
      );
      const open = model.gates(k, context).map((row) => row ?? new Float32Array(100).fill(1));
      const surface = sharp(strip, 240, 56);
      open.forEach((row, layer) =>
        row.forEach((gate, unit) => {
          surface.fillStyle = gate ? "#a6cee3" : "#333";
          surface.fillRect(2.4 * unit, 28 * layer, 2, 26);
        }),
      );
      const on = open.map((row) => row.reduce((a, b) => a + b, 0));
      strip.setAttribute("aria-label", `Gates of class ${context}: of 100 units ${on[0]} are on in the first layer, ${on[1]} in the second`);
      said.textContent =
        `A z of class ${digit}, decoded with the gates of class ${context}: ${on[0]} and ${on[1]} of 100 units are on.` +
        (digit === context ? "" : " Class and gates contradict each other.");
      times.change = performance.now() - started;
    }

    place.append(
      h(
        "div",
        { class: "live-columns" },
        h("div", {}, drawn.canvas, h("small", {}, "the dream"), another),
        h("div", { class: "live-main" }, classes.element, contexts.element, share.element, width.element, h("small", {}, "units of the decoder's two hidden layers, on (light) and off (dark)"), strip),
      ),
      said,
    );
    show();
  };

  // ------------------------------------------------------------------------------------ 06: a walk between embeddings

  models["06"] = ({ networks, tensors }) => {
    const body = networks["learner hypernet.body.layers"];
    const chunks = tensors["learner hypernet.body.chunk_embeddings"];
    const last = tensors["learner hypernet.last"];
    const sizes = [64, 100, 100, 10];
    const count = sizes.slice(1).reduce((sum, n, i) => sum + n * (sizes[i] + 1), 0);
    const embeddings = [0, 1, 2, 3, 4].map((t) => Array.from(tensors[`learner hypernet.embeddings.${t}`].all));

    // w_i = h̃(e, c_i) M, the last chunk truncated
    function make(e) {
      const weights = new Float32Array(count);
      const [features, size] = last.shape;
      for (let chunk = 0; chunk < chunks.shape[0]; chunk++) {
        const hidden = [...forward(body, [...e, ...chunks.row(chunk)]), 1];
        for (let w = 0; w < size && chunk * size + w < count; w++) {
          let sum = 0;
          for (let f = 0; f < features; f++) sum += hidden[f] * last.all[f * size + w];
          weights[chunk * size + w] = sum;
        }
      }
      let used = 0;
      const take = (n) => weights.subarray(used, (used += n));
      return sizes.slice(1).map((n, i) => ({ weight: take(n * sizes[i]), bias: take(n), then: i < 2 ? "relu" : "" }));
    }
    return { make, embeddings, answer: (x) => forward(make(x.slice(0, 8)), x.slice(8)) };
  };

  views["06"] = (place, { facts, model }) => {
    const images = facts.examples.images.map(letters);
    const { classes } = facts.examples;
    const side = 28;
    const canvas = h("canvas", { class: "live-hundred", role: "img" });
    canvas.style.width = `${10 * side}px`;
    const said = h("p", { role: "status", class: "live-said" });
    let [from, to] = [0, 4];
    const names = [1, 2, 3, 4, 5].map(String);
    const start = choice("from the embedding of task", names, from, (t) => {
      from = t;
      show();
    });
    const end = choice("to that of task", names, to, (t) => {
      to = t;
      show();
    });
    const where = slider("place on the line", [-0.5, 1.5, 0.02], 0, (v) => v.toFixed(2), () => show());

    function show() {
      const started = performance.now();
      const s = where.value;
      const e = model.embeddings[from].map((v, i) => v + s * (model.embeddings[to][i] - v));
      const layers = model.make(e);
      const context = sharp(canvas, 10 * side, 10 * side);
      const right = [0, 0, 0, 0, 0];
      images.forEach((x, i) => {
        const digit = classes[i];
        const task = digit >> 1;
        const logits = forward(layers, x);
        // as the task is known, only its two digits compete
        const answer = logits[2 * task] >= logits[2 * task + 1] ? 2 * task : 2 * task + 1;
        const [left, top] = [side * (i % 10), side * Math.floor(i / 10)];
        if (answer === digit) right[task]++;
        context.fillStyle = answer === digit ? "#56b4e9" : "#d55e00";
        context.fillRect(left, top, side - 1, side - 1);
        x.forEach((v, p) => {
          context.fillStyle = `rgb(${[v, v, v].map((each) => Math.round(255 * each))})`;
          context.fillRect(left + 2 + (p % 8) * 2.9, top + 2 + (p >> 3) * 2.9, 3, 3);
        });
        if (answer !== digit) {
          context.strokeStyle = "#d55e00";
          context.lineWidth = 3;
          context.beginPath();
          context.moveTo(left, top);
          context.lineTo(left + side - 1, top + side - 1);
          context.stroke();
        }
      });
      const told = right.map((n, t) => `task ${t + 1}: ${n}`);
      canvas.setAttribute("aria-label", `A hundred test images, ten of each digit. Right, of twenty each: ${told.join(", ")}`);
      said.textContent = `The network of this embedding is right on ${right.reduce((a, b) => a + b)} of 100 images; of twenty each, ${told.join(", ")}. Guessing gets half.`;
      times.change = performance.now() - started;
    }

    place.append(
      h(
        "div",
        { class: "live-columns" },
        h("div", {}, canvas, h("small", {}, "framed: right; framed and struck out: wrong")),
        h("div", { class: "live-main" }, start.element, end.element, where.element),
      ),
      said,
    );
    show();
  };

  // ------------------------------------------------------------------------------------------ 07: energy of a drawing

  models["07"] = ({ networks }) => {
    const again = (x) => forward(networks["gan critic.decoder"], forward(networks["gan critic.encoder"], x));
    // D(x) = ‖Dec(Enc(x)) - x‖
    const energy = (x, y) => Math.hypot(...x.map((v, i) => v - y[i]));
    return {
      again,
      energy,
      answer: (x) => {
        const y = again(x);
        return [energy(x, y), ...y];
      },
    };
  };

  views["07"] = (place, { facts, model }) => {
    const reconstruction = picture("The reconstruction", 110);
    const input = picture("What is judged", 110);
    const said = h("p", { role: "status", class: "live-said" });
    const most = 1.25 * Math.max(...Object.values(facts.medians));
    const mark = h("i", { class: "live-mark" });
    const band = h("span", { class: "live-band" });
    band.style.left = `${(100 * facts.levels[5]) / most}%`;
    band.style.width = `${(100 * (facts.levels[95] - facts.levels[5])) / most}%`;
    const ticks = Object.entries(facts.medians).map(([name, value]) => {
      const tick = h("b", {}, name);
      tick.style.left = `${(100 * value) / most}%`;
      return tick;
    });
    const meter = h("div", { class: "live-meter", role: "img" }, band, mark, ...ticks);
    const noise = normal(0);

    const field = pad(facts.examples, show);
    function show(x) {
      mark.hidden = !x;
      if (!x) {
        said.textContent = "Draw something, or take a test image.";
        meter.setAttribute("aria-label", "Nothing is drawn");
        for (const each of [input, reconstruction]) each.show(new Array(64).fill(0), "nothing yet");
        return;
      }
      const y = model.again(x);
      const energy = model.energy(x, y);
      mark.style.left = `${Math.min(100, (100 * energy) / most)}%`;
      input.show(x);
      reconstruction.show(Array.from(y, (v) => Math.min(1, Math.max(0, v))));
      const above = facts.levels.filter((level) => level <= energy).length - 1;
      const place = above < 0 ? "lower than that of every test image" : `at least that of ${Math.min(above, 100)} % of the test images`;
      said.textContent = `Its energy is ${energy.toFixed(2)}, ${place}. The median of test images is ${facts.medians["test images"]}, of noise ${facts.medians.noise}.`;
      meter.setAttribute("aria-label", `Energy ${energy.toFixed(2)} on a scale from 0 to ${most.toFixed(1)}`);
    }

    const random = button("noise", "Judge noise: random pixels", () => field.put(Array.from({ length: 64 }, () => noise.uniform())));
    place.append(
      h(
        "div",
        { class: "live-columns" },
        field.element,
        h(
          "div",
          { class: "live-main" },
          h("div", { class: "live-pair" }, h("div", {}, input.canvas, h("small", {}, "what is judged")), h("div", {}, reconstruction.canvas, h("small", {}, "its reconstruction"))),
          h("small", {}, "energy; the band holds nine in ten test images, the names stand at medians"),
          meter,
          random,
        ),
      ),
      said,
    );
    field.example(3);
  };

  // ------------------------------------------------------------------------------------------------------------- start

  // Called by live/NN.js. Both scripts are deferred, so the page is there.
  function add(chapter, { networks, tensors: shapes, facts }, weights) {
    const started = performance.now();
    const numbers = decode(weights);
    let used = 0;
    const take = (n) => numbers.subarray(used, (used += n));
    for (const layers of Object.values(networks)) {
      for (const layer of layers) {
        layer.weight = take(layer.shape[0] * layer.shape[1]);
        layer.bias = take(layer.shape[0]);
      }
    }
    const tensors = {};
    for (const [name, shape] of Object.entries(shapes)) {
      const [rows, columns] = shape;
      const all = take(rows * (columns ?? 1));
      tensors[name] = { shape, all, row: (r) => all.subarray(r * columns, (r + 1) * columns) };
    }
    const model = models[chapter]({ networks, tensors, facts });
    answers[chapter] = model.answer;
    const block = document.querySelector(`[data-live="${chapter}"]`);
    if (!block) return;
    const place = h("div", { class: "live-ui" });
    views[chapter](place, { facts, model });
    block.append(place);
    block.classList.add("live-runs");
    times.ready = performance.now();
    times.start = times.ready - started;
  }

  const answers = {};
  return { add, times, answer: (chapter, x) => Array.from(answers[chapter](x)), rasterise };
})();
