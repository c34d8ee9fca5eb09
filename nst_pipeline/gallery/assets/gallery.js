"use strict";
// Draws the gallery from its data. Whatever was written by others, such as names, becomes text or
// an address, never markup. The data come as scripts, for a page from file:// may not fetch them.

const gallery = (() => {
  const site = JSON.parse(document.body.dataset.site);
  const $ = (id) => document.getElementById(id);
  const FILTERS = ["style", "content", "folder", "recipe", "run", "status", "from", "to", "q", "new"];
  const PAGE_PIECES = 500;
  const pages = new Map(), details = new Map(), asked = new Map();
  const recipes = site.recipes;
  let order = [], shown = null, isOpen = false;

  // Elements

  function el(name, properties = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in made && typeof value !== "string") made[key] = value;
      else if (value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  function svg(name, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // A long name may be broken where its parts meet, before it is broken anywhere.
  const breakable = (name) =>
    name.split(/(?<=[-_/ ])|(?=\.)/).flatMap((part, index) => (index ? [el("wbr"), part] : [part]));

  const address = (picture, side) => `pictures/${picture.slice(0, 2)}/${picture}-${side}.webp`;

  function image(picture, size, alt, isEager = false) {
    const [height, width, hasLarge] = size;
    const scale = Math.min(1, 480 / Math.max(height, width));
    const made = el("img", {
      alt, decoding: "async", width: Math.max(1, Math.round(width * scale)),
      height: Math.max(1, Math.round(height * scale)), loading: isEager ? "eager" : "lazy",
    });
    if (hasLarge) {
      const large = Math.round(width * Math.min(1, 1600 / Math.max(height, width)));
      made.sizes = "auto, 33vw";
      made.srcset = `${address(picture, 480)} ${made.width}w, ${address(picture, 1600)} ${large}w`;
    }
    made.src = address(picture, 480);
    return made;
  }

  function counted(number, noun) {
    return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  }

  const date = (seconds, timeStyle = "short") =>
    new Date(seconds * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle });

  function runName(run) {
    const part = run.match(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z/);
    return part ? date(Date.UTC(part[1], part[2] - 1, ...part.slice(3)) / 1000, "medium") : run;
  }

  // Data

  function load(file) {
    if (!asked.has(file)) {
      asked.set(file, new Promise((resolve, reject) => {
        const made = el("script", { src: file });
        made.onload = resolve;
        made.onerror = () => reject(new Error(`${file} is missing; "nst-pipeline gallery" makes it`));
        document.head.append(made);
      }));
    }
    return asked.get(file);
  }

  async function loadPage(number) {
    const { file, version } = site.pages[number - 1];
    await load(`${file}?${version}`);
    return pages.get(number);
  }

  async function loadAll() {
    await Promise.all(site.pages.map((_, index) => loadPage(index + 1)));
    return [...pages.keys()].sort((a, b) => b - a).flatMap((number) => pages.get(number));
  }

  async function loadDetails(content) {
    await load(`data/${content.id}.js?${site.pages[content.page - 1].version}`);
    return details.get(content.id);
  }

  function takePage({ number, contents }) {
    for (const content of contents) {
      content.page = number;
      for (const piece of content.pieces) piece.content = content;
    }
    pages.set(number, contents.reverse());
  }

  // What is wanted: all of it stands in the address, so that it can be kept, and gone back from

  const wanted = () => new URLSearchParams(location.hash.slice(1));
  const isFiltered = (want) => FILTERS.some((name) => want.get(name));

  function link(changes, isFresh = false) {
    const want = isFresh ? new URLSearchParams() : wanted();
    want.delete("piece");
    want.delete("page");
    for (const [name, value] of Object.entries(changes)) {
      if (value) want.set(name, value);
      else want.delete(name);
    }
    return `#${want}`;
  }

  function go(changes) {
    const target = link(changes);
    if (target !== location.hash) location.hash = target;
  }

  const inFolder = (content, folder) =>
    folder === "." ? !content.folder : `${content.folder}/`.startsWith(`${folder}/`);

  function text(piece) {
    const recipe = recipes[piece.recipe];
    return [
      piece.content.name, piece.content.folder, piece.style, recipe ? recipe.label : "",
      piece.reason || "", piece.status === "gone" ? "taken away" : piece.status,
    ].join("\n").toLowerCase();
  }

  function matches(piece, want) {
    const terms = (want.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const from = want.get("from"), to = want.get("to");
    return (
      ["style", "recipe", "run", "status"].every((n) => !want.get(n) || piece[n] === want.get(n)) &&
      (!want.get("content") || piece.content.id === want.get("content")) &&
      (!want.get("folder") || inFolder(piece.content, want.get("folder"))) &&
      (!from || piece.time >= new Date(`${from}T00:00`) / 1000) &&
      (!to || piece.time < new Date(`${to}T00:00`) / 1000 + 86400) &&
      (!want.get("new") || isNew(piece)) &&
      terms.every((term) => text(piece).includes(term))
    );
  }

  async function rowsOf(want) {
    const number = Number(want.get("page")) || 1;
    if (!isFiltered(want)) {
      const count = Math.max(1, site.pages.length), page = Math.min(Math.max(1, number), count);
      const contents = site.pages.length ? await loadPage(count + 1 - page) : [];
      return { rows: contents.map((c) => ({ content: c, pieces: c.pieces })), page, count };
    }
    const parts = [[]];
    let room = PAGE_PIECES, found = 0;
    for (const content of await loadAll()) {
      const pieces = content.pieces.filter((piece) => matches(piece, want));
      if (!pieces.length) continue;
      if (pieces.length > room && parts.at(-1).length) {
        parts.push([]);
        room = PAGE_PIECES;
      }
      parts.at(-1).push({ content, pieces });
      room -= pieces.length;
      found += pieces.length;
    }
    const page = Math.min(Math.max(1, number), parts.length);
    return { rows: parts[page - 1], page, count: parts.length, found };
  }

  // Since the last visit

  const visits = (() => {
    const name = `nst-gallery ${site.visits}`;
    try {
      const last = sessionStorage.getItem(name) ?? localStorage.getItem(name) ?? "";
      sessionStorage.setItem(name, last);
      localStorage.setItem(name, String(Date.now() / 1000));
      return Number(last);
    } catch {
      return 0; // a browser may keep nothing
    }
  })();
  const isNew = (piece) => visits > 0 && piece.time > visits;

  // The grid, and the walls of one style or one picture

  const title = (piece) =>
    piece.style ? `${piece.content.name} in ${piece.style}` : piece.content.name;

  function tile(piece, more = 0) {
    const made = el("a", { class: `tile ${piece.status}`, href: link({ piece: piece.id }) });
    made.dataset.piece = piece.id;
    if (piece.picture) made.append(image(piece.picture, piece.size, title(piece)));
    if (piece.status === "failed") {
      made.append(
        el("strong", {}, "Failed"), el("span", { class: "unseen" }, `: ${title(piece)}: `),
        el("span", { class: "reason" }, piece.reason || ""),
      );
    } else if (piece.status === "gone") {
      made.append(el("span", { class: "note" }, "taken away"));
    } else if (!piece.picture) {
      made.append(el("span", { class: "note" }, title(piece)));
    }
    if (isNew(piece)) made.append(el("span", { class: "dot" }, el("span", { class: "unseen" }, "new")));
    if (more) made.append(el("span", { class: "count" }, `+${more}`, el("span", { class: "unseen" }, " more of other recipes")));
    return made;
  }

  function head(style) {
    const made = el("a", { href: link({ style: style.name }) });
    if (style.painting) {
      made.append(image(style.painting, style.size, `The painting of the style ${style.name}`, true));
    }
    made.append(el("span", { class: "name" }, ...breakable(style.name)));
    return el("th", { scope: "col" }, made);
  }

  function label(content) {
    const made = el("a", { href: link({ content: content.id }) });
    if (content.photograph) {
      made.append(image(content.photograph, content.size, `The photograph ${content.name}`));
    }
    made.append(el("span", { class: "name" }, ...breakable(content.name)));
    if (content.folder) made.append(el("span", { class: "name muted" }, ...breakable(content.folder)));
    return el("th", { scope: "row" }, made);
  }

  // Where the columns have no room side by side, the grid scrolls in a frame of its own.
  const widths = new ResizeObserver(([{ target }]) => {
    const columns = Number(target.style.getPropertyValue("--columns"));
    const [label, column] = innerWidth < 576 ? [76, 104] : [Math.min(272, innerWidth * 0.12), 112];
    target.classList.toggle("many", label + columns * column > target.clientWidth);
  });

  function drawGrid(rows) {
    const used = new Set(rows.flatMap((row) => row.pieces.map((piece) => piece.style)));
    const styles = site.styles.filter((style) => used.has(style.name));
    const body = el("tbody");
    for (const { content, pieces } of rows) {
      const line = el("tr", {}, label(content));
      const broken = pieces.filter((piece) => !piece.style);
      if (broken.length) {
        line.append(el("td", { colspan: String(Math.max(1, styles.length)) }, ...broken.map((p) => tile(p))));
      } else {
        for (const style of styles) {
          const own = pieces.filter((piece) => piece.style === style.name);
          own.sort((a, b) => b.time - a.time);
          line.append(el("td", {}, own.length ? tile(own[0], own.length - 1) : ""));
          order.push(...own);
        }
      }
      order.push(...broken);
      body.append(line);
    }
    const table = el("table", { class: "grid" },
      el("caption", { class: "unseen" }, "Pictures by rows, styles by columns"),
      el("thead", {}, el("tr", {},
        el("td", {}, el("span", { class: "unseen" }, "Picture")), ...styles.map(head))),
      body);
    table.style.setProperty("--columns", styles.length);
    const frame = el("div", { class: "scroller", role: "region", "aria-label": "Pictures", tabindex: "0" }, table);
    frame.style.setProperty("--columns", styles.length);
    widths.observe(frame);
    return frame;
  }

  function drawWall(rows, caption, first) {
    const list = el("ul", { class: "wall" });
    const add = (content, size, name) => {
      const item = el("li", {}, content, el("p", { class: "small" }, name));
      item.style.setProperty("--ratio", size ? size[1] / size[0] : 1.5);
      list.append(item);
    };
    if (first) add(el("div", { class: "tile" }, image(first.picture, first.size, first.alt)), first.size, first.name);
    for (const piece of rows.flatMap((row) => row.pieces)) {
      order.push(piece);
      add(tile(piece), piece.size, caption(piece));
    }
    return list;
  }

  function drawRows(rows, want) {
    const style = site.styles.find((one) => one.name === want.get("style"));
    const content = want.get("content") && rows.length ? rows[0].content : null;
    const now = $("now");
    now.replaceChildren();
    now.hidden = !(style || content);
    if (now.hidden) return drawGrid(rows);
    const name = content ? content.name + (style ? ` in ${style.name}` : "") : style.name;
    now.append(
      el("a", { href: link({ style: "", content: "" }) }, "All pictures"),
      el("h2", {}, name),
      content && content.folder ? el("span", { class: "muted" }, content.folder) : "",
    );
    if (content) {
      const first = content.photograph &&
        { picture: content.photograph, size: content.size, alt: `The photograph ${content.name}`, name: "the photograph" };
      return drawWall(rows, (piece) => {
        const recipe = recipes[piece.recipe];
        return content.pieces.filter((one) => one.style === piece.style).length > 1 && recipe
          ? `${piece.style} · ${recipe.label}` : piece.style;
      }, first);
    }
    const first = style.painting &&
      { picture: style.painting, size: style.size, alt: `The painting of the style ${style.name}`, name: "the painting" };
    return drawWall(rows, (piece) => piece.content.name, first);
  }

  let drawn = "", turn = 0;

  async function draw() {
    const want = wanted(), mine = ++turn;
    showWanted(want);
    const key = String(new URLSearchParams([...want].filter(([name]) => name !== "piece")));
    if (key !== drawn || !$("grid").hasChildNodes()) {
      const { rows, page, count, found } = await rowsOf(want);
      if (mine !== turn) return;
      order = [];
      const made = drawRows(rows, want);
      $("told").textContent = !site.pages.length ? "Nothing has been painted yet."
        : found === undefined ? "" : found ? counted(found, "picture") : "Nothing is like that.";
      $("grid").replaceChildren(rows.length ? made : "");
      drawPages(page, count);
      if (drawn !== key && drawn !== "") scrollTo(0, 0);
      drawn = key;
    }
    await showPiece(want.get("piece"), mine);
  }

  function drawPages(page, count) {
    const nav = $("pages");
    nav.hidden = count < 2;
    const step = (number, name) => number >= 1 && number <= count
      ? el("a", { href: link({ page: number > 1 ? String(number) : "" }) }, name)
      : el("span", { class: "muted", "aria-hidden": "true" }, name);
    nav.replaceChildren(step(page - 1, "Newer"), el("span", {}, `${page} of ${count}`), step(page + 1, "Older"));
  }

  // Search and filters

  function showWanted(want) {
    if (document.activeElement !== $("search")) $("search").value = want.get("q") || "";
    for (const field of $("filters").elements) if (field.name) field.value = want.get(field.name) || "";
    const count = FILTERS.filter((n) => want.get(n) && n !== "q" && n !== "new").length;
    $("more").textContent = count ? `Filter (${count})` : "Filter";
    $("new").setAttribute("aria-pressed", String(Boolean(want.get("new"))));
  }

  function options(name, found) {
    const select = $("filters").elements[name];
    for (const [value, text] of found) select.append(el("option", { value }, text));
  }

  async function fillFilters() {
    options("style", site.styles.map((style) => [style.name, style.name]));
    options("recipe", Object.entries(recipes).map(([id, recipe]) => [id, recipe.label]));
    options("run", Object.keys(site.runs).map((run) => [run, runName(run)]));
    const all = await loadAll();
    options("content", all.map((content) => [content.id, content.folder ? `${content.folder}/${content.name}` : content.name]));
    options("folder", [...new Set(all.map((content) => content.folder))].sort().map((f) => [f || ".", f || "(no folder)"]));
    showWanted(wanted());
  }

  let filling = null;

  function toggleFilters(isShown) {
    $("filters").hidden = !isShown;
    $("more").setAttribute("aria-expanded", String(isShown));
    if (isShown) filling ??= fillFilters();
  }

  // One picture, large

  async function showPiece(id, mine) {
    const viewer = $("viewer");
    if (!id) {
      if (isOpen) {
        isOpen = false;
        viewer.close();
        const back = shown && document.querySelector(`[data-piece="${CSS.escape(shown.id)}"]`);
        if (back) back.focus();
      }
      return;
    }
    let piece = order.find((one) => one.id === id);
    if (!piece) {
      piece = (await loadAll()).flatMap((content) => content.pieces).find((one) => one.id === id);
      if (!piece || mine !== turn) return;
      if (!order.includes(piece)) order = [...piece.content.pieces];
    }
    shown = piece;
    viewer.replaceChildren(...drawViewer(piece));
    if (!isOpen) {
      isOpen = true;
      viewer.showModal();
    }
    viewer.querySelector(".stage").focus({ preventScroll: true });
    try {
      const found = await loadDetails(piece.content);
      if (shown === piece && mine === turn) drawDetails(piece, found);
    } catch (error) {
      viewer.querySelector(".facts").append(el("p", { class: "muted" }, error.message));
    }
  }

  const neighbour = (by, isSameStyle = false) => {
    const some = isSameStyle ? order.filter((one) => one.style === shown.style) : order;
    return some[some.indexOf(shown) + by];
  };

  function turnTo(piece) {
    if (!piece) return;
    const want = wanted();
    want.set("piece", piece.id);
    history.replaceState(null, "", `#${want}`);
    draw();
  }

  function close() {
    const want = wanted();
    want.delete("piece");
    history.replaceState(null, "", `#${want}`);
    draw();
  }

  function button(name, act, properties = {}) {
    const made = el("button", { type: "button", ...properties }, name);
    made.addEventListener("click", act);
    return made;
  }

  function drawViewer(piece) {
    const content = piece.content, [before, after] = [neighbour(-1), neighbour(1)];
    const bar = el("div", { class: "bar" },
      el("h2", { id: "viewer-title" }, title(piece)),
      el("div", { class: "steps" },
        button("‹", () => turnTo(before), { "aria-label": "Previous picture", disabled: !before }),
        button("›", () => turnTo(after), { "aria-label": "Next picture", disabled: !after }),
        button("×", close, { "aria-label": "Close" })));
    const stage = el("div", { class: "stage", tabindex: "0", role: "group", "aria-label": "The picture; arrow keys show others" });
    const controls = el("div", { class: "controls" });
    if (piece.picture) drawSlider(piece, content, stage, controls);
    else if (content.photograph) stage.append(framed(large(content.photograph, content.size, `The photograph ${content.name}`)));
    const size = (piece.picture ? piece.size : content.size) || [2, 3];
    stage.style.setProperty("--ratio", size[1] / size[0]);
    if (piece.status === "failed") controls.append(el("p", { class: "reason" }, piece.reason || "Failed"));
    if (piece.status === "gone") controls.append(el("p", { class: "muted" }, "The file was taken away; shown is the thumbnail that is left."));
    return [bar, el("div", { class: "picture" }, stage, controls), el("div", { class: "facts", tabindex: "0", role: "region", "aria-label": "How it was made" })];
  }

  function large(picture, size, alt) {
    return el("img", { alt, src: address(picture, size[2] ? 1600 : 480), draggable: "false" });
  }

  function framed(picture) {
    return el("div", { class: "frame" }, picture);
  }

  function drawSlider(piece, content, stage, controls) {
    const frame = framed(large(piece.picture, piece.size, title(piece)));
    stage.append(frame);
    if (!content.photograph) return;
    const photograph = large(content.photograph, content.size, `The photograph ${content.name}`);
    photograph.classList.add("before");
    frame.append(photograph, el("span", { class: "edge", "aria-hidden": "true" }));
    const range = el("input", { type: "range", min: "0", max: "100", value: "0", step: "0.5", "aria-label": "How much of the photograph is shown, in percent" });
    const move = (percent) => {
      range.value = String(percent);
      frame.style.setProperty("--shown", `${range.value}%`);
    };
    range.addEventListener("input", () => move(range.value));
    frame.addEventListener("pointerdown", (event) => {
      frame.setPointerCapture(event.pointerId);
      const follow = (moved) => {
        const box = frame.getBoundingClientRect();
        move(Math.min(100, Math.max(0, (100 * (moved.clientX - box.left)) / box.width)));
      };
      const end = () => frame.removeEventListener("pointermove", follow);
      follow(event);
      frame.addEventListener("pointermove", follow);
      frame.addEventListener("pointerup", end, { once: true });
      frame.addEventListener("pointercancel", end, { once: true });
    });
    move(0);
    controls.append(el("label", { class: "slider" }, el("span", {}, "Pastiche"), range, el("span", {}, "Photograph")));
  }

  function zoom(piece, known, pressed) {
    const stage = $("viewer").querySelector(".stage"), old = stage.querySelector(".zoom");
    const isOn = !old;
    pressed.setAttribute("aria-pressed", String(isOn));
    stage.classList.toggle("zoomed", isOn);
    if (old) {
      old.remove();
      return;
    }
    const picture = el("img", { alt: `${title(piece)}, pixel by pixel`, draggable: "false" });
    const frame = el("div", { class: "zoom", tabindex: "0" }, picture);
    const fit = () => {
      const dense = devicePixelRatio || 1, width = picture.naturalWidth, height = picture.naturalHeight;
      const factor = Math.max(1, Math.floor(Math.min((frame.clientWidth * dense) / width, (frame.clientHeight * dense) / height)));
      picture.style.width = `${(width * factor) / dense}px`;
      picture.classList.toggle("coarse", factor > 1);
      frame.scrollTo((frame.scrollWidth - frame.clientWidth) / 2, (frame.scrollHeight - frame.clientHeight) / 2);
    };
    picture.addEventListener("load", fit);
    picture.addEventListener("error", () => {
      pressed.after(el("p", { class: "muted small" }, "The browser cannot show this format; shown is the large thumbnail."));
      picture.src = address(piece.picture, piece.size[2] ? 1600 : 480);
    }, { once: true });
    picture.src = known.url || address(piece.picture, piece.size[2] ? 1600 : 480);
    frame.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse") return;
      frame.setPointerCapture(event.pointerId);
      const drag = (moved) => frame.scrollBy(-moved.movementX, -moved.movementY);
      frame.addEventListener("pointermove", drag);
      frame.addEventListener("pointerup", () => frame.removeEventListener("pointermove", drag), { once: true });
    });
    stage.append(frame);
    frame.focus();
  }

  // All that is known of it

  function drawDetails(piece, found) {
    const known = found.pieces[piece.id], made = known.made, viewer = $("viewer");
    const controls = viewer.querySelector(".controls"), facts = viewer.querySelector(".facts");
    if (piece.picture) {
      const press = button("Zoom to pixels", () => zoom(piece, known, press), { "aria-pressed": "false", class: "press" });
      controls.append(press);
    }
    if (known.animation) controls.append(making(known.animation, piece));
    const recipe = recipes[piece.recipe];
    const lines = [
      ["Finished", date(piece.time)],
      ["Size", made.size && `${made.size[1]} × ${made.size[0]} pixels`],
      ["Steps", made.iterations && `${made.iterations}${{ converged: ", converged", settled: ", settled", diverged: ", diverged" }[made.stop_reason] || ""}`],
      ["Seconds", made.seconds && made.seconds.toFixed(1)],
      ["Loss", made.losses && `${number(made.losses.start.total)} to ${number(made.losses.end.total)}`],
      ["Device", made.device && [made.device, made.precision].filter(Boolean).join(", ")],
      ["Weights", made.weights],
      ["Program", made.version && `nst-pipeline ${made.version}`],
      ["Copy of", made.duplicate_of],
    ].filter(([, value]) => value);
    facts.replaceChildren();
    if (piece.status === "failed") facts.append(block("Try it again", known.retry));
    facts.append(el("dl", {}, ...lines.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
    if (made.curve) facts.append(curve(made.curve));
    const links = el("p", { class: "links" });
    if (known.url) links.append(el("a", { href: known.url }, "The file"));
    if (site.runs[piece.run]) links.append(el("a", { href: `../manifests/${encodeURIComponent(piece.run)}.json` }, "Its manifest"));
    links.append(el("a", { href: link({ content: piece.content.id, style: "" }) }, "In all styles"));
    if (piece.style) links.append(el("a", { href: link({ style: piece.style, content: "" }) }, "All in this style"));
    facts.append(links);
    if (recipe) facts.append(block("Recipe", recipe.yaml));
    if (piece.status !== "failed") {
      facts.append(known.again ? block("Make it again", known.again)
        : el("p", { class: "muted small" }, "It cannot be made again: its photograph is not where it was."));
    }
    for (const note of made.notes || []) facts.append(el("p", { class: "muted small" }, note));
    facts.append(digests(piece, known, found));
  }

  const number = (value) => Number(value.toPrecision(3)).toLocaleString("en");

  function making(url, piece) {
    const press = button("The making", () => {
      const frame = $("viewer").querySelector(".frame"), old = frame.querySelector(".making");
      press.setAttribute("aria-pressed", String(!old));
      if (old) old.remove();
      else frame.append(el("img", { class: "making", src: url, alt: `${title(piece)} in the making` }));
    }, { "aria-pressed": "false", class: "press" });
    return press;
  }

  function digests(piece, known, found) {
    const lines = [
      ["Picture", known.sha256], ["Photograph", known.content_sha256],
      ["Style", known.made.style_sha256], ["Weights", known.made.weights_sha256], ["Job", known.key],
    ].filter(([, value]) => value);
    return el("details", {}, el("summary", {}, "Files and digests"),
      el("dl", { class: "long" },
        ...[["File", known.path], ["Photograph", found.path], ["Painting", known.made.style_path]]
          .filter(([, value]) => value)
          .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
        ...lines.map(([name, value]) => el("div", {}, el("dt", {}, `SHA-256, ${name.toLowerCase()}`), el("dd", {}, el("code", {}, value))))));
  }

  function block(name, text) {
    const code = el("pre", { tabindex: "0", role: "group", "aria-label": name }, text);
    const press = button("Copy", async () => {
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        getSelection().selectAllChildren(code); // without HTTPS there is no clipboard
        document.execCommand("copy");
      }
      press.textContent = "Copied";
      setTimeout(() => { press.textContent = "Copy"; }, 2000);
    }, { "aria-label": `Copy: ${name}` });
    return el("section", { class: "block" }, el("div", {}, el("h3", {}, name), press), code);
  }

  function curve(scales) {
    const [width, height] = [320, 88];
    const losses = scales.flatMap((scale) => scale.losses).filter((loss) => loss > 0);
    const last = scales.at(-1).steps.at(-1), [top, bottom] = [Math.max(...losses), Math.min(...losses)];
    const range = Math.log(top / bottom) || 1;
    const lines = scales.map(({ steps, losses }) => svg("polyline", {
      points: steps.map((step, index) =>
        `${((width * step) / last).toFixed(1)},${((height * Math.log(top / Math.max(losses[index], bottom))) / range).toFixed(1)}`).join(" "),
    }));
    const text = `${counted(scales.length, "scale")}: ` +
      scales.map(({ size, losses }) => `${size[1]} × ${size[0]}, ${number(losses[0])} to ${number(losses.at(-1))}`).join("; ");
    return el("figure", { class: "curve" },
      svg("svg", { viewBox: `-2 -4 ${width + 4} ${height + 8}`, role: "img", "aria-label": `The loss over ${last} steps, in ${text}` }, ...lines),
      el("figcaption", { class: "small muted" }, `Loss over ${counted(last, "step")}, in ${text}`));
  }

  // Keys

  function viewerKey(event) {
    if (event.target.matches("input, pre, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const isScrolling = event.target.matches(".zoom, .facts");
    const act = {
      ArrowLeft: () => turnTo(neighbour(-1)),
      ArrowRight: () => turnTo(neighbour(1)),
      ArrowUp: () => turnTo(neighbour(-1, true)),
      ArrowDown: () => turnTo(neighbour(1, true)),
      Home: () => turnTo(order[0]),
      End: () => turnTo(order.at(-1)),
      z: () => $("viewer").querySelector(".press")?.click(),
    }[event.key];
    if (!act || (isScrolling && event.key !== "z")) return;
    event.preventDefault();
    act();
  }

  function gridKey(event) {
    const here = event.target.closest?.(".tile[href]");
    if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
    const tiles = [...$("grid").querySelectorAll(".tile[href]")], cell = here.closest("td"), row = here.closest("tr");
    const across = { ArrowLeft: -1, ArrowRight: 1 }[event.key], down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    let next = across ? tiles[tiles.indexOf(here) + across] : undefined;
    if (down && row) {
      for (let line = row; (line = down > 0 ? line.nextElementSibling : line.previousElementSibling) && !next;) {
        next = line.cells[cell.cellIndex]?.querySelector(".tile");
      }
    } else if (down) {
      next = tiles[tiles.indexOf(here) + down];
    }
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  // Light and dark

  function setTheme(theme) {
    if (theme) document.documentElement.dataset.theme = theme;
  }

  function toggleTheme() {
    const isDark = (document.documentElement.dataset.theme ||
      (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    setTheme(isDark ? "light" : "dark");
    try {
      localStorage.setItem("nst-theme", document.documentElement.dataset.theme);
    } catch { /* a browser may keep nothing */ }
  }

  function begin() {
    try {
      setTheme(localStorage.getItem("nst-theme"));
    } catch { /* likewise */ }
    let wait = 0;
    $("search").addEventListener("input", (event) => {
      clearTimeout(wait);
      wait = setTimeout(() => go({ q: event.target.value.trim() }), 150);
    });
    const form = $("filters");
    form.addEventListener("change", (event) => go({ [event.target.name]: event.target.value }));
    form.addEventListener("reset", () => go(Object.fromEntries(FILTERS.map((name) => [name, ""]))));
    form.addEventListener("submit", (event) => event.preventDefault());
    $("more").addEventListener("click", () => toggleFilters($("filters").hidden));
    $("new").hidden = !(visits > 0 && site.newest > visits);
    $("new").textContent = "New";
    $("new").addEventListener("click", () => go({ new: wanted().get("new") ? "" : "1" }));
    $("theme").addEventListener("click", toggleTheme);
    $("viewer").addEventListener("cancel", (event) => { event.preventDefault(); close(); });
    $("viewer").addEventListener("keydown", viewerKey);
    $("grid").addEventListener("keydown", gridKey);
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !isOpen && !event.target.matches("input, select")) {
        event.preventDefault();
        $("search").focus();
      }
    });
    addEventListener("hashchange", draw);
    draw().catch((error) => { $("told").textContent = error.message; });
  }

  queueMicrotask(begin);
  return { page: takePage, content: (found) => details.set(found.id, found) };
})();
