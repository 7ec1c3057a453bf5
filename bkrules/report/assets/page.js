"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const page = JSON.parse(byId("facts").textContent);
  const cells = page.cells;
  const blocks = [...document.querySelectorAll("script.block")];
  const MARKS = { passed: "✓", flaky: "≈", failed: "✗", "timed out": "⏱", skipped: "–", "not run": "∅" };
  const WORST = ["failed", "timed out", "not run", "flaky", "skipped", "passed"];
  const BAD = new Set(["failed", "timed out"]);
  const SMALL_ABOVE = 300, MAP_ABOVE = 2000, ROWS_AT_ONCE = 300, LINES_AT_ONCE = 1000, MOST_SPANS = 4000;
  const ROWS_TOGETHER = 50, ROW_HEIGHT = 29;

  // Everything in the page is text of others: it becomes text nodes and properties, and never markup.
  function h(tag, properties, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "class") node.className = value;
      else if (name in node && !name.startsWith("aria") && name !== "list") node[name] = value;
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }
  const SVG = "http://www.w3.org/2000/svg";
  function s(tag, attributes, ...children) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const slug = (status) => status.replace(/ /g, "-");
  const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
  const span = (seconds) => {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
    return seconds < 60 ? `${seconds.toFixed(2)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  };
  const bytes = (count) => {
    const units = ["B", "KB", "MB", "GB"];
    let unit = 0;
    while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
    return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
  };
  // A long name may break at its slashes.
  const broken = (name) => name.split(/(?<=\/)/).flatMap((part) => [part, document.createElement("wbr")]);
  const opener = (cell) => h("button", { type: "button", class: "link", "data-cell": cell.number, "aria-label": cell.name }, broken(cell.name));
  const distinct = (values) => [...new Set(values)];

  // Dimensions: what tells cells apart, and what filters and grids can use.
  const axes = distinct(cells.flatMap((cell) => Object.keys(cell.axes)));
  const label = (cell) => page.matrices[cell.matrix].label;
  const dimensions = new Map();
  const addDimension = (name, title, of) => {
    const values = distinct(cells.map(of).filter((value) => value !== ""));
    if (values.length) dimensions.set(name, { title, of, values });
  };
  addDimension("matrix", page.kind === "junit" ? "suite" : "matrix", label);
  addDimension("test", "test", (cell) => cell.test);
  addDimension("worker", "worker", (cell) => cell.worker);
  for (const axis of axes) addDimension(`axis.${axis}`, axis, (cell) => cell.axes[axis] ?? "");
  addDimension("status", "status", (cell) => cell.status);
  addDimension("class", "class", (cell) => cell.class || "");
  addDimension("cached", "cached", (cell) => (cell.cached ? "cached" : "ran or skipped"));
  const choosable = [...dimensions].filter(([name, { values }]) => name !== "test" && values.length > 1);
  const isAxis = (name) => name === "worker" || name.startsWith("axis.");

  cells.forEach((cell, number) => {
    cell.number = number;
    const parts = [label(cell), cell.name, cell.status, cell.class, cell.reason, cell.cached ? "cached" : ""];
    cell.text = parts.filter(Boolean).join("\n").toLowerCase();
  });
  const columnsDefault = dimensions.has("worker") ? "worker" : (choosable.find(([name]) => isAxis(name)) || [""])[0];
  const rowKey = (cell, columns, group) => {
    const parts = [];
    for (const [name, { of, title }] of dimensions) {
      if (name === columns || name === group || ["status", "class", "cached"].includes(name)) continue;
      if (name === "matrix" && page.matrices.length === 1) continue;
      const value = of(cell);
      if (value !== "") parts.push(name.startsWith("axis.") || name === "worker" ? `${title}=${value}` : value);
    }
    if (cell.run) parts.push(`run ${cell.run[0]} of ${cell.run[1]}`);
    return parts.join(" / ");
  };
  const tests = dimensions.get("test");
  const defaults = {
    q: "",
    logs: "",  // not empty: words are looked for in logs too
    view: cells.length > MAP_ABOVE ? "map" : "grid",
    columns: columnsDefault,
    group: cells.length > 40 && tests && tests.values.length > 1 && tests.values.length < cells.length / 3 ? "test"
      : page.matrices.length > 1 ? "matrix" : "",
    sort: "",
    cell: "",
  };
  const state = { ...defaults };

  // The state of the page is its address, so that a link shows what its sender saw.
  function readAddress() {
    Object.assign(state, defaults);
    for (const name of dimensions.keys()) delete state[name];
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      if (name in defaults || dimensions.has(name)) state[name] = value;
    }
    if (!VIEWS[state.view]) state.view = defaults.view;
    if (state.columns && !dimensions.has(state.columns)) state.columns = columnsDefault;
    if (state.group && !dimensions.has(state.group)) state.group = "";
  }
  function writeAddress() {
    const words = new URLSearchParams();
    for (const [name, value] of Object.entries(state)) {
      if (value !== (defaults[name] ?? "")) words.set(name, value);
    }
    const text = words.toString();
    // A page in a frame or an archive may not change its address; the page works without.
    try { history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search); } catch { return; }
  }

  const words = () => state.q.toLowerCase().split(/\s+/).filter(Boolean).map((word) =>
    (word.startsWith("-") && word.length > 1 ? { text: word.slice(1), out: true } : { text: word, out: false }));
  const has = (cell, word) => cell.text.includes(word) || Boolean(state.logs && inLogs.get(word)?.has(cell));
  function selected() {
    const sought = words();
    const wanted = [...dimensions].filter(([name]) => state[name]);
    return cells.filter((cell) =>
      wanted.every(([name, { of }]) => of(cell) === state[name]) &&
      sought.every(({ text, out }) => has(cell, text) !== out));
  }

  // Logs are read when a reader looks for a word in them: block after block, and each word once.
  const inLogs = new Map();  // the cells whose logs have a word
  let reading = 0;
  async function lookInLogs() {
    const mine = reading += 1, sought = distinct(words().map(({ text }) => text)).filter((text) => !inLogs.has(text));
    if (!state.logs || !sought.length) return;
    await new Promise((done) => setTimeout(done, 200));  // the reader may be typing
    const found = new Map(sought.map((text) => [text, new Set()]));
    const byBlock = grouped(cells.filter((cell) => cell.block), (cell) => cell.block[0]);
    for (const [number, members] of byBlock) {
      if (mine !== reading) return;
      live.textContent = `Reading the logs: ${number + 1} of ${plural(byBlock.size, "part")}`;
      const details = await blockOf(number);
      for (const cell of members) {
        const { lines, logs } = details[cell.block[1]];
        const text = [...lines.map((line) => line[2]), ...Object.values(logs)].join("\n").toLowerCase();
        for (const [word, having] of found) if (text.includes(word)) having.add(cell);
      }
    }
    if (mine !== reading) return;
    for (const [word, having] of found) inLogs.set(word, having);
    show();
  }

  // Controls
  const results = byId("results");
  const live = h("p", { class: "live", role: "status", "aria-live": "polite" });
  const body = h("div", { class: "view", onclick: (event) => openAt(event) });
  const search = h("input", {
    type: "search", id: "q", placeholder: "name, reason, class; -word leaves out", autocomplete: "off", spellcheck: false,
    oninput: () => change({ q: search.value }),
  });
  const inLogsToo = h("input", { type: "checkbox", id: "logs", onchange: () => change({ logs: inLogsToo.checked ? "too" : "" }) });
  const selects = new Map();
  function select(name, title, options, onchange) {
    const node = h("select", { id: `by-${name}`, onchange: () => onchange(node.value) },
      options.map(([value, text]) => h("option", { value }, text)));
    selects.set(name, node);
    return h("label", { class: "field" }, h("span", {}, title), node);
  }
  const tabs = new Map();
  let redraw = 0;
  function change(changes) {
    Object.assign(state, changes);
    writeAddress();
    cancelAnimationFrame(redraw);
    redraw = requestAnimationFrame(show);
    if ("q" in changes || "logs" in changes) lookInLogs();
  }

  function controls() {
    const filters = choosable.map(([name, { title, values }]) =>
      select(name, title, [["", "all"], ...values.map((value) => [value, value])], (value) => change({ [name]: value })));
    const layout = [
      select("columns", "columns", [...choosable.filter(([name]) => isAxis(name)).map(([name, { title }]) => [name, title]), ["", "none"]],
        (value) => change({ columns: value })),
      select("group", "group by", [["", "nothing"], ...[...dimensions].filter(([, { values }]) => values.length > 1)
        .map(([name, { title }]) => [name, title])], (value) => change({ group: value })),
    ];
    const bar = h("div", { role: "tablist", "aria-label": "views", class: "tabs", onkeydown: tabKeys });
    for (const [name, view] of Object.entries(VIEWS)) {
      if (view.when && !view.when()) continue;
      const tab = h("button", {
        type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", onclick: () => change({ view: name }),
      }, view.title);
      tabs.set(name, tab);
      bar.append(tab);
    }
    body.id = "panel";
    body.setAttribute("role", "tabpanel");
    results.append(
      h("form", { class: "controls", role: "search", "aria-label": "filters", onsubmit: (event) => event.preventDefault() },
        h("label", { class: "field wide" }, h("span", {}, "find"), search),
        blocks.length ? h("label", { class: "field" }, h("span", {}, "in logs too"), inLogsToo) : null, filters,
        h("button", { type: "reset", class: "plain", onclick: clear }, "clear")),
      h("div", { class: "bar" }, bar, h("div", { class: "layout" }, layout)), live, body);
  }
  function clear(event) {
    if (event) event.preventDefault();
    change({ ...Object.fromEntries([...dimensions.keys()].map((name) => [name, ""])), q: "" });
    search.focus();
  }
  function tabKeys(event) {
    const names = [...tabs.keys()], step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = names[(names.indexOf(state.view) + step + names.length) % names.length];
    change({ view: next });
    tabs.get(next).focus();
  }

  function show() {
    const found = selected();
    if (search.value !== state.q) search.value = state.q;
    inLogsToo.checked = state.logs !== "";
    for (const [name, node] of selects) node.value = state[name] ?? "";
    for (const [name, tab] of tabs) {
      tab.setAttribute("aria-selected", String(name === state.view));
      tab.tabIndex = name === state.view ? 0 : -1;
    }
    body.setAttribute("aria-labelledby", `tab-${state.view}`);
    document.body.dataset.view = state.view;
    const counts = count(found);
    const shown = found.length === cells.length ? plural(found.length, "cell") : `${found.length} of ${plural(cells.length, "cell")}`;
    live.textContent = found.length ? `${shown}: ${WORST.filter((one) => counts[one]).map((one) => `${counts[one]} ${one}`).join(", ")}`
      : "No cell matches these filters.";
    body.replaceChildren();
    finish = () => {};
    order = state.view === "list" ? sorted(found) : found;
    if (found.length) VIEWS[state.view].draw(order);
  }
  let order = [];  // the cells that are shown, in the order of the view
  function count(some) {
    const counts = {};
    for (const cell of some) counts[cell.status] = (counts[cell.status] || 0) + 1;
    return counts;
  }
  function grouped(some, of) {
    const groups = new Map();
    for (const cell of some) {
      const name = of(cell);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(cell);
    }
    return groups;
  }
  const ofGroup = () => (state.group ? dimensions.get(state.group).of : () => "");
  function tally(some) {
    const counts = count(some);
    return h("span", { class: "tally" }, WORST.filter((one) => counts[one]).map((one) =>
      h("span", { class: `mark ${slug(one)}`, title: one }, `${MARKS[one]} ${counts[one]}`)));
  }
  function spoken(cell) {
    const words = [cell.name, cell.status, cell.cached ? "cached" : "", cell.class && cell.class !== "test" ? cell.class : "",
      cell.attempts.length > 1 ? plural(cell.attempts.length, "attempt") : "", cell.cached || !cell.seconds ? "" : span(cell.seconds)];
    return words.filter(Boolean).join(", ");
  }
  function isSmall(found) { return found.length > SMALL_ABOVE; }

  // The grid: one focusable cell at a time, arrows between them.
  function drawGrid(found) {
    const columns = state.columns ? distinct(found.map(dimensions.get(state.columns).of)) : [""];
    const order = state.columns ? dimensions.get(state.columns).values : [""];
    columns.sort((left, right) => order.indexOf(left) - order.indexOf(right));
    const small = isSmall(found);
    const head = h("tr", {}, h("th", { scope: "col", class: "corner" }, state.columns ? `test \\ ${dimensions.get(state.columns).title}` : "test"),
      columns.map((name) => h("th", { scope: "col", title: name }, name || "cells")));
    const table = h("table", {
      class: `grid${small ? " small" : ""}`, role: "grid", "aria-label": "cells", "aria-readonly": "true",
      onkeydown: gridKeys,
    }, h("thead", {}, head));
    body.append(h("div", { class: "scroll" }, table));
    const jobs = [];
    for (const [group, members] of grouped(found, ofGroup())) {
      const part = h("tbody", {});
      table.append(part);
      if (state.group) {
        const toggle = h("button", {
          type: "button", class: "fold", "aria-expanded": "true",
          onclick: () => {
            const open = toggle.getAttribute("aria-expanded") === "false";
            toggle.setAttribute("aria-expanded", String(open));
            part.classList.toggle("folded", !open);
          },
        }, group || "none");
        part.append(h("tr", { class: "group" }, h("th", { scope: "rowgroup", colSpan: columns.length + 1 }, toggle, tally(members))));
      }
      for (const [row, inRow] of grouped(members, (cell) => rowKey(cell, state.columns, state.group))) {
        jobs.push(() => {
          const byColumn = grouped(inRow, state.columns ? dimensions.get(state.columns).of : () => "");
          part.append(h("tr", {}, h("th", { scope: "row", title: row }, row || (state.group && group) || "cells"),
            columns.map((name) => tableCells(byColumn.get(name) || [], small))));
        });
      }
    }
    inPieces(jobs, ROWS_AT_ONCE, () => {
      const first = table.querySelector("td[data-cell]");
      if (first && !table.querySelector('td[tabindex="0"]')) first.tabIndex = 0;
    });
  }
  function tableCells(some, small) {
    if (some.length === 0) return h("td", { class: "none", role: "gridcell", "aria-label": "no cell" });
    const worst = some.reduce((left, right) => (WORST.indexOf(left.status) <= WORST.indexOf(right.status) ? left : right));
    const td = h("td", { class: slug(worst.status) + (worst.cached ? " cached" : ""), role: "gridcell", tabIndex: -1 });
    td.dataset.cell = worst.number;
    td.setAttribute("aria-label", spoken(worst));
    td.title = worst.reason ? `${worst.name}\n${worst.reason.slice(0, 300)}` : worst.name;
    td.textContent = small ? MARKS[worst.status] : written(worst);
    return td;
  }
  function written(cell) {
    const mark = `${MARKS[cell.status]} `;
    if (cell.status === "passed") return mark + (cell.cached ? "cached" : span(cell.seconds));
    if (cell.cached) return `${mark}${cell.status} (cached)`;
    return mark + cell.status + (cell.attempts.length > 1 ? ` ×${cell.attempts.length}` : "");
  }
  // What is in view first; `finish` does the rest at once, for paper.
  let finish = () => {};
  function inPieces(jobs, atOnce, done) {
    let next = 0;
    const work = (most) => {
      const end = Math.min(jobs.length, next + most);
      while (next < end) jobs[next++]();
      done();
    };
    const mine = finish = () => work(jobs.length);
    const step = () => {
      if (mine !== finish) return;
      work(atOnce);
      if (next < jobs.length) setTimeout(step);
    };
    step();
  }
  const openAt = (event) => {
    const at = event.target.closest("[data-cell]");
    if (at) openCell(Number(at.dataset.cell));
  };
  function focusOn(node) {
    const grid = node.closest("[role=grid]");
    if (grid) {
      grid.querySelectorAll('[tabindex="0"]').forEach((one) => { one.tabIndex = -1; });
      node.tabIndex = 0;
    }
    node.focus();
  }
  function gridKeys(event) {
    const at = event.target.closest("td[data-cell]");
    if (!at) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      openCell(Number(at.dataset.cell));
      return;
    }
    const line = [...at.parentNode.children].filter((one) => one.dataset.cell !== undefined);
    let to = null;
    if (event.key === "ArrowRight") to = line[line.indexOf(at) + 1];
    else if (event.key === "ArrowLeft") to = line[line.indexOf(at) - 1];
    else if (event.key === "Home") to = line[0];
    else if (event.key === "End") to = line[line.length - 1];
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const rows = [...at.closest("table").querySelectorAll("tbody:not(.folded) tr:not(.group)")];
      const step = event.key === "ArrowDown" ? 1 : -1, column = at.cellIndex;
      for (let place = rows.indexOf(at.parentNode) + step; rows[place] && !to; place += step) {
        const there = rows[place].children[column];
        if (there && there.dataset.cell !== undefined) to = there;
      }
    } else return;
    event.preventDefault();
    if (to) focusOn(to);
  }

  // The map: a square for each cell, all of them on a screen or two.
  function drawMap(found) {
    const of = state.group ? ofGroup() : columnsDefault ? dimensions.get(columnsDefault).of : () => "";
    for (const [group, members] of grouped(found, of)) {
      const box = h("div", { class: "squares", role: "grid", "aria-label": group || "cells", onkeydown: mapKeys });
      const row = h("div", { role: "row" });
      box.append(row);
      for (const cell of members) {
        const square = document.createElement("span");
        square.className = `square ${slug(cell.status)}${cell.cached ? " cached" : ""}`;
        square.setAttribute("role", "gridcell");
        square.setAttribute("aria-label", spoken(cell));
        square.title = cell.name;
        square.dataset.cell = cell.number;
        if (cell.status !== "passed") square.textContent = MARKS[cell.status];
        row.append(square);
      }
      row.firstChild.tabIndex = 0;
      body.append(h("section", { class: "area" }, h("h2", {}, group || "cells", " ", tally(members)), box));
    }
  }
  function mapKeys(event) {
    const at = event.target.closest("[data-cell]");
    if (!at) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      openCell(Number(at.dataset.cell));
      return;
    }
    let to = null;
    if (event.key === "ArrowRight") to = at.nextSibling;
    else if (event.key === "ArrowLeft") to = at.previousSibling;
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const side = event.key === "ArrowDown" ? "nextSibling" : "previousSibling";
      for (to = at[side]; to && !(to.offsetLeft === at.offsetLeft && to.offsetTop !== at.offsetTop); to = to[side]);
    } else return;
    event.preventDefault();
    if (to) focusOn(to);
  }

  // Failures: those that are alike as one block, as in bk's summary.
  function drawFailures(found) {
    const bad = found.filter((cell) => BAD.has(cell.status) || cell.status === "flaky" || cell.status === "not run");
    if (!bad.length) { body.append(h("p", { class: "empty" }, "Nothing failed among these cells.")); return; }
    const alike = grouped(bad, (cell) => [cell.status, cell.class, cell.attempts.length, cell.reason].join("\n"));
    for (const members of alike.values()) {
      const [first] = members;
      const facts = [first.status, first.class && first.class !== "test" ? first.class : "", plural(members.length, "cell"),
        first.attempts.length > 1 ? plural(first.attempts.length, "attempt") : ""];
      const only = blame(members);
      body.append(h("section", { class: `failure ${slug(first.status)}` },
        h("h2", {}, h("span", { class: `badge ${slug(first.status)}` }, `${MARKS[first.status]} ${facts.filter(Boolean).join(", ")}`)),
        h("pre", { class: "reason" }, first.reason || "no reason is recorded"),
        only ? h("p", {}, "Only with ", h("strong", {}, only), "; all other cells of these tests passed.") : null,
        h("ul", { class: "names" }, members.slice(0, 30).map((cell) =>
          h("li", {}, opener(cell))),
        members.length > 30 ? h("li", {}, `and ${members.length - 30} more`) : null)));
    }
  }
  function blame(members) {
    const set = new Set(members), testsOf = new Set(members.map((cell) => cell.test));
    const others = cells.filter((cell) => testsOf.has(cell.test) && !set.has(cell) && !["skipped", "not run"].includes(cell.status));
    if (!others.length || others.some((cell) => BAD.has(cell.status))) return "";
    for (const [name, { of, title }] of dimensions) {
      if (!isAxis(name)) continue;
      const own = distinct(members.map(of));
      if (own.length === 1 && own[0] && others.every((cell) => of(cell) !== own[0])) return `${title}=${own[0]}`;
    }
    return "";
  }

  // The list: all rows are there, for the keyboard, the browser's search and paper; the browser lays out those in view alone.
  const SORTS = {
    name: { of: (cell) => cell.name, order: "ascending" },
    status: { of: (cell) => WORST.indexOf(cell.status), order: "ascending" },
    seconds: { of: (cell) => -(cell.seconds || 0), order: "descending" },
    attempts: { of: (cell) => -cell.attempts.length, order: "descending" },
  };
  function sorted(found) {
    const of = SORTS[state.sort]?.of;
    return of ? [...found].sort((left, right) => (of(left) < of(right) ? -1 : of(left) > of(right) ? 1 : 0)) : found;
  }
  const hasEarlier = cells.some((cell) => cell.earlier?.length);
  const COLUMNS = [["name", "cell"], ["status", "status"], ["seconds", "time"], ["last", "recorded"], ["attempts", "attempts"],
    ...(hasEarlier ? [["earlier", "earlier runs"]] : []), ["why", "why it ran, or did not"]];
  function drawList(found) {
    const heads = COLUMNS.map(([name, title]) => h("div", { role: "columnheader", "aria-sort": SORTS[name] ? (state.sort === name ? SORTS[name].order : "none") : null },
      SORTS[name] ? h("button", { type: "button", class: "link", onclick: () => change({ sort: state.sort === name ? "" : name }) }, title) : title));
    const table = h("div", { class: `cells${hasEarlier ? " with-earlier" : ""}`, role: "table", "aria-label": "cells", "aria-rowcount": found.length + 1, onkeydown: listKeys },
      h("div", { class: "heads", role: "rowgroup" }, h("div", { role: "row", "aria-rowindex": 1 }, heads)));
    body.append(table);
    const parts = [];
    for (let at = 0; at < found.length; at += ROWS_TOGETHER) {
      const rows = found.slice(at, at + ROWS_TOGETHER);
      parts.push(() => {
        const part = h("div", { class: "part-of-rows", role: "rowgroup" }, rows.map((cell, place) => listRow(cell, at + place + 2)));
        part.style.containIntrinsicSize = `auto ${rows.length * ROW_HEIGHT}px`;
        table.append(part);
      });
    }
    inPieces(parts, ROWS_AT_ONCE / ROWS_TOGETHER, () => {});
  }
  function listRow(cell, index) {
    const field = (title, ...children) => h("div", { role: "cell", "data-title": title }, ...children);
    return h("div", { role: "row", "aria-rowindex": index }, h("div", { role: "rowheader" }, opener(cell)),
      field(null, badge(cell.status), cell.cached ? " cached" : null), field(null, span(cell.seconds)), field("recorded", cell.last ? span(cell.last) : null),
      field("attempts", cell.attempts.length || null), hasEarlier ? field(null, earlier(cell) || null) : null, field(null, explained(cell)));
  }
  const badge = (status) => h("span", { class: `mark ${slug(status)}` }, `${MARKS[status] || ""} ${status}`);
  function listKeys(event) {
    if (!["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key) || !event.target.closest("[data-cell]")) return;
    const all = [...event.currentTarget.querySelectorAll("[data-cell]")], at = all.indexOf(event.target.closest("[data-cell]"));
    event.preventDefault();
    all[{ ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key]]?.focus();
  }
  // Earlier runs, the oldest first: a mark and a bar for each, as high as its time.
  function earlier(cell) {
    const runs = [...(cell.earlier || []), ...(cell.cached || !cell.seconds ? [] : [[cell.status, cell.seconds]])];
    if (!(cell.earlier || []).length) return "";
    const most = Math.max(...runs.map((run) => run[1] || 0), 1e-9);
    const spoke = runs.map(([status, seconds]) => `${status} ${span(seconds)}`).join(", ");
    return s("svg", { class: "runs", viewBox: `0 0 ${runs.length * 9} 20`, width: runs.length * 9, height: 20, role: "img", "aria-label": spoke },
      s("title", {}, spoke), ...runs.map(([status, seconds], at) => s("rect", {
        x: at * 9, width: 7, height: Math.max(((seconds || 0) / most) * 19, 2), y: 20 - Math.max(((seconds || 0) / most) * 19, 2), class: `run-${slug(status)}`,
      })));
  }
  function explained(cell) {
    const leaf = cell.leaf;
    return leaf ? `${cell.why || ""}: ${leaf.name}${leaf.more ? ` and ${leaf.more} more` : ""}` : cell.why || "";
  }

  // Charts: bars with their numbers as text, so that they read without eyes too.
  function bars(rows, shown) {
    const most = Math.max(...rows.map((row) => row.value), 1e-9);
    return h("table", { class: "bars" }, h("tbody", {}, rows.map((row) => h("tr", {},
      h("th", { scope: "row" }, row.cell ? opener(row.cell) : broken(row.name)),
      h("td", { class: "track" }, bar(row, most)), h("td", { class: "number" }, shown(row.value), row.note ? h("span", { class: "note" }, ` ${row.note}`) : null)))));
  }
  function bar(row, most) {
    const width = 1000, picture = s("svg", { viewBox: `0 0 ${width} 14`, preserveAspectRatio: "none", "aria-hidden": "true" });
    let at = 0;
    for (const [kind, value] of row.parts || [["all", row.value]]) {
      picture.append(s("rect", { x: at, y: 0, width: Math.max((value / most) * width, value ? 2 : 0), height: 14, class: `part-${kind}` }));
      at += (value / most) * width;
    }
    return picture;
  }
  const mean = (numbers) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;
  const median = (numbers) => [...numbers].sort((left, right) => left - right)[Math.floor((numbers.length - 1) / 2)];
  function drawTimes(found) {
    const ran = found.filter((cell) => cell.seconds);
    if (!ran.length) { body.append(h("p", { class: "empty" }, "No cell here has a recorded time.")); return; }
    const name = state.group && state.group !== "status" ? state.group : columnsDefault || "test";
    const { of, title } = dimensions.get(name);
    const groups = [...grouped(ran, of)].map(([value, members]) => ({
      name: value || "none", value: median(members.map((cell) => cell.seconds)),
      note: `median of ${members.length}; ${span(Math.min(...members.map((cell) => cell.seconds)))} to ${span(Math.max(...members.map((cell) => cell.seconds)))}`,
    }));
    body.append(h("section", {}, h("h2", {}, `Time by ${title}`), bars(groups.slice(0, 60), span)));
    const slow = [...ran].sort((left, right) => right.seconds - left.seconds).slice(0, 25);
    body.append(h("section", {}, h("h2", {}, "Slowest cells"),
      h("p", { class: "legend" }, ["setup", "boot", "run", "teardown"].map((phase) => h("span", { class: `key part-${phase}` }, phase))),
      bars(slow.map((cell) => ({
        cell, value: cell.seconds,
        parts: Object.keys(cell.phases).length ? Object.entries(cell.phases) : undefined,
        note: [cell.cached ? "cached, when it ran" : "", compared(cell)].filter(Boolean).join("; "),
      })), span)));
  }
  function compared(cell) {
    if (!cell.last || cell.cached || !cell.seconds || BAD.has(cell.status) || Math.abs(cell.last - cell.seconds) < 0.005) return "";
    return `recorded ${span(cell.last)}`;
  }
  function drawPulled(found) {
    const repositories = distinct(found.flatMap((cell) => Object.keys(cell.pulled || {}))).sort();
    const others = [...dimensions.keys()].filter((name) => name.startsWith("axis."));
    body.append(h("p", { class: "hint" }, "Bytes that the cells' daemons fetched from their mirror: the mean of the cells shown, by worker and axes. A lazy pull is a short bar."));
    for (const repository of repositories) {
      const having = found.filter((cell) => cell.pulled && cell.pulled[repository]);
      const rows = [...grouped(having, (cell) => [cell.worker, ...others.map((name) => dimensions.get(name).of(cell))].filter(Boolean).join(", "))]
        .map(([name, members]) => ({
          name, value: mean(members.map((cell) => cell.pulled[repository][1])),
          note: `${plural(Math.round(mean(members.map((cell) => cell.pulled[repository][0]))), "request")}${members.length > 1 ? `, ${members.length} cells` : ""}`,
        }));
      body.append(h("section", {}, h("h2", {}, repository), bars(rows, bytes)));
    }
  }
  function drawEgress(found) {
    const rows = found.flatMap((cell) => (cell.egress || []).map((one) => [cell, one]));
    body.append(h("p", { class: "hint" }, "Attempts of processes in cells to reach anything but their mirror. None can succeed."),
      h("table", { class: "list" }, h("thead", {}, h("tr", {}, ["cell", "process", "tried to reach"].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, rows.map(([cell, one]) => h("tr", {},
          h("th", { scope: "row" }, opener(cell)),
          h("td", {}, one.who), h("td", {}, one.what))))));
  }

  // The trace of the build: a lane for each thread.
  function drawTrace() {
    const spans = page.spans.slice(0, MOST_SPANS);
    const end = Math.max(...spans.map((one) => one[3] + one[4]));
    const lanes = grouped(spans, (one) => one[0]);
    body.append(h("p", { class: "hint" }, `The whole build, ${span(end / 1e6)}; a lane is a thread, and a bar what it did.`,
      page.spans.length > MOST_SPANS ? ` The longest ${MOST_SPANS} of ${page.spans.length} spans are here.` : ""));
    const flat = [...lanes].flatMap(([lane, members]) => members.map((one) => ({
      lane, text: one[1], from: one[3] / 1e3, to: (one[3] + one[4]) / 1e3, kind: slug(one[2]),
    })));
    body.append(timeChart(flat, end / 1e3, "trace of the build"));
    const longest = [...spans].filter((one) => one[2] === "action processing").sort((left, right) => right[4] - left[4]).slice(0, 30);
    body.append(h("h2", {}, "Longest actions"), bars(longest.map((one) => ({ name: one[1], value: one[4] / 1e6 })), span));
  }
  // spans: {lane, text, from, to} in milliseconds; ticks: {lane, at, text}
  function timeChart(spans, end, name, ticks = []) {
    const lanes = distinct([...spans.map((one) => one.lane), ...ticks.map((one) => one.lane)]);
    const left = Math.min(180, 12 + 7 * Math.max(...lanes.map((one) => one.length), 4)), width = 1000, high = 20;
    const scale = (time) => left + (time / Math.max(end, 1)) * (width - left - 10);
    const parts = [], levels = [];
    let top = 24;
    for (const lane of lanes) {
      const ends = [];
      const own = spans.filter((one) => one.lane === lane).sort((a, b) => a.from - b.from || b.to - a.to);
      for (const one of own) {
        let level = ends.findIndex((at) => at <= one.from);
        if (level < 0) { level = Math.min(ends.length, 5); }
        ends[level] = one.to;
        const x = scale(one.from), wide = Math.max(1.5, scale(one.to) - x);
        const box = s("g", {}, s("title", {}, `${one.text}\n${span(one.from / 1e3)} to ${span(one.to / 1e3)}: ${span((one.to - one.from) / 1e3)}${one.bad ? `\n${one.bad}` : ""}`),
          s("rect", { x, y: top + level * high + 2, width: wide, height: high - 4, rx: 2, class: `span ${one.bad ? "bad" : `kind-${one.kind || "plain"}`}` }));
        if (wide > 40) {
          const room = Math.floor((wide - 8) / 6.2);
          box.append(s("text", { x: x + 4, y: top + level * high + 14 }, one.text.length > room ? `${one.text.slice(0, Math.max(room - 1, 1))}…` : one.text));
        }
        parts.push(box);
      }
      for (const one of ticks.filter((each) => each.lane === lane)) {
        parts.push(s("rect", { x: scale(one.at) - 0.75, y: top + 3, width: 1.5, height: high - 6, class: `tick ${one.kind || ""}` }, s("title", {}, `${span(one.at / 1e3)}  ${one.text}`)));
      }
      levels.push([lane, top]);
      top += Math.max(1, Math.min(ends.length, 6)) * high + 4;
    }
    const picture = s("svg", { viewBox: `0 0 ${width} ${top}`, class: "time", role: "img", "aria-label": `${name}, ${span(end / 1e3)}` });
    for (let step = 0; step <= 5; step += 1) {
      const at = (end * step) / 5;
      picture.append(s("line", { x1: scale(at), x2: scale(at), y1: 16, y2: top, class: "rule" }),
        s("text", { x: scale(at), y: 11, class: "axis", "text-anchor": step === 5 ? "end" : step ? "middle" : "start" }, span(at / 1e3)));
    }
    for (const [lane, y] of levels) picture.append(s("text", { x: 4, y: y + 14, class: "lane" }, s("title", {}, lane), lane.length > 24 ? `${lane.slice(0, 23)}…` : lane));
    picture.append(...parts);
    return h("div", { class: "scroll chart" }, picture);
  }

  const VIEWS = {
    grid: { title: "Grid", draw: drawGrid },
    map: { title: "Map", draw: drawMap },
    failures: { title: "Failures", draw: drawFailures },
    list: { title: "List", draw: drawList },
    times: { title: "Times", draw: drawTimes },
    pulled: { title: "Pulled bytes", draw: drawPulled, when: () => cells.some((cell) => Object.keys(cell.pulled || {}).length) },
    egress: { title: "Egress", draw: drawEgress, when: () => cells.some((cell) => (cell.egress || []).length) },
    trace: { title: "Trace", draw: drawTrace, when: () => page.spans.length },
  };

  // Details of one cell
  const opened = new Map();
  async function detailsOf(cell) {
    return cell.block ? (await blockOf(cell.block[0]))[cell.block[1]] : null;
  }
  function blockOf(number) {
    if (!opened.has(number)) {
      const packed = Uint8Array.from(atob(blocks[number].textContent), (one) => one.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
      opened.set(number, new Response(stream).json());
      if (opened.size > 4) opened.delete(opened.keys().next().value);
    }
    return opened.get(number);
  }
  const dialog = h("dialog", { class: "cell", "aria-labelledby": "cell-name", onclose: closed, onkeydown: dialogKeys });
  document.body.append(dialog);
  let from = null;
  function neighbour(step) {
    const next = order[order.findIndex((cell) => String(cell.number) === state.cell) + step];
    if (next) openCell(next.number);
  }
  function dialogKeys(event) {
    if (event.target.closest("input, select, textarea, svg")) return;
    if (event.key === "j" || event.key === "]") neighbour(1);
    if (event.key === "k" || event.key === "[") neighbour(-1);
  }
  function closed() {
    state.cell = "";
    writeAddress();
    const at = body.querySelector(`[data-cell="${from}"]`);
    if (at && document.activeElement !== search) focusOn(at);  // the reader may be there already: this event comes late
  }
  function fact(name, ...value) {
    return value.some((one) => one !== "" && one !== " " && one !== null && one !== undefined && one !== false) ? [h("dt", {}, name), h("dd", {}, ...value)] : [];
  }
  async function openCell(number) {
    const cell = cells[number];
    from = number;
    state.cell = String(number);
    writeAddress();
    const more = h("div", { class: "more" }, h("p", { class: "hint" }, "Reading…"));
    const title = h("h2", { id: "cell-name", tabIndex: -1 }, h("span", { class: `badge ${slug(cell.status)}` }, `${MARKS[cell.status]} ${cell.status}`), " ", broken(cell.name));
    const totals = Object.values(cell.pulled || {});
    dialog.replaceChildren(...[
      h("header", {}, title, h("div", { class: "buttons" },
        h("button", { type: "button", "aria-label": "previous cell", title: "previous cell (k)", onclick: () => neighbour(-1) }, "↑"),
        h("button", { type: "button", "aria-label": "next cell", title: "next cell (j)", onclick: () => neighbour(1) }, "↓"),
        h("button", { type: "button", "aria-label": "close", title: "close (Esc)", onclick: () => dialog.close() }, "×"))),
      cell.reason ? h("pre", { class: "reason" }, cell.reason) : null,
      h("dl", {},
        fact(page.kind === "junit" ? "suite" : "matrix", label(cell)),
        fact("why", cell.leaf ? changed(cell) : cell.why || ""),
        fact("time", cell.seconds ? span(cell.seconds) : "", cell.cached ? " when it ran" : "",
          Object.keys(cell.phases).length ? ` (${cell.attempts.length > 1 ? "last attempt: " : ""}${Object.entries(cell.phases).map(([phase, seconds]) => `${phase} ${span(seconds)}`).join(", ")})` : ""),
        fact("recorded time", cell.last ? span(cell.last) : ""),
        fact("earlier runs", earlier(cell), " ", (cell.earlier || []).map(([status, seconds]) => `${status} ${span(seconds)}`).join(", ")),
        fact("class", cell.class || ""),
        fact("attempts", cell.attempts.length > 1 ? h("ol", {}, cell.attempts.map((one) =>
          h("li", {}, `${one.status}${one.seconds ? ` after ${span(one.seconds)}` : ""}${one.reason && one.reason !== cell.reason ? `: ${one.reason}` : ""}`))) : ""),
        fact("egress", (cell.egress || []).length ? h("ul", {}, cell.egress.map((one) => h("li", {}, `${one.who} tried to reach ${one.what}`))) : ""),
        fact("isolation", cell.isolation || ""),
        fact("changed in its worker", (cell.tainted || []).join(", ")),
        fact("faults", cell.unmet_faults ? "no request met the faults of the mirror" : ""),
        fact("pulled", totals.length ? `${bytes(totals.reduce((sum, one) => sum + one[1], 0))} in ${plural(totals.reduce((sum, one) => sum + one[0], 0), "request")}` : "")),
      page.kind === "junit" ? null : commands(cell), more].filter(Boolean));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    title.focus();
    try {
      const details = await detailsOf(cell);
      if (state.cell === String(number)) more.replaceChildren(...(details ? sections(cell, details) : []));
      const error = more.querySelector("details[open] > .log > .error");
      if (error) error.parentNode.scrollTop = error.offsetTop - error.parentNode.offsetTop - 160;
    } catch (error) {
      more.replaceChildren(h("p", { class: "hint" }, `The details cannot be read: ${error}`));
    }
  }
  function changed(cell) {
    const { name, old, new: now, more } = cell.leaf;
    return h("div", {}, `${cell.why}. First differing leaf: `, h("code", {}, name),
      h("div", { class: "leaf" }, h("del", {}, old ?? "(not there)"), " ", h("ins", {}, now ?? "(gone)")),
      more ? `and ${more} more` : "");
  }
  function commands(cell) {
    const whole = `'${`${label(cell)}[${cell.name}]`.replace(/'/g, "'\\''")}'`;
    const lines = [BAD.has(cell.status) ? `bk shell --at_failure ${whole}` : `bk shell ${whole}`, `bk logs --timeline ${whole}`, `bk why ${whole}`, `bk test -t- ${whole}`];
    return h("details", { class: "part" }, h("summary", {}, "Commands"), lines.map((line) => h("pre", { class: "command" }, line)));
  }
  function sections(cell, details) {
    const parts = [];
    const part = (title, open, ...children) => parts.push(h("details", { class: "part", open }, h("summary", {}, title), ...children));
    if (details.left_out) parts.push(h("p", { class: "hint" }, details.left_out));
    const bad = BAD.has(cell.status);
    if (details.cases.length) part(`Sub-results (${details.cases.length})`, true, casesTable(details.cases));
    if (details.logs["test.log"]) part("Output of the test", bad, testLog(plain(details.logs["test.log"])));
    for (const name of Object.keys(details.logs).filter((one) => one !== "test.log")) part(name, false, h("pre", { class: "log", tabIndex: 0 }, plain(details.logs[name])));
    if (details.lines.length || details.spans.length) part("Timeline", true, timeline(details));
    if (details.requests.length) part(`Requests at the mirror (${details.requests.length})`, false, requestsTable(details.requests));
    const leaves = Object.entries(details.key);
    if (leaves.length) part(`Key (${plural(leaves.length, "leaf").replace("leafs", "leaves")})`, false, keyTree(details, cell.leaf));
    return parts;
  }
  // pytest marks what failed with E: the log opens there.
  function testLog(text) {
    const at = text.search(/^E /m);
    if (at < 0) return h("pre", { class: "log", tabIndex: 0 }, text);
    const end = at + (text.slice(at).search(/^(?!E )/m) + 1 || text.length - at + 1) - 1;
    return h("pre", { class: "log", tabIndex: 0 }, text.slice(0, at), h("span", { class: "error" }, text.slice(at, end)), text.slice(end));
  }
  const plain = (text) => text.replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, "").replace(/\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/g, "");
  function casesTable(cases) {
    return h("table", { class: "list" }, h("thead", {}, h("tr", {}, ["case", "status", "time"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, cases.slice(0, 2000).map((one) => h("tr", {}, h("th", { scope: "row" }, one.name),
        h("td", {}, badge(one.status), one.reason ? h("pre", { class: "reason" }, one.reason) : null),
        h("td", { class: "number" }, one.seconds ? span(one.seconds) : "")))));
  }
  function requestsTable(requests) {
    return h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, ["at", "request", "status", "bytes"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, requests.slice(0, 2000).map(([at, method, path, status, size]) => h("tr", {},
        h("td", { class: "number" }, span(at / 1e3)), h("th", { scope: "row" }, `${method} ${path}`), h("td", { class: status >= 400 || !status ? "failed" : "" }, status || "broken off"),
        h("td", { class: "number" }, bytes(size)))))));
  }
  function timeline(details) {
    const sources = distinct(details.lines.map((one) => one[1]));
    const hidden = new Set();
    const lines = h("ol", { class: "lines", tabIndex: 0, "aria-label": "merged logs" });
    const sought = state.logs && words().find(({ text, out }) => !out && details.lines.some((line) => line[2].toLowerCase().includes(text)));
    const find = h("input", { type: "search", value: sought ? sought.text : "", placeholder: "find in the logs", "aria-label": "find in the logs", oninput: () => fill(LINES_AT_ONCE) });
    const fill = (most) => {
      const word = find.value.toLowerCase();
      const wanted = details.lines.filter((one) => !hidden.has(one[1]) && (!word || one[2].toLowerCase().includes(word)));
      lines.replaceChildren(...wanted.slice(0, most).map(([at, name, text]) => h("li", { class: grade(text) },
        h("span", { class: "at" }, (at / 1e3).toFixed(3)), h("span", { class: "who" }, name), h("span", { class: "what" }, untimed(plain(text))))));
      if (wanted.length > most) lines.append(h("li", {}, h("button", { type: "button", class: "link", onclick: () => fill(wanted.length) }, `show ${wanted.length - most} more lines`)));
    };
    fill(LINES_AT_ONCE);
    const spans = details.spans.map(([lane, text, start, end, ended]) => ({ lane, text, from: start, to: end, bad: ended, kind: lane === "cell" ? `phase-${text}` : "plain" }));
    const requests = details.requests.map(([at, method, path, status, size]) => ({ lane: "mirror", at, text: `${method} ${path} ${status} ${bytes(size)}`, kind: status >= 400 || !status ? "bad" : "" }));
    const ticks = details.lines.filter((one) => one[1] !== "cell" && one[1] !== "mirror").slice(0, 3000)
      .map(([at, name, text]) => ({ lane: name, at, text: plain(text).slice(0, 300), kind: grade(text) }));
    const end = Math.max(...spans.map((one) => one.to), ...details.lines.slice(-1).map((one) => one[0]), 1);
    return h("div", {}, spans.length || ticks.length ? timeChart(spans, end, "timeline of the cell", [...ticks, ...requests]) : null,
      h("div", { class: "sources" }, find, sources.map((name) => h("label", {},
        h("input", { type: "checkbox", checked: true, onchange: (event) => { event.target.checked ? hidden.delete(name) : hidden.add(name); fill(LINES_AT_ONCE); } }), name))),
      lines);
  }
  const untimed = (text) => text.replace(/^time="[^"]{1,40}" /, "");
  const grade = (text) => (/level=(?:error|fatal|panic)|"level":"(?:error|fatal|panic)"|^panic: |^fatal error: /.test(text) ? "bad" : /level=warn|"level":"warn/.test(text) ? "warn" : "");
  function keyTree(details, first) {
    const root = new Map();
    for (const [name, value] of [...Object.entries(details.key), ...Object.entries(details.was).filter(([one]) => !(one in details.key))]) {
      const steps = name.split("/");
      let at = root;
      for (const step of steps.slice(0, -1)) {
        if (!(at.get(step) instanceof Map)) at.set(step, new Map(at.has(step) ? [["", at.get(step)]] : []));
        at = at.get(step);
      }
      const last = steps[steps.length - 1];
      if (at.get(last) instanceof Map) at.get(last).set("", [name, value]);
      else at.set(last, [name, value]);
    }
    const isNew = (name) => name in details.was || (first && first.name === name);
    const hasNew = (map) => [...map.values()].some((one) => (one instanceof Map ? hasNew(one) : isNew(one[0])));
    const branch = (map) => h("ul", { class: "tree" }, [...map].map(([step, below]) => {
      if (below instanceof Map) return h("li", {}, h("details", { open: hasNew(below) }, h("summary", {}, `${step}/`), branch(below)));
      const [name, value] = below;
      return h("li", { class: isNew(name) ? "new" : "" }, h("span", { class: "step" }, step || "."), " ",
        name in details.was ? h("del", {}, details.was[name] ?? "") : null, name in details.was ? " " : null,
        name in details.key ? h("code", {}, value ?? "") : h("em", {}, "is gone"));
    }));
    return branch(root);
  }

  // Keys of the page
  const help = h("dialog", { class: "help", "aria-labelledby": "help-title" }, h("h2", { id: "help-title" }, "Keys"),
    h("dl", {}, [["/", "find"], ["arrows", "move in the grid, the map, the list and the tabs"], ["Enter", "open a cell"], ["j, k", "next and previous cell, in a cell"],
      ["Esc", "close a cell"], ["n", "open the next failed cell"], ["1 to 8", "change the view"], ["x", "clear the filters"], ["?", "this help"]]
      .map(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)])),
    h("form", { method: "dialog" }, h("button", {}, "Close")));
  document.body.append(help);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea") || help.open) return;
    if (event.key === "?") help.showModal();
    else if (event.key === "n") {
      const bad = selected().filter((cell) => BAD.has(cell.status));
      const next = bad.find((cell) => cell.number > Number(state.cell === "" ? -1 : state.cell)) || bad[0];
      if (next) openCell(next.number);
    } else if (dialog.open) return;
    else if (event.key === "/") { event.preventDefault(); search.focus(); }
    else if (event.key === "x") clear();
    else if (/^[1-8]$/.test(event.key)) {
      const name = [...tabs.keys()][Number(event.key) - 1];
      if (name) { change({ view: name }); tabs.get(name).focus(); }
    }
  });
  addEventListener("hashchange", () => { readAddress(); show(); lookInLogs(); });
  // On paper there is no room for panels: all that failed, then the grid.
  addEventListener("beforeprint", () => {
    finish();
    document.querySelectorAll("tbody.folded").forEach((one) => one.classList.remove("folded"));
  });

  readAddress();
  controls();
  show();
  lookInLogs();
  if (state.cell !== "" && cells[Number(state.cell)]) openCell(Number(state.cell));
})();
