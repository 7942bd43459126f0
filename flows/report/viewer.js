"use strict";
// Plays the recorded episodes of the page: pictures, the reason for each action, how a choice came about, lanes.
(() => {
  const root = document.querySelector(".viewer");
  const data = JSON.parse(document.querySelector("script.viewer-data").textContent);
  const $ = (name) => root.querySelector(name);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const floats = (text, kind = Float32Array) => new kind(bytes(text).buffer);
  const WHO = { p: "policy", a: "advice", o: "option", l: "plan" };
  const LANES = [
    ["reward", "reward"], ["value", "value"], ["entropy", "entropy"], ["beta", "beta"], ["kl", "KL, nats"], ["uncertainty", "unsure"],
  ];
  const probe = root.appendChild(document.createElement("span"));
  probe.hidden = true;
  const colour = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const number = (value, digits = 2) => value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
  const share = (p) => p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : `${(100 * p).toFixed(1)} %`;
  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  let ep, at = 0, timer = null, picked = 0;
  const images = {};
  const picture = (address) => images[address] ??= Object.assign(new Image(), { src: address, onload: () => show() });

  // ------------------------------------------------------------------------------------------------ one episode
  const open = (index) => {
    picked = index;
    const raw = data.episodes[index];
    ep = { ...raw, frames: raw.action.length };
    for (const name of ["cells", "counts", "shown", "possible"]) if (raw[name] !== undefined) ep[name] = bytes(raw[name]);
    for (const name of ["own", "added", "mixed"]) if (raw[name] !== undefined) ep[name] = floats(raw[name]);
    for (const name of ["base", "level"]) if (raw[name] !== undefined) ep[name] = floats(raw[name], Float64Array);
    ep.foretold = Object.fromEntries(Object.entries(raw.ahead ?? {}).map(([k, text]) => [k, bytes(text)]));
    ep.decision = new Map((raw.decided ?? []).map((step, i) => [step, i]));
    for (const input of [$(".viewer-slider"), $(".viewer-number")]) input.max = ep.frames - 1;
    $(".viewer-of").textContent = `of ${(ep.frames - 1).toLocaleString("en")}`;
    $(".viewer-notes").replaceChildren(...ep.notes.map((note) => element("p", note, "banner")));
    events();
    at = 0;
    lanes();
    show();
  };
  const jump = (step, text) => {
    const link = element("a", text ?? `step ${step}`);
    link.href = "#watch-an-episode";
    link.addEventListener("click", (event) => { event.preventDefault(); go(step); });
    return link;
  };
  const events = () => {
    const line = $(".viewer-events");
    line.replaceChildren();
    (ep.unlocked ?? []).forEach(([step, name], i) => line.append(i ? ", " : "Achievements: ", jump(step, `${name} at ${step}`)));
    if (ep.unlocked && !ep.unlocked.length) line.append("No achievement in this episode.");
  };

  // ------------------------------------------------------------------------------------------------ pictures
  const drawTiles = (canvas, cells, from, player, marks) => {
    const atlas = data.atlas[ep.environment], size = atlas.size, [width, height] = ep.view;
    canvas.width = width * size; canvas.height = height * size;
    const pen = canvas.getContext("2d"), tiles = picture(atlas.picture);
    if (!tiles.complete) return;
    for (let i = 0; i < width * height; i++) {
      const x = i % width, y = Math.floor(i / width), middle = x === width >> 1 && y === height >> 1;
      const id = middle && player !== null ? player : Math.min(cells[from + i], ep.targets.length - 1);
      pen.drawImage(tiles, id * size, 0, size, size, x * size, y * size, size, size);
      if (marks && marks(i) && !middle) { pen.strokeStyle = "#ff3b6b"; pen.lineWidth = 1; pen.strokeRect(x * size + 0.5, y * size + 0.5, size - 1, size - 1); }
    }
  };
  const drawSheet = (canvas, address, step) => {
    const [height, width] = ep.sheet_size, sheet = picture(address);
    canvas.width = width; canvas.height = height;
    if (sheet.complete) canvas.getContext("2d").drawImage(sheet, (step % 32) * width, Math.floor(step / 32) * height, width, height, 0, 0, width, height);
  };
  const pictures = () => {
    const real = $(".viewer-real"), area = ep.view ? ep.view[0] * ep.view[1] : 0;
    if (ep.sheets) drawSheet(real, ep.sheets.real, at);
    else if (ep.cells) {
      const player = ep.targets.length + (ep.sleeping[at] ? ep.directions.length : ep.facing[at]);
      drawTiles(real, ep.cells, at * area, player, null);
      const night = 0.6 * (1 - ep.light[at] / 255), pen = real.getContext("2d");
      pen.fillStyle = `rgba(0, 8, 40, ${night})`;
      pen.fillRect(0, 0, real.width, real.height);
    }
    $(".viewer-seen").textContent = ep.sheets || ep.cells ? `What the agent saw at step ${at}${ep.sheets ? "" : " (drawn from its symbolic view)"}.` : "No picture in this recording.";
    for (const canvas of root.querySelectorAll(".viewer-ahead")) {
      const k = canvas.dataset.ahead, note = root.querySelector(`[data-said="${k}"]`);
      const steps = `${k} step${k === "1" ? "" : "s"}`, film = ep.sheets?.[k], cells = ep.foretold[k];
      const known = at >= +k && (film || (cells && ep.cells));
      canvas.style.visibility = known ? "visible" : "hidden";
      if (!known) { note.textContent = film || cells ? `Expected ${steps} before: from step ${k} on.` : "No prediction in this recording."; continue; }
      if (film) { drawSheet(canvas, film, at); note.textContent = `Expected ${steps} before.`; continue; }
      const base = at * area;
      drawTiles(canvas, cells, base, null, (i) => cells[base + i] !== ep.cells[base + i]);
      let wrong = 0;
      for (let i = 0; i < area; i++) wrong += cells[base + i] !== ep.cells[base + i] && i !== area >> 1;
      note.textContent = `Expected ${steps} before: ${wrong} of ${area - 1} cells otherwise${wrong ? " (framed)" : ""}.`;
    }
  };

  // ------------------------------------------------------------------------------------------------ why
  const goalOf = (t) => ep.skill && ep.skill[t] >= 0 ? ep.skills[ep.skill[t]] : null;
  const said = (t) => ep.texts[ep.spoke[t]] || "";
  const quoted = (t) => {  // "rule 3 collect_drink: thirst kills" -> who spoke, and its text
    const text = said(t), colon = text.indexOf(": ");
    return colon < 0 ? text : `${text.slice(0, colon)} (“${text.slice(colon + 2)}”)`;
  };
  const alone = (i, j) => ep.possible[i * ep.top + j] ? Math.exp(ep.own[i * ep.top + j] - ep.base[i]) : 0;
  const probabilities = (t) => {  // of what was drawn at step t: [by the policy alone, of the mixture]
    const i = ep.decision.get(t);
    if (i === undefined) return null;
    for (let j = 0; j < ep.top; j++) if (ep.shown[i * ep.top + j] === ep.drawn[i]) return [alone(i, j), ep.mixed[i * ep.top + j]];
    return null;
  };
  const drawn = (t) => {
    const i = ep.decision.get(t);
    return i === undefined ? null : ep.entries[ep.drawn[i]];
  };
  const because = (t) => {
    const parts = [], add = (...more) => parts.push(...more);
    if (t === ep.frames - 1 && ep.action[t] < 0) return ["The episode ends here."];
    const who = ep.who[t], goal = goalOf(t), since = ep.since ? ep.since[t] : t, odds = probabilities(t), entry = drawn(t);
    const about = goal ? ` It pursues the goal ${goal}.` : "";
    const beta = ep.beta?.[t] ? ` (weight beta ${number(ep.beta[t])})` : "";
    if (who === "a" && since === t) {
      add(`The advice decided${beta}. `, said(t) ? `In this state ${quoted(t)} spoke. ` : "");
      if (odds) add(`It raised ${entry} from ${share(odds[0])} to ${share(odds[1])}, and the draw belongs to what it added.`);
      add(about);
    } else if (who === "a") {
      add("The advice decided at ", jump(since), ` and its choice is held${goal ? `: goal ${goal}` : ""}. `, said(since) ? `There ${quoted(since)} spoke. ` : "");
      if (said(t) && said(t) !== said(since)) add(`Here ${quoted(t)} would speak.`);
    } else if (who === "o") {
      add(`The option ${goal ?? ""} acts, which the policy called ${since === t ? "here" : "at "}`, ...(since === t ? [""] : [jump(since)]), ". ");
      if (odds && ep.beta?.[t]) add(`The advice was asked too${beta} and did not take over${since === t ? "" : `: the draw, ${entry}, is none that it added, so the option goes on`}. `);
    } else if (who === "l") add("A plan under test acts (path A). ");
    else {
      add("The policy decided by itself. ");
      if (odds && odds[0] !== odds[1] && ep.beta?.[t]) add(`It gave ${entry} ${share(odds[0])}; with the advice mixed in${beta} ${share(odds[1])}. `);
      else if (odds) add(`It gave ${entry} ${share(odds[0])}. `);
      if (said(t) && said(t) !== "none") add(`The advice of this state, ${quoted(t)}, did not take the draw.`);
    }
    const goals = (ep.goals?.[t] ?? []).map(([k, p]) => `${[...ep.actions, ...ep.skills][k]} ${p} %`);
    if (goals.length && said(t) && said(t) !== "none") add(`${/ $/.test(parts.at(-1)) ? "" : " "}The advice here: ${goals.join(", ")}${ep.confidence ? `; ${number(ep.confidence[t])} sure` : ""}.`);
    return parts;
  };
  const why = () => {
    const line = $(".viewer-why"), name = ep.action[at] >= 0 ? ep.actions[ep.action[at]] ?? `action ${ep.action[at]}` : "the end";
    line.style.setProperty("--who", `var(--who-${ep.who[at]})`);
    line.replaceChildren(element("b", `Step ${at}: ${name}. `), ...because(at));
    $(".viewer-carried").textContent = ep.counts ? ep.carried.map((word, i) => [word, ep.counts[at * ep.carried.length + i]])
      .filter(([, n]) => n).map(([word, n]) => `${word} ${n}`).join(" · ") : "";
  };

  // ------------------------------------------------------------------------------------------------ the choice
  const lastDecision = () => {
    for (let t = at; t >= 0; t--) if (ep.decision.has(t)) return t;
    return null;
  };
  const choice = () => {
    const place = $(".viewer-choice"), t = ep.level ? lastDecision() : null;
    place.replaceChildren();
    if (t === null) return;
    const i = ep.decision.get(t), table = element("table");
    const head = table.createTHead().insertRow();
    for (const name of ["entry", "policy", "+ advice", "= mixture", "", "probability"]) head.append(element("th", name));
    const body = table.createTBody(), rows = [];
    for (let j = 0; j < ep.top; j++) {
      const k = i * ep.top + j;
      const shown = [ep.own[k], ep.added[k], Math.log(ep.mixed[k]) + ep.level[i]].map((v) => Math.round(v * 1000) / 1000);
      rows.push({ entry: ep.shown[k], exact: [ep.own[k], ep.added[k], Math.log(ep.mixed[k]) + ep.level[i]], shown, possible: ep.possible[k], policy: alone(i, j), mixed: ep.mixed[k] });
    }
    rows.sort((a, b) => b.mixed - a.mixed);
    const likeliest = Math.max(...rows.map((row) => Math.max(row.policy, row.mixed)));
    for (const row of rows) {
      const line = body.insertRow();
      line.className = row.entry === ep.drawn[i] ? "drawn" : row.possible ? "" : "never";
      line.append(element("th", `${ep.entries[row.entry] || `slot ${row.entry}`}${row.entry === ep.drawn[i] ? " ◂" : ""}`));
      row.exact.forEach((value, column) => {
        // The sum is rounded once: what is shown of the policy and of the advice adds up to what is shown of both.
        const text = !row.possible ? "–" : column === 2 ? number(row.shown[0] + row.shown[1], 3) : number(row.shown[column], 3);
        const cell = element("td", text, "n");
        cell.dataset.value = row.possible ? value : "";
        line.append(cell);
      });
      const cell = element("td", undefined, "p"), odds = cell.appendChild(element("div", undefined, "viewer-odds"));
      for (const [name, p] of [["own", row.policy], ["mix", row.mixed]]) odds.appendChild(element("i", undefined, name)).style.width = `${100 * p / likeliest}%`;
      line.append(cell, element("td", row.possible ? `${share(row.policy)} → ${share(row.mixed)}` : "not possible here", "n"));
    }
    const rest = ep.entries.length - ep.top;
    place.append(table, element("p", `Logits at step ${t}${t === at ? "" : ", the latest decision"}; ◂ was drawn${ep.who[t] === "o" && ep.since?.[t] < t ? ", which counts only where the advice added it" : ""}. Bars and per cent: the policy alone, then with the advice.${rest > 0 ? ` ${rest} less likely entries are left out.` : ""}${ep.beta?.[t] ? "" : " No advice was mixed in."}`, "state"));
  };

  // ------------------------------------------------------------------------------------------------ lanes
  const strip = (canvas, paint) => {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.max(1, width * ratio); canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    paint(pen, width, height, (t) => ep.frames > 1 ? t / (ep.frames - 1) * width : 0);
  };
  const lanes = () => {
    const place = $(".viewer-lanes");
    place.replaceChildren();
    const lane = (name, title, className) => {
      const label = element("span", `${title} `), canvas = element("canvas", undefined, className);
      label.append(element("b"));
      label.dataset.lane = canvas.dataset.lane = name;
      place.append(label, canvas);
      const seek = (event) => { const box = canvas.getBoundingClientRect(); go(Math.round((event.clientX - box.left) / box.width * (ep.frames - 1))); };
      canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); seek(event); });
      canvas.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
      return canvas;
    };
    strip(lane("who", "who", "who"), (pen, width, height, x) => {
      for (let t = 0; t < ep.frames - 1; t++) { pen.fillStyle = colour(`who-${ep.who[t]}`); pen.fillRect(x(t), 0, Math.max(1, x(t + 1) - x(t)), height); }
    });
    for (const [name, title] of LANES) {
      const values = ep[name];
      if (!values || !values.some((v) => v)) continue;
      strip(lane(name, title), (pen, width, height, x) => {
        const known = values.filter((v) => v !== null), low = Math.min(0, ...known), high = Math.max(...known, low + 1e-6);
        const y = (v) => height - 2 - (v - low) / (high - low) * (height - 4);
        pen.strokeStyle = colour("line"); pen.beginPath(); pen.moveTo(0, y(0)); pen.lineTo(width, y(0)); pen.stroke();
        pen.strokeStyle = colour("accent"); pen.lineWidth = 1.3; pen.beginPath();
        if (["reward", "beta", "kl", "uncertainty"].includes(name)) values.forEach((v, t) => { if (v) { pen.moveTo(x(t), y(0)); pen.lineTo(x(t), y(v)); } });
        else values.forEach((v, t) => { if (v !== null) pen[t && values[t - 1] !== null ? "lineTo" : "moveTo"](x(t), y(v)); });
        pen.stroke();
      });
    }
    const key = element("span"), band = element("span");
    for (const letter of new Set(ep.who)) { const dot = element("i", undefined, "viewer-key"); dot.style.background = `var(--who-${letter})`; band.append(dot, WHO[letter]); }
    place.append(key, band, element("div", undefined, "viewer-cursor"));
  };
  const cursor = () => {
    const place = $(".viewer-lanes"), canvas = place.querySelector("canvas"), line = $(".viewer-cursor");
    line.style.left = `${canvas.offsetLeft + (ep.frames > 1 ? at / (ep.frames - 1) : 0) * canvas.clientWidth}px`;
    for (const label of place.querySelectorAll("span[data-lane]")) {
      const name = label.dataset.lane;
      label.querySelector("b").textContent = name === "who" ? WHO[ep.who[at]] : number(ep[name][at]);
    }
  };

  // ------------------------------------------------------------------------------------------------ moving
  const show = () => {
    if (!ep) return;
    $(".viewer-slider").value = at;
    if (document.activeElement !== $(".viewer-number")) $(".viewer-number").value = at;
    root.dataset.step = at;
    pictures(); why(); choice(); cursor();
  };
  const go = (step) => { at = Math.max(0, Math.min(ep.frames - 1, step || 0)); show(); };
  const stop = () => { clearInterval(timer); timer = null; $(".viewer-play").textContent = "▶ play"; $(".viewer-why").setAttribute("aria-live", "polite"); };
  const play = () => {
    if (timer) return stop();
    if (at === ep.frames - 1) go(0);
    $(".viewer-play").textContent = "⏸ pause";
    $(".viewer-why").setAttribute("aria-live", "off");
    timer = setInterval(() => { if (at >= ep.frames - 1) stop(); else go(at + 1); }, 1000 / +$(".viewer-speed").value);
  };
  const nextUnlock = () => (ep.unlocked ?? []).map(([step]) => step).find((step) => step > at) ?? at;
  const nextChange = () => { for (let t = at + 1; t < ep.frames; t++) if (ep.who[t] !== ep.who[at]) return t; return at; };
  const MOVES = {
    first: () => go(0), back: () => go(at - 1), on: () => go(at + 1), last: () => go(ep.frames - 1), play,
  };
  const KEYS = {
    ArrowLeft: MOVES.back, ArrowRight: MOVES.on, PageUp: () => go(at - 10), PageDown: () => go(at + 10), Home: MOVES.first, End: MOVES.last,
    " ": play, u: () => go(nextUnlock()), d: () => go(nextChange()),
  };
  for (const button of root.querySelectorAll("[data-go]")) button.addEventListener("click", () => { if (button.dataset.go !== "play") stop(); MOVES[button.dataset.go](); });
  $(".viewer-slider").addEventListener("input", (event) => go(+event.target.value));
  $(".viewer-number").addEventListener("input", (event) => go(+event.target.value));
  $(".viewer-pick").addEventListener("change", (event) => { stop(); open(+event.target.value); });
  $(".viewer-speed").addEventListener("change", () => { if (timer) { stop(); play(); } });
  // Nothing has the keys after a click on the list of sections: then Left and Right are the player's while it shows;
  // the others go on scrolling the page.
  const isOurs = (event) => {
    const { top, bottom } = root.getBoundingClientRect(), { target } = event;
    const isFree = target === document.body || target.tagName === "A";
    return root.contains(target) || (isFree && /^Arrow(Left|Right)$/.test(event.key) && bottom > 0 && top < innerHeight / 2);
  };
  document.addEventListener("keydown", (event) => {
    if (!isOurs(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, field = event.target.tagName;
    if (event.ctrlKey || event.altKey || event.metaKey || !KEYS[key]) return;
    if (field === "SELECT" || event.target.type === "number" || (field === "BUTTON" && key === " ")) return;
    event.preventDefault();
    if (key !== " ") stop();
    KEYS[key]();
  });
  document.addEventListener("themechange", () => { lanes(); show(); });
  let width = 0;
  new ResizeObserver(() => { if (root.clientWidth !== width) { width = root.clientWidth; lanes(); cursor(); } }).observe(root);
  open(0);
})();
