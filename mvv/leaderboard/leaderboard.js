// Sorting and filtering of tables, the clock that plays clips in step, and the scatter plot.
// Text of runs is only ever set as text (textContent, attributes), never as HTML.
"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // ---- Tables: a click on a head sorts each group of rows by itself, so that rows that are not ranked stay apart. ----
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? null : cell.dataset.text === "1" ? cell.dataset.value : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  const sortBy = (table, column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    for (const body of table.tBodies) {
      const rows = all("tr:not(.group)", body).map((row) => [valueOf(row, column), row]);
      rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * compare(a, b)));
      body.append(...rows.map(([, row]) => row));  // rows without a value come last either way
    }
    all("thead th", table).forEach((head, place) => {
      if (place === column) head.setAttribute("aria-sort", direction); else head.removeAttribute("aria-sort");
    });
  };
  for (const table of all("table.board")) {
    all("thead th", table).forEach((head, column) => {
      head.querySelector(".sort")?.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort"), first = head.dataset.first;
        const other = first === "ascending" ? "descending" : "ascending";
        sortBy(table, column, now === first ? other : first);
      });
    });
  }

  // ---- Filter: by name, by kind, and whether controls are shown. ----
  const bar = document.getElementById("filters");
  if (bar) {
    const words = bar.querySelector("[type=search]"), kind = bar.querySelector("select"), controls = document.getElementById("controls");
    const shown = bar.querySelector("output");
    const fits = (row, wanted) => {
      const control = row.dataset.kind === "control";  // they go with the measured rows
      if (control && !controls.checked) return false;
      if (kind.value === "ranked" && row.dataset.ranked !== "1" && !control) return false;
      if (kind.value === "measured" && row.dataset.kind === "reported") return false;
      if (kind.value === "reported" && row.dataset.kind !== "reported") return false;
      return wanted.every((word) => row.dataset.name.includes(word));
    };
    const apply = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const counts = { measured: 0, reported: 0 };
      for (const table of all("table.board")) {
        for (const body of table.tBodies) {
          const rows = all("tr:not(.group)", body);
          rows.forEach((row) => { row.hidden = !fits(row, wanted); });
          const left = rows.filter((row) => !row.hidden);
          body.hidden = !left.length;
          for (const row of left) if (row.dataset.kind in counts) counts[row.dataset.kind]++;
        }
      }
      // Rows that are looked for do not stay folded away.
      if (wanted.length || kind.value === "reported") for (const more of all("details[data-holds]")) more.open = true;
      // A table without a row goes with all that belongs to it.
      for (const whole of all("[data-holds]")) whole.hidden = all("table.board tbody", whole).every((body) => body.hidden);
      shown.textContent = `${counts.measured} measured, ${counts.reported} reported`;
      document.getElementById("nothing").hidden = counts.measured + counts.reported > 0;
    };
    bar.addEventListener("input", apply);
    apply();  // a browser that came back to this page kept what was typed
  }

  // ---- Clips: one clock for all strips of a player; each strip stands at floor(time * its fps), modulo its frames. ----
  class Player {
    constructor(root) {
      this.root = root;
      this.objects = JSON.parse(root.dataset.clips);
      this.stages = all(".stage", root);
      this.toggle = root.querySelector(".play");
      this.scrub = root.querySelector("[type=range]");
      this.told = root.querySelector(".frame");
      this.view = root.querySelector(".view");
      this.object = root.querySelector(".object");
      this.speed = root.querySelector(".speed");
      this.time = 0;
      this.last = null;
      this.visible = true;
      this.toggle.addEventListener("click", () => this.setPlaying(!this.playing));
      this.scrub.addEventListener("input", () => {
        this.setPlaying(false);
        this.time = (Number(this.scrub.value) + 0.5) / this.longest.fps;
        this.draw();
      });
      this.view.addEventListener("change", () => this.show());
      this.object?.addEventListener("change", () => this.choose());
      new IntersectionObserver(([seen]) => { this.visible = seen.isIntersecting; }).observe(root);
      this.choose();
      this.setPlaying(!matchMedia("(prefers-reduced-motion: reduce)").matches);
      requestAnimationFrame((now) => this.tick(now));
    }

    get chosen() { return this.objects[Number(this.object?.value ?? 0)]; }

    setPlaying(on) {
      this.playing = on;
      this.toggle.textContent = on ? "Pause" : "Play";
      this.toggle.setAttribute("aria-pressed", String(on));
    }

    choose() {
      const names = Object.keys(this.chosen.views), before = this.view.value;
      this.view.replaceChildren(...names.map((name) => new Option(name, name)));
      this.view.value = names.includes(before) ? before : names[0];
      const link = this.root.querySelector(".page");
      if (link) { link.href = this.chosen.page; link.textContent = `All about ${this.chosen.name}`; }
      const prompt = this.root.querySelector(".prompt");
      if (prompt) { prompt.textContent = this.chosen.prompt; prompt.hidden = !this.chosen.prompt; }
      this.show();
    }

    // Every stage shows its run's strip of the chosen view; what the run lacks is said and not shown.
    show() {
      for (const stage of this.stages) {
        const run = this.chosen.clips[stage.dataset.run];
        const clip = run && run.views[this.view.value];  // [frames, fps, width over height]
        const strip = stage.querySelector(".strip");
        stage.classList.toggle("absent", !clip);
        [stage.frames, stage.fps] = clip || [1, 1];
        if (!clip) { strip.removeAttribute("src"); continue; }
        stage.style.setProperty("--frames", clip[0]);
        stage.style.setProperty("--ratio", clip[2]);
        const address = `${stage.dataset.root}${run.folder}/${this.chosen.views[this.view.value]}`;
        if (strip.getAttribute("src") !== address) {
          stage.classList.add("loading");  // the old picture must not stand under the new name
          strip.onload = () => stage.classList.remove("loading");
          strip.onerror = () => { stage.classList.remove("loading"); stage.classList.add("absent"); };
          strip.src = address;
        }
      }
      const clips = this.stages.filter((stage) => !stage.classList.contains("absent"));
      this.longest = clips.reduce((most, stage) => (stage.frames / stage.fps > most.frames / most.fps ? stage : most), clips[0] || { frames: 1, fps: 1 });
      this.scrub.max = String(this.longest.frames - 1);
      this.draw();
    }

    draw() {
      const at = (stage) => Math.floor(this.time * stage.fps + 1e-6) % stage.frames;
      for (const stage of this.stages) {
        const frame = at(stage);
        if (stage.dataset.frame === String(frame) && stage.of === stage.frames) continue;
        stage.dataset.frame = String(frame);
        stage.of = stage.frames;
        stage.querySelector(".strip").style.transform = `translateY(${(-100 * frame) / stage.frames}%)`;
      }
      const frame = at(this.longest);
      if (Number(this.scrub.value) !== frame) this.scrub.value = String(frame);
      const text = `frame ${frame + 1} of ${this.longest.frames}`;
      if (this.told.textContent !== text) this.told.textContent = text;
    }

    tick(now) {
      if (this.playing && this.visible && this.last !== null) {
        this.time += (Math.min(now - this.last, 250) / 1000) * Number(this.speed.value);
        this.draw();
      }
      this.last = now;
      requestAnimationFrame((next) => this.tick(next));
    }
  }
  all(".player").forEach((root) => new Player(root));

  // ---- Two metrics against each other, with both intervals. ----
  const svg = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const ticks = (low, high) => {
    const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const found = [];
    for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) found.push(Number(value.toPrecision(10)));
    return found;
  };
  for (const root of all(".scatter")) {
    const points = JSON.parse(root.dataset.points), [across, up] = all("select", root), drawing = root.querySelector("svg");
    const width = 560, height = 360, left = 52, right = 20, top = 14, bottom = 44;
    const scale = (values, from, to) => {
      const low = Math.min(...values), high = Math.max(...values), pad = (high - low || Math.abs(high) || 1) * 0.08;
      const [a, b] = [low - pad, high + pad];
      return { low: a, high: b, at: (value) => from + ((value - a) / (b - a)) * (to - from) };
    };
    const draw = () => {
      const shown = points.filter((point) => point.values[across.value] && point.values[up.value]);
      const parts = [];
      if (shown.length) {
        const spread = (name) => shown.flatMap((point) => point.values[name].filter((value) => value !== null));
        const x = scale(spread(across.value), left, width - right), y = scale(spread(up.value), height - bottom, top);
        for (const value of ticks(x.low, x.high)) {
          parts.push(svg("path", { class: "tick", d: `M${x.at(value)} ${top}V${height - bottom}` }));
          parts.push(svg("text", { x: x.at(value), y: height - bottom + 18, "text-anchor": "middle" }, String(value)));
        }
        for (const value of ticks(y.low, y.high)) {
          parts.push(svg("path", { class: "tick", d: `M${left} ${y.at(value)}H${width - right}` }));
          parts.push(svg("text", { x: left - 8, y: y.at(value) + 4, "text-anchor": "end" }, String(value)));
        }
        const named = (select) => select.options[select.selectedIndex].text;
        parts.push(svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, named(across)));
        parts.push(svg("text", { x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, named(up)));
        const labels = [];
        for (const point of shown) {
          const [value, low, high] = point.values[across.value], [value2, low2, high2] = point.values[up.value];
          const group = svg("g", { class: point.kind });
          if (low !== null) group.append(svg("path", { class: "span", d: `M${x.at(low)} ${y.at(value2)}H${x.at(high)}` }));
          if (low2 !== null) group.append(svg("path", { class: "span", d: `M${x.at(value)} ${y.at(low2)}V${y.at(high2)}` }));
          const dot = svg("circle", { class: point.kind === "method" ? "dot" : "hollow", cx: x.at(value), cy: y.at(value2), r: point.kind === "method" ? 4.5 : 4 });
          dot.append(svg("title", {}, `${point.name}: ${value}, ${value2}`));
          group.append(dot);
          parts.push(group);
          const before = x.at(value) > width * 0.62;
          if (point.kind === "method") labels.push({ name: point.name, x: x.at(value) + (before ? -8 : 8), y: y.at(value2) - 6, anchor: before ? "end" : "start" });
        }
        labels.sort((a, b) => a.y - b.y).forEach((label, place) => {
          if (place && label.y - labels[place - 1].y < 13 && Math.abs(label.x - labels[place - 1].x) < 130) label.y = labels[place - 1].y + 13;
          const name = label.name.length > 24 ? `${label.name.slice(0, 23)}…` : label.name;
          parts.push(svg("text", { class: "label", x: label.x, y: label.y, "text-anchor": label.anchor }, name));
        });
      }
      drawing.replaceChildren(...parts);
    };
    root.addEventListener("change", draw);
    draw();
  }
})();
