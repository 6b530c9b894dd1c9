"use strict";
// The browser of prompts. Everything that a model or a data set wrote is put in as textContent.
const ROW_PX = 76; // as in the style sheet
const SIGNS = { c: "✓", w: "×", u: "?", t: "!", e: "!" };
const MOST_MARKS = 16;

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const views = JSON.parse($("views-data").textContent);
const state = { view: 0, mask: 0, shown: [], chosen: -1, texts: new Map() };

// -- texts, unpacked piece by piece ---------------------------------------------------------
function unpack(id) {
  if (!state.texts.has(id)) {
    const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    if (state.texts.size > 30) state.texts.delete(state.texts.keys().next().value);
    state.texts.set(id, new Response(stream).json());
  }
  return state.texts.get(id);
}

async function detailOf(index) {
  const view = views[state.view];
  const piece = await unpack(`texts-${view.name}-${Math.floor(index / view.chunk)}`);
  return piece[index % view.chunk];
}

// -- the list: only the rows in sight exist -------------------------------------------------
function marks(letters) {
  const line = element("div", "marks");
  for (const letter of letters.slice(0, MOST_MARKS)) {
    const plain = letter.toLowerCase();
    line.append(element("span", `mark ${plain}${letter === plain ? "" : " cut"}`, SIGNS[plain]));
  }
  if (letters.length > MOST_MARKS) line.append(element("span", "", `+${letters.length - MOST_MARKS}`));
  return line;
}

function paint() {
  const list = $("list"), spacer = $("spacer"), rows = views[state.view].rows;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - 5);
  const last = Math.min(state.shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + 5);
  const fresh = document.createDocumentFragment();
  if (!state.shown.length) fresh.append(element("p", "note", "No prompt fits these filters and this search."));
  for (let place = first; place < last; place++) {
    const index = state.shown[place];
    const [id, snippet, , letters] = rows[index];
    const row = element("div", "row");
    row.style.top = `${place * ROW_PX}px`;
    row.title = id;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(index === state.chosen));
    row.dataset.index = String(index);
    row.append(element("div", "q", snippet), marks(letters));
    fresh.append(row);
  }
  spacer.replaceChildren(fresh);
}

function refresh() {
  const view = views[state.view], wanted = $("search").value.trim().toLowerCase();
  state.shown = [];
  view.rows.forEach(([id, snippet, mask], index) => {
    const fits = (mask & state.mask) === state.mask;
    if (fits && (!wanted || id.toLowerCase().includes(wanted) || snippet.toLowerCase().includes(wanted))) {
      state.shown.push(index);
    }
  });
  const more = view.num_left_out ? `; ${view.num_left_out} more are only in the tables` : "";
  $("count").textContent = `${state.shown.length} of ${view.rows.length} prompts${more}`;
  $("spacer").style.height = `${state.shown.length * ROW_PX}px`;
  $("list").scrollTop = 0;
  if (state.shown.includes(state.chosen)) paint();
  else if (state.shown.length) choose(state.shown[0], false);
  else {
    state.chosen = -1;
    $("detail").replaceChildren();
    paint();
  }
}

function choose(index, jump) {
  state.chosen = index;
  paint();
  detailOf(index).then((detail) => {
    if (state.chosen === index) show(views[state.view].rows[index][0], detail, jump);
  });
}

// -- one prompt with its responses ----------------------------------------------------------
function fact(facts, name, value) {
  if (value === null || value === undefined || value === "") return;
  const item = element("span", "", `${name} `);
  item.append(element("b", "", String(value)));
  facts.append(item);
}

function long(text) {
  const box = element("pre", "", text === "" ? "(empty)" : text);
  if (text.length < 900 && text.split("\n").length < 14) return [box];
  box.classList.add("clipped");
  const button = element("button", "", "Show all");
  button.type = "button";
  button.addEventListener("click", () => { box.classList.remove("clipped"); button.remove(); });
  return [box, button];
}

