"use strict";
// The live page. All text goes in by textContent: names are other people's.

const AGAIN_SECONDS = 5;
const SILENT_SECONDS = 40; // the stream says something every 15 s at least

const byId = (id) => document.getElementById(id);
const words = {
  "": "Starting",
  idle: "Waiting for pictures",
  painting: "Painting",
  paused: "Paused",
  waiting: "Waits",
  stopping: "Stopping",
};

let source = null;
let heardAt = 0;
let lostAt = null;
let ended = null; // why the daemon said that it ends
let endedAt = null;
let timer = null;
let clockAhead = 0; // of the daemon's clock, in seconds

// Small things

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} days`;
}

function bytes(number) {
  return number >= 1e9 ? `${(number / 1e9).toFixed(1)} GB` : `${Math.round(number / 1e6)} MB`;
}

function clock(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

function ago(time) {
  const seconds = Date.now() / 1000 + clockAhead - time;
  return seconds < 45 ? "just now" : `${duration(seconds)} ago`;
}

/** Have a list hold one element an item, made once and changed in place, by key. */
function keep(list, items, key, make, change) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const name = String(key(item));
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
    }
    change(child, item);
    if (list.children[index] !== child) list.insertBefore(child, list.children[index] || null);
  });
  for (const child of old.values()) child.remove();
}

// What is at work

function makePiece() {
  const piece = element("article", "piece");
  const frame = element("div", "frame");
  frame.append(element("p", "placeholder", "The picture appears in a moment."));
  const caption = element("div", "caption");
  const title = element("h2");
  title.append(element("bdi", "content"), element("span", "style"));
  const bar = element("progress", "progress");
  const under = element("div", "under");
  under.append(element("p", "facts-line"), makeCurve());
  caption.append(title, bar, under);
  piece.append(frame, caption);
  return piece;
}

function makeCurve() {
  const curve = element("p", "losses", "loss");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  curve.append(svg);
  return curve;
}

/** Draw losses, on a logarithmic scale; what is before the first ten steps is cut off above. */
function drawCurve(curve, points, total) {
  curve.hidden = points.length < 2;
  if (curve.hidden) return;
  const logs = points.map(([, loss]) => Math.log10(Math.max(loss, 1e-12)));
  const low = Math.min(...logs);
  const high = Math.max(...logs.slice(1));
  const place = ([done], index) => {
    const x = (100 * done) / total;
    const y = 29 - (28 * (Math.min(logs[index], high) - low)) / (high - low || 1);
    return `${x.toFixed(2)},${y.toFixed(2)}`;
  };
  const svg = curve.lastChild;
  svg.firstChild.setAttribute("d", `M${points.map(place).join("L")}`);
  const first = points[0][1].toPrecision(3);
  const last = points[points.length - 1][1].toPrecision(3);
  svg.setAttribute("aria-label", `The loss went from ${first} to ${last}`);
}

/** Show a picture once it is there, so that nothing flickers, and none is smaller than its room. */
function hang(piece, address, alt) {
  if (piece.dataset.address === address) return;
  piece.dataset.address = address;
  const picture = new Image();
  picture.alt = alt;
  picture.onload = () => {
    if (piece.dataset.address !== address) return;
    piece.style.setProperty("--ratio", picture.naturalWidth / picture.naturalHeight);
    const frame = piece.querySelector(".frame");
    frame.classList.add("hung");
    frame.replaceChildren(picture);
  };
  picture.src = address;
}

function changePiece(piece, job) {
  const name = `${job.content} in ${job.style}`;
  if (job.picture) hang(piece, job.picture, `${name}, as it grows`);
  setText(piece.querySelector(".content"), job.content);
  setText(piece.querySelector(".style"), ` in ${job.style}`);
  const bar = piece.querySelector("progress");
  bar.max = job.iterations;
  bar.value = job.iteration;
  bar.setAttribute("aria-label", `Progress of ${name}`);
  const facts = [`${job.iteration} of ${counted(job.iterations, "step")}`];
  if (job.left_seconds !== null) facts.push(`about ${duration(job.left_seconds)} left`);
  facts.push(job.loss === null ? "no finite loss" : `loss ${job.loss.toPrecision(4)}`);
  if (job.worker) facts.push(`on ${job.worker}`);
  setText(piece.querySelector(".facts-line"), facts.join(" · "));
  drawCurve(piece.querySelector(".losses"), job.curve, job.iterations);
}

function makeLast() {
  const piece = element("article", "piece");
  const caption = element("div", "caption");
  const title = element("h2");
  title.append(element("bdi", "content"), element("span", "style"));
  caption.append(title, element("p", "facts-line"));
  piece.append(element("div", "frame"), caption);
  return piece;
}

function changeLast(piece, result) {
  const name = `${result.content} in ${result.style}`;
  hang(piece, `/thumbnail?job=${result.job}&large`, name);
  setText(piece.querySelector(".content"), result.content);
  setText(piece.querySelector(".style"), ` in ${result.style}`);
  setText(piece.querySelector(".facts-line"), `Painted ${ago(result.time)}`);
}

function makeEmpty() {
  const piece = element("article", "piece");
  const frame = element("div", "frame");
  frame.append(element("p", "placeholder", "Put pictures into the inbox: what is painted hangs here."));
  piece.append(frame);
  return piece;
}

function showWork(state) {
  const work = byId("work");
  const jobs = state.at_work.map((job) => ({ kind: "job", ...job }));
  const last = state.results.slice(0, 1).map((result) => ({ kind: "last", ...result }));
  const items = jobs.length ? jobs : last.length ? last : [{ kind: "empty" }];
  work.dataset.count = items.length > 1 ? "many" : "one";
  work.setAttribute("aria-label", jobs.length ? "At work" : "Painted last");
  const make = { job: makePiece, last: makeLast, empty: makeEmpty };
  const change = { job: changePiece, last: changeLast, empty: () => {} };
  keep(
    work,
    items,
    (item) => `${item.kind} ${item.number || item.job || ""}`,
    (item) => make[item.kind](),
    (piece, item) => change[item.kind](piece, item),
  );
}

// Results, failures, facts

function makeResult() {
  const item = element("li");
  const link = element("a");
  const frame = element("span", "thumb");
  const picture = element("img");
  picture.loading = "lazy";
  picture.alt = "";
  picture.addEventListener("error", () => picture.remove());
  frame.append(picture);
  const label = element("span", "label");
  label.append(element("bdi", "content"), element("span", "style"));
  link.append(frame, label);
  item.append(link);
  return item;
}

function changeResult(item, result) {
  const picture = item.querySelector("img");
  const address = `/thumbnail?job=${result.job}`;
  if (picture && picture.getAttribute("src") !== address) picture.src = address;
  item.querySelector("a").href = result.href;
  setText(item.querySelector(".content"), result.content);
  setText(item.querySelector(".style"), ` in ${result.style}`);
}

function showResults(results) {
  byId("latest").hidden = !results.length;
  keep(byId("strip"), results, (one) => one.job, makeResult, changeResult);
}

function makeFailure() {
  const item = element("li");
  item.append(element("p", "reason"), element("p", "where muted small"), element("code"));
  return item;
}

function changeFailure(item, failure) {
  setText(item.querySelector(".reason"), failure.reason);
  const where = failure.place ? `now at ${failure.place}` : "left where it is";
  setText(item.querySelector(".where"), `Failed ${ago(failure.time)}, ${where}. To try it again:`);
  setText(item.querySelector("code"), failure.retry);
}

function showFailures(state) {
  byId("failed").hidden = !state.failures.length;
  keep(byId("failures"), state.failures, (one) => one.source, makeFailure, changeFailure);
  const more = byId("more-failures");
  more.hidden = !state.more_failures;
  setText(more, `and ${state.more_failures} more before them; nst-pipeline status lists all.`);
  const reasons = [...state.waiting, ...(state.trouble ? [state.trouble] : [])];
  byId("waits").hidden = !reasons.length;
  keep(byId("waiting"), reasons, (one) => one, () => {
    const item = element("li");
    item.append(element("p"));
    return item;
  }, (item, reason) => setText(item.firstChild, reason));
}

function showFacts(state) {
  const room = `${bytes(state.free_bytes)} free`;
  const tight = state.free_bytes < state.min_free_bytes;
  const facts = [
    ["Done", counted(state.done, "picture")],
    ["Last hour", String(state.jobs_last_hour)],
    ["Failed", String(state.failed_jobs)],
    ["Disk", tight ? `${room}: too little, nothing is begun` : room],
  ];
  if (state.device) facts.push(["Painted on", state.device]);
  if (state.workers) facts.push(["Workers", state.workers]);
  if (state.since) facts.push(["Running for", duration(Date.now() / 1000 + clockAhead - state.since)]);
  keep(byId("facts"), facts, ([name]) => name, ([name]) => {
    const row = element("div");
    row.append(element("dt", "", name), element("dd"));
    return row;
  }, (row, [, text]) => setText(row.lastChild, text));
}

function showState(state) {
  let text = words[state.state] ?? state.state;
  if (state.state === "waiting") text = `Waits ${state.detail}`;
  if (state.state === "stopping") text = `Stopping: ${state.detail}`;
  if (state.paused && state.state !== "paused") text += " (pausing after this)";
  say(state.state, text);
  const queue = [state.queue ? `${counted(state.queue, "picture")} to paint` : "Nothing in the queue"];
  if (state.queue && state.left_seconds) queue.push(`about ${duration(state.left_seconds)}`);
  if (state.arriving) queue.push(`${counted(state.arriving, "file")} arriving`);
  setText(byId("queue"), queue.join(" · "));
  const left = state.at_work.length ? `${percent(state.at_work)} % · ` : "";
  document.title = `${left}${words[state.state] ?? state.state} – nst-pipeline`;
  notice(state.state === "paused" ? `Paused: nothing is begun. ${state.resume} goes on.` : "");
}

function percent(jobs) {
  const done = jobs.reduce((sum, job) => sum + job.iteration / job.iterations, 0);
  return Math.floor((100 * done) / jobs.length);
}

function say(kind, text) {
  byId("state").dataset.state = kind;
  setText(byId("state-text"), text);
}

function notice(text) {
  const node = byId("notice");
  setText(node, text);
  node.hidden = !text;
}

// The stream

function show(state) {
  if (state.unknown) {
    notice(state.unknown);
    return;
  }
  clockAhead = state.now - Date.now() / 1000;
  showState(state);
  showWork(state);
  showResults(state.results);
  showFailures(state);
  showFacts(state);
}

function tellLoss() {
  const since = clock(lostAt || endedAt);
  const again = "This page looks for it every few seconds, and goes on by itself.";
  const texts = {
    stopping: `The daemon was told to stop at ${since}. It ends the job at work if time allows; what is left stays in the queue.`,
    gone: `The daemon was told to stop at ${since}, and has ended. What was not done is still in the queue.`,
    stopped: `The daemon was stopped in good order at ${since}. What was not done is still in the queue.`,
    failed: `The daemon ended by itself at ${since}; its log says why.`,
    moved: `This page was moved or switched off at ${since}, by new settings; the daemon's log says where it is.`,
  };
  const lost = `The daemon has not answered since ${since}. It may have been killed, or the connection is broken.`;
  const head = ended === "moved" ? "Not here any more" : ended ? "Stopped" : "No connection";
  say("lost", head);
  document.title = `${head} – nst-pipeline`;
  document.body.classList.add("lost");
  notice(`${ended ? texts[ended] || texts.failed : lost} ${again}`);
}

