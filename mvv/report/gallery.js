// Play and pause, background, filter and sort, and the frame slider of a clip's page. The clips play without it.
// Text of the dataset is only ever set as text (textContent, attributes), never as HTML.
"use strict";
(() => {
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);
  const strips = () => [...document.querySelectorAll(".stage:not(.still) .strip")];

  // A file opened from disk may be denied storage; the choice then lasts as long as the page.
  const keep = (key, value) => { try { localStorage.setItem("mvv-" + key, value); } catch { /* see above */ } };
  const kept = (key) => { try { return localStorage.getItem("mvv-" + key); } catch { return null; } };

  const play = find("play");
  const setPlaying = (on) => {
    root.classList.toggle("paused", !on);
    play.textContent = on ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(on));
  };
  play.addEventListener("click", () => setPlaying(root.classList.contains("paused")));
  setPlaying(!matchMedia("(prefers-reduced-motion: reduce)").matches);

  const setBackground = (name) => {
    const input = [...document.querySelectorAll(".swatches input")].find((one) => one.value === name);
    if (!input) return;
    input.checked = true;
    root.dataset.bg = name;
  };
  document.querySelectorAll(".swatches input").forEach((input) =>
    input.addEventListener("change", () => { setBackground(input.value); keep("background", input.value); }));
  setBackground(kept("background") || root.dataset.bg);

  // Which frame is on the screen, from where the strip stands; -1 while its picture has not arrived.
  const shownFrame = (strip) => {
    const matrix = getComputedStyle(strip).transform;
    if (!strip.complete || !strip.naturalWidth || !strip.offsetHeight) return -1;
    const down = matrix === "none" ? 0 : -new DOMMatrix(matrix).m42;
    return Math.round(down / (strip.offsetHeight / Number(strip.parentElement.dataset.frames)));
  };

  // For the first half minute: count the clips whose shown frame has changed (data-playing on <html>; tests read it).
  const seen = new Map();
  const playing = new Set();
  let looks = 0;
  const look = () => {
    for (const strip of strips()) {
      const frame = shownFrame(strip);
      if (frame < 0) continue;
      if (seen.has(strip) && seen.get(strip) !== frame) playing.add(strip);
      seen.set(strip, frame);
    }
    root.dataset.playing = String(playing.size);
    if (++looks >= 240 || (seen.size && playing.size === strips().length)) clearInterval(timer);
  };
  const timer = setInterval(look, 125);

  const scrub = find("scrub");
  if (scrub) {
    const stage = find("stage");
    const strip = stage.querySelector(".strip");
    const frames = Number(stage.dataset.frames);
    const times = stage.dataset.times.split(" ");
    const tell = (frame) => { find("frame").textContent = `frame ${times[frame] ?? frame}`; };
    const follow = () => {
      if (!root.classList.contains("paused")) {
        const frame = Math.max(0, shownFrame(strip)) % frames;
        scrub.value = String(frame);
        tell(frame);
      }
      requestAnimationFrame(follow);
    };
    scrub.addEventListener("input", () => {
      setPlaying(false);
      const [animation] = strip.getAnimations();
      if (animation) animation.currentTime = ((Number(scrub.value) + 0.5) / frames) * animation.effect.getTiming().duration;
      tell(Number(scrub.value));
    });
    tell(0);
    if (frames > 1) follow();
  }

  const grid = find("grid");
  if (!grid) return;
  const here = [...grid.querySelectorAll(".card")];
  const filter = find("filter"), sort = find("sort"), shown = find("shown"), pager = document.querySelector(".pager");
  const many = Number(grid.dataset.pages) > 1, pageSize = Number(grid.dataset.pageSize), atRest = shown.textContent;

  // Cards of other pages are made from this page's first one and a record of search.js.
  const cardOf = (record) => {
    const mine = here.find((card) => card.id === "c-" + record.id);
    if (mine) return mine;
    const card = here[0].cloneNode(true);
    const stage = card.querySelector(".stage"), strip = card.querySelector(".strip");
    card.id = "c-" + record.id;
    card.querySelectorAll("a").forEach((link) => { link.href = here[0].querySelector("a").getAttribute("href").replace(/[^/]+$/, record.id + ".html"); });
    stage.classList.toggle("still", record.frames === 1);
    stage.dataset.frames = String(record.frames);
    stage.style.cssText = `--frames:${record.frames};--seconds:${record.seconds};--ratio:${record.ratio};--across:${record.across};--down:${record.down}`;
    strip.width = record.width;
    strip.height = record.height;
    strip.src = strip.getAttribute("src").replace(/[^/]+$/, record.id + ".webp");
    card.querySelector("h3 a").textContent = record.name;
    card.querySelector(".animation").textContent = record.animation;
    card.querySelector(".figure").textContent = record.figure;
    return card;
  };
  const recordOf = (card) => ({ id: card.id.slice(2), card, ...card.dataset, motion: Number(card.dataset.motion) });

  const order = {
    "motion": (a, b) => a.motion - b.motion,
    "-motion": (a, b) => b.motion - a.motion,
    "name": (a, b) => a.name.localeCompare(b.name) || a.animation.localeCompare(b.animation),
    "animation": (a, b) => a.animation.localeCompare(b.animation) || a.name.localeCompare(b.name),
  };
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const resting = !words.length && !sort.value;
    let records = resting || !many ? here.map(recordOf) : window.mvvClips;
    records = records.filter((record) => words.every((word) => record.text.includes(word)));
    if (sort.value) records = [...records].sort(order[sort.value]);
    const first = records.slice(0, pageSize);
    grid.replaceChildren(...first.map((record) => record.card || cardOf(record)));
    find("nothing").hidden = records.length > 0;
    if (pager) pager.hidden = !resting;
    shown.textContent = resting ? atRest
      : `${records.length} ${records.length === 1 ? "clip" : "clips"}` + (first.length < records.length ? `, first ${first.length} shown` : "");
  };
  // With several pages the list of all clips is fetched when it is first needed, as a script: pages on disk cannot fetch.
  let loading = null;
  const change = () => {
    if (!many || window.mvvClips) return apply();
    loading ??= new Promise((done) => {
      const script = document.createElement("script");
      script.src = "assets/search.js";
      script.onload = done;
      document.head.append(script);
    });
    loading.then(apply);
  };
  filter.addEventListener("input", change);
  sort.addEventListener("change", change);
  if (filter.value || sort.value) change();  // a browser that came back to this page kept what was typed
})();
