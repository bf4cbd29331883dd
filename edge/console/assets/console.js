// The pages work without this; with it they are live. It replaces pieces of the
// page by what the gate sends, sends forms without leaving the page, and counts
// seconds down. It decides nothing.

const message = document.getElementById("message");
let hide;
function say(text) {
  if (!message) return;
  message.textContent = text;
  clearTimeout(hide);
  if (text) hide = setTimeout(() => { message.textContent = ""; }, 8000);
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

// A referral sounds. Browsers allow sound after the first touch.
let audio;
addEventListener("pointerdown", () => { audio ??= new AudioContext(); audio.resume(); });
addEventListener("keydown", () => { audio ??= new AudioContext(); audio.resume(); });
function ring() {
  if (audio?.state !== "running") return;
  for (const [at, hertz] of [[0, 660], [0.22, 880]]) {
    const o = audio.createOscillator(), g = audio.createGain();
    o.frequency.value = hertz;
    g.gain.value = 0.3;
    o.connect(g).connect(audio.destination);
    o.start(audio.currentTime + at);
    o.stop(audio.currentTime + at + 0.2);
  }
}

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

// What somebody is typing stays when its lane changes, as long as it is about
// the same person.
function key(input) {
  const f = input.form, v = (n) => f.elements[n]?.value ?? "";
  return [v("lane"), v("presentation"), v("kind"), v("reason"), input.name].join("\n");
}
function replace(old, html) {
  const box = document.createElement("template");
  box.innerHTML = html;
  const next = box.content.firstElementChild;
  const typed = new Map();
  for (const i of old.querySelectorAll("input:not([type=hidden])")) typed.set(key(i), [i.value, i === document.activeElement]);
  const focused = document.activeElement?.closest?.("form") && old.contains(document.activeElement) ? document.activeElement : null;
  const focusKey = focused?.form ? new URLSearchParams(new FormData(focused.form)).toString() : "";
  old.replaceWith(next);
  for (const i of next.querySelectorAll("input:not([type=hidden])")) {
    const was = typed.get(key(i));
    if (was) { i.value = was[0]; if (was[1]) i.focus(); }
  }
  if (focused?.tagName === "BUTTON") {
    for (const f of next.querySelectorAll("form")) if (new URLSearchParams(new FormData(f)).toString() === focusKey) f.querySelector("button")?.focus();
  }
  deadlines(next);
  countdown();
}

addEventListener("submit", async (e) => {
  const form = e.target;
  if (!form.matches("form.act")) return;
  e.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const r = await fetch("/act", { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" }, signal: AbortSignal.timeout(5000) });
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

// Keys act on the lane that holds the focus, or on the only one that waits for
// the guard.
addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.altKey || e.metaKey || e.target.closest("input, select, textarea")) return;
  if (!document.body.dataset.may?.split(" ").includes("act")) return;
  const waiting = document.querySelectorAll(".lane.referred, .lane.denied, .lane.measuring");
  const lane = e.target.closest(".lane") ?? (waiting.length === 1 ? waiting[0] : null);
  const b = lane?.querySelector(`[data-key="${CSS.escape(e.key.toLowerCase())}"]:not(:disabled)`);
  if (!b) return;
  e.preventDefault();
  const input = b.form.querySelector("input:not([type=hidden])");
  if (input && !input.value) input.focus(); else b.form.requestSubmit(b);
});

function listen(url, handlers) {
  let quiet;
  const source = new EventSource(url);
  const heard = () => {
    document.body.classList.remove("lost");
    clearTimeout(quiet);
    quiet = setTimeout(() => { document.body.classList.add("lost"); say(document.body.dataset.lost ?? ""); }, 12000);
  };
  for (const [name, f] of Object.entries(handlers)) source.addEventListener(name, (e) => { heard(); f(JSON.parse(e.data)); });
  source.onopen = heard;
  source.onerror = () => {
    document.body.classList.add("lost");
    say(document.body.dataset.lost ?? "");
    // The browser tries again by itself, but not after an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => { source.close(); listen(url, handlers); }, 2000);
  };
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
  const states = new Map([...document.querySelectorAll(".lane")].map((l) => [l.dataset.lane, l.dataset.state]));
  listen(document.body.dataset.live, {
    lane: unpressed(({ id, html }) => {
      const old = document.querySelector(`.lane[data-lane="${CSS.escape(id)}"]`);
      if (!old) { location.reload(); return; }
      replace(old, html);
      const state = document.querySelector(`.lane[data-lane="${CSS.escape(id)}"]`).dataset.state;
      if (state === "referred" && states.get(id) !== "referred") ring();
      states.set(id, state);
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
  let turning, spoken = "";
  // A prompt that cannot be heard (no loudspeaker, no permission) is one that is
  // read: the sign stands anyway.
  const speak = (lang, voice, volume) => {
    const a = new Audio("/assets/voice/" + lang + "-" + voice + ".opus");
    a.volume = Math.min(1, volume / 100);
    a.play().catch(() => {});
  };
  const turn = (list) => {
    let i = 0;
    const next = () => { list.forEach((e, k) => e.classList.toggle("now", k === i)); i = (i + 1) % list.length; };
    next();
    return setInterval(next, 3000);
  };
  if (tips?.children.length) { turn([...tips.children]); }
  const show = ({ sign, words, turn: inTurn, voice, volume }) => {
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
    const said = voice ? words[0].Lang + voice : "";
    if (said && said !== spoken) {
      speak(words[0].Lang, voice, volume);
      if (inTurn) words.slice(1).forEach((w, i) => setTimeout(() => { if (spoken === said) speak(w.Lang, voice, volume); }, 3000 * (i + 1)));
    }
    spoken = said;
  };
  listen(document.body.dataset.display, {
    sign: show,
    alive: (time) => { document.getElementById("clock").textContent = time; },
  });
}
