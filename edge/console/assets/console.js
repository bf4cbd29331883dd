// The pages work without this; with it they are live. It replaces pieces of the
// page by what the gate sends, sends forms without leaving the page, and counts
// seconds down. It decides nothing.

const message = document.getElementById("message");
let hide;
function say(text, stay) {
  if (!message) return;
  message.textContent = text;
  clearTimeout(hide);
  if (text && !stay) hide = setTimeout(() => { message.textContent = ""; }, 8000);
}

// The theme: as the system has it, or as somebody chose on this tablet.
const theme = document.getElementById("theme");
try { const t = localStorage.getItem("theme"); if (t) document.documentElement.dataset.theme = t; } catch { /* private mode */ }
if (theme) {
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* private mode */ }
  });
}

const print = document.getElementById("print");
if (print) {
  print.hidden = false;
  print.addEventListener("click", () => window.print());
}

// A referral sounds, and so does a call for help. Browsers allow sound once
// somebody has touched the page or the one before it; until then a sign says so.
const sound = document.getElementById("sound");
let audio;
function unlock() { if (audio && audio.state !== "running") audio.resume().catch(() => {}); }
if (sound) {
  try { audio = new AudioContext(); } catch { /* a machine without sound: its lane has a buzzer */ }
  const show = () => { sound.hidden = !audio || audio.state === "running"; };
  audio?.addEventListener("statechange", show);
  for (const touch of ["pointerdown", "pointerup", "click", "keydown"]) addEventListener(touch, unlock, true);
  addEventListener("visibilitychange", unlock);
  unlock();
  show();
}
function ring(tones) {
  if (audio?.state !== "running") return;
  tones.forEach((hertz, i) => {
    const o = audio.createOscillator(), g = audio.createGain();
    o.frequency.value = hertz;
    g.gain.value = 0.3;
    o.connect(g).connect(audio.destination);
    o.start(audio.currentTime + i * 0.22);
    o.stop(audio.currentTime + i * 0.22 + 0.2);
  });
}
const REFERRAL = [660, 880], HELP = [990, 660, 990, 660];

// Seconds left are counted from when the piece came: the tablet's clock does
// not matter.
function deadlines(root) {
  for (const e of root.querySelectorAll(".left")) e.dataset.end = String(performance.now() + Number(e.dataset.ms));
}
function countdown() {
  for (const e of document.querySelectorAll(".left")) e.textContent = Math.max(0, Math.ceil((Number(e.dataset.end) - performance.now()) / 1000)) + " s";
}
deadlines(document);
countdown();
setInterval(countdown, 250);

// What an element is, whatever piece of the page it stands in: a form by what it
// would send, but for what somebody types.
function nameOf(e) {
  const form = e.closest("form.act");
  if (!form) return e.dataset.name ?? e.getAttribute("href") ?? "";
  return [...form.querySelectorAll("input[type=hidden]")].map((i) => i.name + "=" + i.value).join("&") + "\n" + e.tagName + (e.name ?? "");
}
const controls = "button, a, summary, input:not([type=hidden]), [data-name]";
function find(root, name) { return name && [...root.querySelectorAll(controls), root].find((e) => nameOf(e) === name); }

// What somebody is typing, has opened or has in hand stays when its lane changes,
// as long as it is about the same person. Otherwise the lane keeps the focus, and
// no button of the next person has it.
function replace(old, html) {
  const box = document.createElement("template");
  box.innerHTML = html;
  const next = box.content.firstElementChild;
  const typed = new Map([...old.querySelectorAll("input:not([type=hidden])")].map((i) => [nameOf(i), i.value]));
  const opened = [...old.querySelectorAll("details[open] > summary")].map(nameOf);
  const focused = old.contains(document.activeElement) ? nameOf(document.activeElement) : undefined;
  old.replaceWith(next);
  for (const i of next.querySelectorAll("input:not([type=hidden])")) i.value = typed.get(nameOf(i)) ?? i.value;
  for (const s of next.querySelectorAll("summary")) if (opened.includes(nameOf(s))) s.parentElement.open = true;
  if (focused !== undefined) {
    const e = find(next, focused);
    e?.focus({ preventScroll: true });
    if (document.activeElement !== e) next.focus({ preventScroll: true });
  }
  deadlines(next);
  countdown();
  return next;
}