function lose() {
  if (source) source.close();
  source = null;
  if (!ended) lostAt = lostAt || new Date();
  tellLoss();
  clearTimeout(timer);
  timer = setTimeout(connect, AGAIN_SECONDS * 1000);
}

function connect() {
  clearTimeout(timer);
  if (document.hidden) return;
  if (source) source.close();
  source = new EventSource("/events");
  heardAt = Date.now();
  source.addEventListener("state", (event) => {
    heardAt = Date.now();
    lostAt = ended = endedAt = null;
    document.body.classList.remove("lost");
    show(JSON.parse(event.data));
  });
  source.addEventListener("alive", () => { heardAt = Date.now(); });
  source.addEventListener("end", (event) => {
    const { why } = JSON.parse(event.data);
    if (!ended) endedAt = new Date();
    ended = why || "failed";
    lose();
  });
  source.onerror = () => {
    if (ended === "stopping") ended = "gone";
    lose();
  };
}

// A machine that slept, or a cable that was pulled, ends no stream.
setInterval(() => {
  if (source && Date.now() - heardAt > SILENT_SECONDS * 1000) lose();
}, 5000);

// Nobody looks at a hidden page: the daemon need not show it anything.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    if (!source) connect();
  } else if (source) {
    source.close();
    source = null;
  }
});
connect();
