// Downloads an export in pieces, says how far it is, and goes on by itself after a broken connection.
// Without script the page has a plain link.
"use strict";

(function () {
  const box = document.querySelector("[data-export]");
  if (!box || !window.fetch || !window.AbortController) return;
  const bar = box.querySelector("progress");
  const told = box.querySelector("[data-told]");
  const start = box.querySelector("[data-start]");
  const pause = box.querySelector("[data-pause]");
  const size = Number(box.dataset.piece);
  const parts = [];
  let at = 0;
  let total = null;
  let running = null; // the AbortController of the piece under way
  let tries = 0;
  let timer = 0;
  let saved = "";
  box.hidden = false;

  const amount = (bytes) => {
    const units = ["bytes", "KB", "MB", "GB", "TB"];
    let unit = 0;
    while (bytes >= 1000 && unit < units.length - 1) {
      bytes /= 1000;
      unit += 1;
    }
    return (unit ? bytes.toFixed(1) : bytes) + " " + units[unit];
  };
  const say = (text) => {
    told.textContent = text;
  };
  const label = (text) => {
    start.lastElementChild.textContent = text;
  };

  const show = (response) => {
    const done = Number(response.headers.get("X-Entries-Done"));
    const all = Number(response.headers.get("X-Entries-Total"));
    // By bytes where their number is known, else by entries, never backwards.
    const share = total ? at / total : all ? Math.min(done / all, 0.99) : 0;
    bar.value = Math.max(bar.value, share);
    say(amount(at) + (total ? " of " + amount(total) : all ? ", about " + Math.round(bar.value * 100) + " %" : ""));
  };

  const finish = () => {
    bar.value = 1;
    running = null;
    pause.hidden = true;
    const file = new Blob(parts, { type: parts.length ? parts[0].type : "" });
    if (saved) URL.revokeObjectURL(saved);
    saved = URL.createObjectURL(file);
    const link = document.createElement("a");
    link.href = saved;
    link.download = box.dataset.name;
    document.body.append(link);
    link.click();
    link.remove();
    start.hidden = false;
    label("Save again");
    say("Complete: " + amount(at) + ", saved as " + box.dataset.name);
  };

  const stop = (text, again) => {
    running = null;
    pause.hidden = true;
    start.hidden = false;
    label(again);
    say(text);
  };

  // A stop that waiting may heal.
  const later = () => {
    tries += 1;
    const seconds = Math.min(2 ** (tries - 1), 30);
    say("The connection broke at " + amount(at) + ". It goes on in " + seconds + " s.");
    running = null;
    timer = window.setTimeout(next, seconds * 1000);
  };

  const range = (response) => {
    const found = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers.get("Content-Range") || "");
    return found && { first: Number(found[1]), last: Number(found[2]), all: found[3] === "*" ? null : Number(found[3]) };
  };

  const next = async () => {
    if (total !== null && at >= total) return finish();
    const mine = new AbortController();
    running = mine;
    let response;
    try {
      response = await fetch(box.dataset.export, {
        headers: { Range: "bytes=" + at + "-" + (at + size - 1) },
        signal: mine.signal,
        cache: "no-store",
      });
      if (response.status === 206) {
        const told = range(response);
        const piece = await response.blob();
        if (running !== mine) return;
        if (!told || told.first !== at || piece.size !== told.last - told.first + 1) return later();
        parts.push(piece);
        at += piece.size;
        if (told.all !== null) total = told.all;
        tries = 0;
        show(response);
        return next();
      }
    } catch (error) {
      if (running === mine) later();
      return;
    }
    if (running !== mine) return;
    if (response.status === 416) {
      // Nothing comes after what is here.
      total = at;
      return finish();
    }
    if (response.redirected || response.status === 401) return stop("You are signed out. Sign in again in another tab, then go on here.", "Go on");
    if (response.status >= 500 || response.status === 429) return later();
    if (response.status === 409) return stop("The log or the console changed so that these bytes can't be made again. Make a new export.", "Try again");
    stop("The server refused: " + response.status + ".", "Try again");
  };

  start.addEventListener("click", () => {
    if (total !== null && at >= total) return finish();
    start.hidden = true;
    pause.hidden = false;
    pause.focus();
    tries = 0;
    say("Starting");
    next();
  });
  pause.addEventListener("click", () => {
    window.clearTimeout(timer);
    const was = running;
    running = null;
    if (was) was.abort();
    stop("Paused at " + amount(at), "Go on");
    start.focus();
  });
})();