// A touch or key that comes right after somebody new has stepped up was meant for
// the one before.
const RIGHT_AFTER = 400;
function laneOf(id) { return document.querySelector(`.lane[data-lane="${CSS.escape(id)}"]`); }
function steppedUp(lane) {
  const now = lane.dataset.now;
  lane.dataset.fresh = "";
  setTimeout(() => { const l = laneOf(lane.dataset.lane); if (l?.dataset.now === now) delete l.dataset.fresh; }, RIGHT_AFTER);
}

addEventListener("submit", async (e) => {
  const form = e.target;
  if (!form.matches("form.act")) return;
  e.preventDefault();
  const button = form.querySelector("button");
  if (form.closest(".lane[data-fresh] .current")) { say(document.body.dataset.wait); return; }
  button.disabled = true;
  try {
    const r = await fetch("/act", { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" }, signal: AbortSignal.timeout(5000) });
    if (r.status === 401) { location.href = "/enter"; return; }
    say(r.ok ? "" : await r.text());
    if (r.ok && !document.body.dataset.live) location.href = "/";
  } catch {
    say(document.body.dataset.lost ?? "!");
  } finally {
    button.disabled = false;
  }
});

// What a reader that poses as a keyboard sends takes the place of the last card.
for (const i of document.querySelectorAll("[data-scan]")) i.addEventListener("focus", () => i.select());

// Keys belong to the group of buttons that holds the focus: somebody aside, an
// opened list, else the lane. What stands in the tray is never reached from
// outside of it.
function keyed(key, from) {
  for (let group = from?.closest("[data-keys]"); group; group = group.parentElement.closest("[data-keys]")) {
    const b = [...group.querySelectorAll(`[data-key="${CSS.escape(key)}"]:not(:disabled)`)].find((b) => b.closest("[data-keys]") === group);
    if (b || group.matches(".aside")) return b;
  }
}
function following(list, from) { return list[(list.findIndex((e) => e.contains(from)) + 1) % list.length]; }

// What a key means now. Without the focus in a lane it is for the only lane that
// waits for the guard.
function meant(key, from) {
  const lanes = [...document.querySelectorAll(".lane")];
  const waiting = lanes.filter((l) => l.querySelector(".current form.act button"));
  switch (key) {
    case "l": return following(waiting.length ? waiting : lanes, from);
    case "w": { const aside = [...document.querySelectorAll(".aside")]; return aside.length ? following(aside, from) : undefined; }
    case "y": { const calls = document.querySelectorAll(".help button"); return keyed(key, from) ?? (calls.length === 1 ? calls[0] : undefined); }
    case "h": return (from.closest(".lane") ?? waiting[0] ?? lanes[0])?.querySelector(":scope > footer [data-key=h]");
  }
  const lane = from.closest(".lane") ?? (waiting.length === 1 ? waiting[0] : lanes.length === 1 ? lanes[0] : undefined);
  return lane?.contains(from) ? keyed(key, from) : keyed(key, lane);
}
function press(e) {
  if (e.matches(".lane, .aside")) { e.focus(); e.scrollIntoView({ block: "nearest" }); return; }
  if (e.tagName === "SUMMARY") {
    e.parentElement.open = !e.parentElement.open;
    (e.parentElement.open ? e.parentElement.querySelector("button:not(:disabled)") ?? e : e).focus();
    return;
  }
  if (!e.form) { e.click(); return; }
  const input = [...e.form.querySelectorAll("input:not([type=hidden])")].find((i) => !i.value);
  if (input) input.focus(); else e.form.requestSubmit(e);
}

// A card reader that types what it reads is faster than any guard, and a key that
// is held down says nothing new.
const BURST = 60;
let last = -Infinity, pending;
addEventListener("keydown", (e) => {
  if (["Shift", "Control", "Alt", "Meta"].includes(e.key) || e.target.closest?.("input, select, textarea")) return;
  const burst = e.timeStamp - last < BURST;
  last = e.timeStamp;
  clearTimeout(pending);
  if (burst || e.repeat) {
    if (e.key === "Enter" || e.key === " ") e.preventDefault();
    return;
  }
  if (e.ctrlKey || e.altKey || e.metaKey || !document.body.dataset.may?.split(" ").includes("act")) return;
  const from = e.target instanceof Element ? e.target : document.body;
  const b = meant(e.key.toLowerCase(), from);
  if (!b) return;
  e.preventDefault();
  // The lane may change while it waits: the key keeps to what it meant.
  const lane = b.closest(".lane")?.dataset.lane, name = nameOf(b);
  pending = setTimeout(() => {
    const now = b.isConnected ? b : find(laneOf(lane ?? "") ?? document, name);
    if (now) press(now); else say(document.body.dataset.wait ?? "");
  }, BURST);
}, true);

// A stream is kept up: one that is silent for longer than the gate ever is, is
// dead, whatever the browser thinks of it (a tablet that slept, a radio that
// forgot it). What is shown is old until the first event of the next.
const SILENCE = 6000, FIRST = 4000; // milliseconds; the first event comes at once
function listen(url, handlers) {
  let source, timer, heard;
  const lost = () => {
    document.body.classList.add("lost");
    say(document.body.dataset.lost ?? "", true);
  };
  const again = (after) => { clearTimeout(timer); timer = setTimeout(open, after); };
  function open() {
    source?.close();
    const s = source = new EventSource(url);
    heard = Date.now();
    clearTimeout(timer);
    timer = setTimeout(() => { lost(); open(); }, FIRST);
    for (const [name, f] of Object.entries(handlers)) s.addEventListener(name, (e) => {
      if (s !== source) return;
      if (document.body.classList.contains("lost")) { document.body.classList.remove("lost"); say(""); }
      heard = Date.now();
      clearTimeout(timer);
      timer = setTimeout(() => { lost(); open(); }, SILENCE);
      f(JSON.parse(e.data));
    });
    s.onerror = () => {
      if (s !== source) return;
      lost();
      // The browser tries again by itself, but not after an answer that is no stream.
      if (s.readyState === EventSource.CLOSED) refused(); else again(SILENCE);
    };
  }
  // Why there is no stream: somebody whose session has ended must log in.
  async function refused() {
    again(SILENCE);
    const stop = new AbortController();
    try {
      const r = await fetch(url, { signal: AbortSignal.any([stop.signal, AbortSignal.timeout(4000)]) });
      if (r.status === 401) location.href = "/enter";
      if (r.status === 403) location.href = "/me";
      again(3000);
    } catch { /* the gate is away; it is tried again */ }
    stop.abort();
  }
  const awake = () => { if (document.visibilityState === "visible" && Date.now() - heard > 2500) { lost(); open(); } };
  addEventListener("visibilitychange", awake);
  addEventListener("online", awake);
  addEventListener("pageshow", awake);
  open();
}

// A browser makes a click of a press and a release on one element: a lane that
// changes under a finger would swallow the touch. So it changes when the finger is
// up, or has rested for a second.
let pressed, held = new Map();
function release() {
  clearTimeout(pressed);
  pressed = undefined;
  for (const f of held.values()) f();
  held.clear();
}
addEventListener("pointerdown", () => { clearTimeout(pressed); pressed = setTimeout(release, 1000); }, true);
// Of a touch the click comes somewhat later than the end.
for (const up of ["pointerup", "pointercancel"]) addEventListener(up, () => { if (pressed) { clearTimeout(pressed); pressed = setTimeout(release, 100); } }, true);
addEventListener("click", () => { if (pressed) setTimeout(release); });
function unpressed(f) {
  return (piece) => { if (pressed) held.set(piece.id, () => f(piece)); else f(piece); };
}

if (document.body.dataset.live) {
  const rung = new Map([...document.querySelectorAll(".lane")].map((l) => [l.dataset.lane, l.dataset.rings.split(" ")]));
  document.getElementById("keys").hidden = !document.body.dataset.may.split(" ").includes("act");
  const help = () => { if (document.querySelector(".help")) ring(HELP); };
  help();
  setInterval(help, 4000);
  listen(document.body.dataset.live, {
    lane: unpressed(({ id, html }) => {
      const old = laneOf(id);
      if (!old) { location.reload(); return; }
      const before = old.dataset.now, calls = old.querySelectorAll(".help").length;
      const lane = replace(old, html);
      if (before && lane.dataset.now && lane.dataset.now !== before) steppedUp(lane);
      else if (before === lane.dataset.now && "fresh" in old.dataset) lane.dataset.fresh = "";
      const rings = lane.dataset.rings.split(" ");
      if (lane.querySelectorAll(".help").length > calls) help();
      else if (rings.some((r) => r && !rung.get(id)?.includes(r))) ring(REFERRAL);
      rung.set(id, rings);
    }),
    status: ({ html }) => { document.getElementById("status").innerHTML = html; },
    entries: ({ html }) => { document.getElementById("entries").innerHTML = html; },
  });
}

if (document.body.dataset.raw) {
  listen(document.body.dataset.raw, {
    raw: ({ id, html }) => {
      const old = document.querySelector(`.raw[data-id="${CSS.escape(id)}"]`);
      if (!old) { location.reload(); return; }
      old.outerHTML = html;
    },
    alive: () => {},
  });
}

if (document.body.dataset.display) {
  const box = document.getElementById("sign"), tips = document.getElementById("tips");
  let turning, spoken = "", unheard;
  // A prompt that cannot be heard is one that is read: the sign stands anyway. A
  // browser that wants a touch first shows that it is mute, and says what still
  // holds when it has been touched.
  const speak = (lang, voice, volume) => {
    const a = new Audio("/assets/voice/" + lang + "-" + voice + ".opus");
    a.volume = Math.min(1, volume / 100);
    a.play().then(() => { delete document.body.dataset.mute; unheard = undefined; }, (e) => {
      if (e.name !== "NotAllowedError") return;
      document.body.dataset.mute = "";
      unheard = { said: spoken, again: () => speak(lang, voice, volume) };
    });
  };
  for (const touch of ["pointerup", "keydown"]) addEventListener(touch, () => {
    if (!unheard) return;
    const { said, again } = unheard;
    unheard = undefined;
    delete document.body.dataset.mute;
    if (said === spoken) again();
  });
  const turn = (list) => {
    let i = 0;
    const next = () => { list.forEach((e, k) => e.classList.toggle("now", k === i)); i = (i + 1) % list.length; };
    next();
    return setInterval(next, 3000);
  };
  if (tips?.children.length) { turn([...tips.children]); }
  const show = ({ sign, words, turn: inTurn, voice, volume, ref }) => {
    const by = document.getElementById("ref");
    by.textContent = ref?.Text ?? "";
    by.lang = ref?.Lang ?? "";
    by.dir = ref?.Dir ?? "";
    document.body.className = "display " + sign + (inTurn ? " turn" : "");
    for (const p of box.querySelectorAll("p")) p.remove();
    for (const w of words) {
      const p = document.createElement("p");
      p.lang = w.Lang;
      p.dir = w.Dir;
      p.textContent = w.Text;
      box.append(p);
    }
    clearInterval(turning);
    if (inTurn) turning = turn([...box.querySelectorAll("p")]);
    // Once for each sign; the same sign in another language is said again, since
    // the guard has just chosen it.
    const said = voice ? words[0].Lang + voice : "", fresh = said && said !== spoken;
    spoken = said;
    if (fresh) {
      speak(words[0].Lang, voice, volume);
      if (inTurn) words.slice(1).forEach((w, i) => setTimeout(() => { if (spoken === said) speak(w.Lang, voice, volume); }, 3000 * (i + 1)));
    }
  };
  listen(document.body.dataset.display, {
    sign: show,
    alive: (time) => { document.getElementById("clock").textContent = time; },
  });
}
