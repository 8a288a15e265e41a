// One rater's way through a sheet: start, questions, end. Data comes from questions.js; nothing is ever sent.
// Which clip is of which method is not known here. Text is only ever set as text, never as HTML.
"use strict";
(() => {
  const study = window.mvvStudy;
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const label = (place) => String.fromCharCode(65 + place);

  // ---- Who answers which sheet: #sheet=7&rater=CODE in the address, or drawn. A file on disk may be denied storage. ----
  const asked = new URLSearchParams(location.hash.slice(1));
  const random = (bytes) => [...crypto.getRandomValues(new Uint8Array(bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");
  const storageKey = "mvv-study-" + study.study;
  const keep = () => { try { localStorage.setItem(storageKey, JSON.stringify(state)); } catch { /* see above */ } };
  const forget = () => { try { localStorage.removeItem(storageKey); } catch { /* see above */ } };
  const kept = () => { try { return JSON.parse(localStorage.getItem(storageKey)); } catch { return null; } };
  const fresh = () => {
    const wanted = Number.parseInt(asked.get("sheet"), 10);
    const drawn = crypto.getRandomValues(new Uint32Array(1))[0] % study.sheets.length;
    return {
      schema: study.schema, study: study.study, rater: (asked.get("rater") || "").slice(0, 80) || random(8),
      sheet: wanted >= 0 && wanted < study.sheets.length ? wanted : drawn,
      started: new Date().toISOString(), finished: "", answers: [],
    };
  };
  let state = kept();
  const other = state && ((asked.get("rater") && asked.get("rater").slice(0, 80) !== state.rater)
    || (asked.has("sheet") && Number.parseInt(asked.get("sheet"), 10) !== state.sheet));
  if (!state || state.study !== study.study || !study.sheets[state.sheet] || !Array.isArray(state.answers) || other) state = fresh();
  const sheet = () => study.sheets[state.sheet];

  const show = (name) => {
    for (const id of ["start", "question", "end"]) find(id).hidden = id !== name;
    root.dataset.screen = name;
    scrollTo(0, 0);
  };

  // ---- One clock for all clips: each stands at floor(time * its frames a second), modulo its frames. ----
  let strips = [], time = 0, before = null, playing = true;
  const draw = (now) => {
    if (playing && before !== null) time += (now - before) / 1000;
    before = now;
    for (const strip of strips) {
      const frame = Math.floor(time * strip.fps) % strip.frames;
      strip.image.style.transform = `translateY(${(-100 * frame) / strip.frames}%)`;
    }
    requestAnimationFrame(draw);
  };
  requestAnimationFrame(draw);
  const setPlaying = (on) => {
    playing = on;
    find("play").textContent = on ? "Pause" : "Play";
    find("play").setAttribute("aria-pressed", String(on));
  };
  find("play").addEventListener("click", () => setPlaying(!playing));

  // ---- Time spent on a question, while the page can be seen. ----
  let spent = 0, since = null;
  const stop = () => { if (since !== null) spent += performance.now() - since; since = null; };
  const run = () => { if (since === null && !document.hidden) since = performance.now(); };
  document.addEventListener("visibilitychange", () => { if (root.dataset.screen === "question") { if (document.hidden) stop(); else run(); } });

  // ---- A question. ----
  const form = find("choices");
  const chosen = () => Object.fromEntries(study.criteria.map((c) => [c.id, form.elements[c.id] ? form.elements[c.id].value : ""]));
  const complete = () => root.dataset.shown === root.dataset.place && Object.values(chosen()).every(Boolean);
  const refresh = () => {
    find("next").disabled = !complete();
    find("hint").hidden = complete();
  };
  form.addEventListener("change", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());

  const style = ([frames, , ratio, columns, rows]) => `--frames:${frames};--ratio:${ratio};--columns:${columns};--rows:${rows}`;
  const stage = (name, text) => {
    const [frames, fps] = study.clips[name];
    const image = make("img", { className: "strip", src: `media/${name}.webp`, alt: text, decoding: "async" });
    const box = make("div", { className: "stage" }, image);
    box.style.cssText = style(study.clips[name]);
    strips.push({ image, frames, fps });
    return box;
  };
  const fieldset = (criterion, names) => {
    const legend = make("legend", {}, make("b", { textContent: criterion.title }), ` ${criterion.question}`);
    const picks = names.map((name, place) => make("label", {},
      make("input", { type: "radio", name: criterion.id, value: name, ariaLabel: `${criterion.title}: ${label(place)}` }),
      make("span", { textContent: label(place) })));
    return make("fieldset", {}, legend, make("div", { className: "picks" }, ...picks));
  };
  const ask = async () => {
    const place = state.answers.length, total = sheet().length;
    if (place >= total) return finish();
    const [id, ...names] = sheet()[place];
    const question = study.questions[id];
    strips = [];
    find("progress").value = place / total;
    find("place").textContent = `${place + 1} of ${total}`;
    find("prompt").textContent = question.prompt;
    find("picture").src = `media/${question.picture}.webp`;
    find("picture").parentElement.style.cssText = style(study.clips[question.picture]);
    find("clips").replaceChildren(...names.map((name, k) => make("figure", {},
      stage(name, `animation ${label(k)}`), make("figcaption", { textContent: label(k) }))));
    find("clips").style.setProperty("--across", names.length > 4 ? 3 : names.length);
    find("clips").classList.add("waiting");
    find("broken").hidden = true;
    form.replaceChildren(...study.criteria.map((criterion) => fieldset(criterion, names)));
    root.dataset.place = String(place);
    delete root.dataset.shown;  // nothing can be answered before all clips are there
    refresh();
    show("question");
    find("prompt").focus({ preventScroll: true });
    spent = 0;
    since = null;
    try {
      await Promise.all([find("picture"), ...strips.map((strip) => strip.image)].map((image) => image.decode()));
    } catch {
      if (root.dataset.place === String(place)) find("broken").hidden = false;
      return;
    }
    if (root.dataset.place !== String(place)) return;
    find("clips").classList.remove("waiting");
    time = 0;  // all begin together
    run();
    root.dataset.shown = String(place);
    refresh();
  };
  const next = () => {
    if (!complete()) return;
    stop();
    const [id] = sheet()[state.answers.length];
    state.answers.push({ question: id, seconds: Math.round(spent / 100) / 10, choices: chosen() });
    keep();
    ask();
  };
  find("next").addEventListener("click", next);

  // ---- Keys: a letter answers the criterion in focus or the first open one, Enter goes on, Space plays and pauses. ----
  document.addEventListener("keydown", (event) => {
    if (root.dataset.screen !== "question" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && !["BUTTON", "INPUT"].includes(event.target.tagName)) {
      event.preventDefault();
      setPlaying(!playing);
    } else if (event.key === "Enter" && event.target.tagName !== "BUTTON") {
      next();
    } else if (/^[a-f]$/i.test(event.key)) {
      const place = event.key.toLowerCase().charCodeAt(0) - 97;
      const open = study.criteria.find((c) => !form.elements[c.id].value);
      const name = event.target.type === "radio" ? event.target.name : open && open.id;
      const input = name && form.elements[name][place];
      if (!input) return;
      input.checked = true;
      refresh();
      const following = study.criteria.find((c) => !form.elements[c.id].value);
      if (following) form.elements[following.id][0].closest("fieldset").scrollIntoView({ block: "nearest" });
    }
  });

  // ---- The end: the file, and the same as text where a browser does not save files. ----
  let address = "";
  const finish = () => {
    strips = [];
    state.finished ||= new Date().toISOString();
    keep();
    const text = JSON.stringify(state, null, 1);
    find("answers").value = text;
    if (address) URL.revokeObjectURL(address);
    address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    find("save").href = address;
    find("save").download = `answers-${study.study.slice(0, 8)}-${state.rater.replace(/[^\w-]/g, "_").slice(0, 40)}.json`;
    show("end");
  };
  find("copy").addEventListener("click", async () => {
    find("answers").closest("details").open = true;
    find("answers").select();
    try {
      await navigator.clipboard.writeText(find("answers").value);
      find("copied").textContent = "Copied.";
    } catch {
      find("copied").textContent = "Selected; copy it with your keyboard.";
    }
  });
  addEventListener("beforeunload", (event) => {
    if (root.dataset.screen === "question" && state.answers.length && !kept()) event.preventDefault();
  });

  // ---- The start. ----
  find("letters").textContent = study.sheets[0][0].slice(1).map((_, place) => label(place)).join(" ");
  const total = sheet().length, left = total - state.answers.length;
  find("count").textContent = `${total} pages of ${study.criteria.length} questions`;
  find("minutes").textContent = `${Math.max(1, Math.round(total * 0.6))} minutes`;
  find("begin").textContent = !state.answers.length ? "Begin" : left ? `Go on (${state.answers.length} of ${total} done)` : "Show my answers";
  find("anew").hidden = !state.answers.length;
  find("begin").addEventListener("click", () => {
    setPlaying(!matchMedia("(prefers-reduced-motion: reduce)").matches);
    ask();
  });
  find("anew").addEventListener("click", () => {
    forget();
    state = fresh();
    ask();
  });
  show("start");
})();