function responseCard(response) {
  const card = element("div", "response"), facts = element("div", "facts");
  const letter = { correct: "c", wrong: "w", unparsed: "u", timeout: "t", error: "e" }[response.verdict];
  facts.append(element("b", "", response.who ? `${response.who} · ${response.sample}` : `#${response.sample}`));
  facts.append(element("b", `verdict ${letter}`, `${SIGNS[letter]} ${response.verdict}`));
  fact(facts, "answer", response.extracted);
  if (response.second) facts.append(element("b", "verdict u", `other grader: ${response.second}`));
  fact(facts, "tokens", response.tokens);
  if (response.truncated) facts.append(element("b", "verdict u", "cut at the limit"));
  fact(facts, "reward", response.reward);
  fact(facts, "advantage", response.advantage);
  fact(facts, "weight", response.weight);
  if (typeof response.merged_into === "number") fact(facts, "counted with #", response.merged_into);
  card.append(facts);
  if (response.weight > 0) {
    const bar = element("div", "weight"), fill = element("i");
    fill.style.width = `${Math.min(100, 100 * response.weight)}%`;
    bar.append(fill);
    card.append(bar);
  }
  card.append(...long(response.text));
  return card;
}

function show(id, detail, jump) {
  const box = $("detail");
  const back = element("button", "", "← Back to the list");
  back.id = "back";
  back.type = "button";
  back.addEventListener("click", () => $("list").scrollIntoView());
  box.replaceChildren(back, element("h3", "", id));
  const facts = element("div", "facts");
  fact(facts, "source", detail.source);
  fact(facts, "reference answer", detail.reference);
  box.append(facts);
  if (detail.system) box.append(element("h4", "", "System message"), ...long(detail.system));
  box.append(element("h4", "", "Prompt"), ...long(detail.question));
  box.append(element("h4", "", "Responses"), ...detail.responses.map(responseCard));
  box.scrollTop = 0;
  if (jump && window.matchMedia("(max-width: 760px)").matches) box.scrollIntoView();
}

// -- tabs, filters, keys --------------------------------------------------------------------
function toggle(label, pressed, action) {
  const button = element("button", "", label);
  button.type = "button";
  button.setAttribute("aria-pressed", String(pressed));
  button.addEventListener("click", action);
  return button;
}

function open(number) {
  Object.assign(state, { view: number, mask: 0, chosen: -1 });
  [...$("views").children].forEach((tab, i) => tab.setAttribute("aria-selected", String(i === number)));
  const kinds = (1 << views[number].num_kinds) - 1; // a prompt is of one kind: the last pressed counts
  $("filters").replaceChildren(...views[number].filters.map(({ label, count }, bit) =>
    toggle(`${label} ${count}`, false, () => {
      const pressed = 1 << bit;
      if (pressed & kinds) state.mask &= ~kinds | pressed;
      state.mask ^= pressed;
      [...$("filters").children].forEach((button, i) =>
        button.setAttribute("aria-pressed", String(Boolean(state.mask & (1 << i)))));
      refresh();
    })));
  refresh();
}

views.forEach((view, number) => {
  const tab = element("button", "", `${view.label} (${view.rows.length})`);
  tab.type = "button";
  tab.setAttribute("role", "tab");
  tab.addEventListener("click", () => open(number));
  $("views").append(tab);
});
let waiting = false;
$("list").addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; paint(); });
}, { passive: true });
$("list").addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (row) choose(Number(row.dataset.index), true);
});
$("list").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const place = Math.min(state.shown.length - 1, Math.max(0, state.shown.indexOf(state.chosen) + step));
  if (place < 0) return;
  const list = $("list"), top = place * ROW_PX;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW_PX > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_PX - list.clientHeight;
  choose(state.shown[place], false);
});
$("search").addEventListener("input", refresh);
window.addEventListener("resize", paint);

open(0);
