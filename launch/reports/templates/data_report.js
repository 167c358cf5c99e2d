// The data report's page: evaluates the decision table again (decisions.js) whenever a threshold moves, and redraws.
const data = JSON.parse(document.getElementById("data").textContent);
const { features, columns, languages, table, pairs } = data;
const shipped = structuredClone(table.checks);
const OPERATORS = { min: "<", max: ">" };
const SIDES = Object.keys(OPERATORS);
const profiles = [...new Set(table.checks.map((check) => check.language))].filter((language) => languages.includes(language));
const number = new Intl.NumberFormat("en");
let shown = profiles[0];

const before = judge(table, columns, languages, pairs).map(isKept);

function update() {
  const reasons = judge(table, columns, languages, pairs);
  const kept = reasons.map(isKept);
  const moved = changes();
  drawSummary(kept, moved);
  drawFunnel(kept);
  drawReasons(reasons);
  drawOverlap(reasons);
  drawRules(kept, moved);
  document.getElementById("fragment").value = fragment(moved);
  const address = moved.map((check) => `${check.language}.${check.column}.${sideOf(check)}=${check.bound ?? ""}`);
  history.replaceState(null, "", address.length ? `#${address.join("&")}` : location.pathname + location.search);
}

function isKept(reasons) {
  return !reasons.length;
}

function changes() {
  return table.checks.filter((check, place) => check.bound !== shipped[place].bound);
}

function sideOf(check) {
  return SIDES.find((side) => OPERATORS[side] === check.operator);
}

function findCheck(checks, language, feature, side) {
  return checks.find((check) => check.language === language && check.column === feature && check.operator === OPERATORS[side]);
}

function move(language, feature, side, text) {
  const check = findCheck(table.checks, language, feature, side);
  if (check) check.bound = text === "" || Number.isNaN(Number(text)) ? null : Number(text);
}

function node(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function signed(value) {
  return value > 0 ? `+${number.format(value)}` : number.format(value);
}

// --- tables -------------------------------------------------------------------------------------

function drawSummary(kept, moved) {
  const gained = kept.filter((now, row) => now && !before[row]).length;
  const lost = kept.filter((now, row) => !now && before[row]).length;
  const change = `${signed(gained - lost)}: ${number.format(gained)} newly kept, ${number.format(lost)} newly dropped`;
  document.getElementById("kept").textContent = number.format(kept.filter(Boolean).length);
  document.getElementById("change").textContent = gained || lost ? change : "";
  document.getElementById("reset").hidden = !moved.length;
}

function drawFunnel(kept) {
  const tallies = new Map();
  const tallyOf = (key) => tallies.get(key) || { read: 0, kept: 0, before: 0 };
  kept.forEach((now, row) => {
    for (const key of [`source.${columns.source[row]}`, `language.${languages[columns.language[row]]}`]) {
      const tally = tallyOf(key);
      tallies.set(key, { read: tally.read + 1, kept: tally.kept + now, before: tally.before + before[row] });
    }
  });
  const fill = (attribute, text) => document.querySelectorAll(`[${attribute}]`).forEach((cell) => {
    cell.textContent = text(tallyOf(cell.getAttribute(attribute)));
  });
  fill("data-read", (tally) => number.format(tally.read));
  fill("data-kept", (tally) => number.format(tally.kept));
  fill("data-change", (tally) => (tally.kept === tally.before ? "" : signed(tally.kept - tally.before)));
}

function tallied(reasons) {
  const tallies = new Map();
  reasons.forEach((names) => names.forEach((name, place) => {
    const tally = tallies.get(name) || { broken: 0, alone: 0, first: 0 };
    tally.broken += 1; tally.first += place === 0; tally.alone += names.length === 1;
    tallies.set(name, tally);
  }));
  return [...tallies].sort((one, other) => other[1].broken - one[1].broken || (one[0] < other[0] ? -1 : 1));
}

function drawReasons(reasons) {
  const rows = tallied(reasons);
  document.getElementById("reasons").replaceChildren(...rows.map(([name, { broken, alone, first }]) => {
    const bar = node("i");
    bar.style.width = `${(100 * broken) / rows[0][1].broken}%`;
    const cells = [broken, alone, first].map((value) => node("td", { className: "n", textContent: number.format(value) }));
    const title = node("td", {}, node("code", { textContent: name }));
    return node("tr", {}, title, ...cells, node("td", {}, node("div", { className: "bar" }, bar)));
  }));
}

function drawOverlap(reasons) {
  const names = tallied(reasons).slice(0, 12).map(([name]) => name);
  const both = names.map((one) => {
    const broken = reasons.filter((found) => found.includes(one));
    return names.map((other) => broken.filter((found) => found.includes(other)).length);
  });
  const head = node("tr", {}, node("th"), ...names.map((name) => node("th", { className: "v", textContent: name })));
  const rows = names.map((name, one) => {
    const cells = both[one].map((documents, other) => {
      const share = documents / both[one][one];
      const cell = node("td", { textContent: documents ? number.format(documents) : "" });
      cell.style.background = one === other ? "var(--ground)" : `rgba(0, 114, 178, ${(0.75 * share).toFixed(3)})`;
      cell.style.color = one !== other && share > 0.6 ? "#fff" : "";
      return cell;
    });
    return node("tr", {}, node("td", {}, node("code", { textContent: name })), ...cells);
  });
  document.getElementById("overlap").replaceChildren(head, ...rows);
}

// --- thresholds ---------------------------------------------------------------------------------

const BINS = 72;
const cards = new Map();

function buildRules() {
  document.getElementById("tabs").replaceChildren(...profiles.map((language) => node("button", {
    textContent: { ko: "Korean", en: "English" }[language] || language, role: "tab",
    ariaSelected: String(language === shown), onclick: () => { shown = language; buildRules(); update(); },
  })));
  cards.clear();
  const rows = columns.language.flatMap((language, row) => (languages[language] === shown ? [row] : []));
  const bounded = (feature) => SIDES.some((side) => findCheck(shipped, shown, feature, side).bound !== null);
  const names = shown ? features.filter((feature) => data.scores.includes(feature) || bounded(feature)) : [];
  document.getElementById("rules").replaceChildren(...names.map((feature) => card(feature, rows)));
}

function card(feature, rows) {
  const language = shown;
  const checks = Object.fromEntries(SIDES.map((side) => [side, findCheck(table.checks, language, feature, side)]));
  const scale = scaleOf(feature, rows);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 720 74");
  svg.setAttribute("preserveAspectRatio", "none");
  const set = (side, text) => { move(language, feature, side, text); update(); };
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const bounded = SIDES.filter((side) => checks[side].bound !== null);
    const side = bounded.length === 1 ? bounded[0] : bounded.length && share < 0.5 ? "min" : "max";
    set(side, (scale.low + share * BINS * scale.width).toPrecision(3));
  });
  const inputs = Object.fromEntries(SIDES.map((side) => [side, node("input", {
    type: "number", step: "any", ariaLabel: `${language} ${feature} ${side}`,
    onchange: (event) => set(side, event.target.value),
  })]));
  const failing = node("p");
  const labels = SIDES.map((side) => node("label", { textContent: side }, inputs[side]));
  const made = node("div", { className: "rule" },
    node("div", {}, node("h3", { textContent: feature }), node("p", { textContent: data.meanings[feature] }), svg),
    node("div", {}, ...labels, failing), ...examples(language, feature));
  cards.set(feature, { made, svg, inputs, checks, failing, rows, scale });
  return made;
}

function scaleOf(feature, rows) {
  const values = rows.map((row) => columns[feature][row]).sort((one, other) => one - other);
  const bounds = SIDES.map((side) => findCheck(shipped, shown, feature, side).bound).filter((bound) => bound !== null && bound < 1e5);
  const at = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))] ?? 0;
  const low = Math.min(at(0.002), ...bounds), high = Math.max(at(0.998), ...bounds);
  return { low, width: (high > low ? high - low : 1) / BINS };
}

function examples(language, feature) {
  const near = SIDES.flatMap((side) => data.near[`${language}.${feature}.${side}`] || []);
  if (!near.length) return [];
  const summary = node("summary", { textContent: `${near.length} documents near the recipe's threshold` });
  return [node("details", {}, summary, ...near.map((found) => node("div", { className: `near ${found.decision}` },
    node("code", { textContent: `${found.value} · ${found.decision} · ${found.id}` }), found.text)))];
}

function drawRules(kept, moved) {
  for (const [feature, { made, svg, inputs, checks, failing, rows, scale }] of cards) {
    const bounded = SIDES.filter((side) => checks[side].bound !== null);
    const broken = rows.filter((row) => bounded.some((side) => fails(checks[side], columns[feature][row]))).length;
    svg.innerHTML = histogram(feature, rows, kept, scale, bounded.map((side) => checks[side].bound));
    for (const side of SIDES) if (document.activeElement !== inputs[side]) inputs[side].value = checks[side].bound ?? "";
    failing.textContent = `breaks ${number.format(broken)} of ${number.format(rows.length)}`;
    made.classList.toggle("moved", SIDES.some((side) => moved.includes(checks[side])));
  }
}

// Mark-up of numbers only: no text of a document reaches it.
function histogram(feature, rows, kept, { low, width }, bounds) {
  const bins = Array.from({ length: BINS }, () => [0, 0]);
  for (const row of rows) {
    const bin = Math.floor((columns[feature][row] - low) / width);
    bins[Math.max(0, Math.min(BINS - 1, bin))][kept[row] ? 0 : 1] += 1;
  }
  const most = Math.sqrt(Math.max(1, ...bins.map(([one, other]) => one + other)));
  const bars = bins.map(([one, other], place) => {
    const whole = (58 * Math.sqrt(one + other)) / most, blue = one + other ? (whole * one) / (one + other) : 0;
    const bar = (top, height, color) => `<rect x="${place * 10}" y="${60 - top}" width="9" height="${height}" fill="${color}"/>`;
    return bar(blue, blue, "#0072b2") + bar(whole, whole - blue, "#c3cad3");
  });
  const lines = bounds.map((bound) => {
    const x = Math.max(1, Math.min(719, ((bound - low) / width) * 10));
    return `<line x1="${x}" x2="${x}" y1="0" y2="62" stroke="#b2182b" stroke-width="2"/>`;
  });
  const label = (x, anchor, value) => `<text x="${x}" y="73" font-size="11" text-anchor="${anchor}" fill="#5b6673">${Number(value.toPrecision(3))}</text>`;
  return [...bars, ...lines, label(0, "start", low), label(720, "end", low + BINS * width)].join("");
}

function fragment(moved) {
  if (!moved.length) return "# no threshold was moved";
  const lines = ["data:", "  rules:"];
  for (const language of profiles) {
    const names = [...new Set(moved.filter((check) => check.language === language).map((check) => check.column))];
    if (names.length) lines.push(`    ${language}:`);
    for (const feature of names) {
      const checks = SIDES.map((side) => findCheck(table.checks, language, feature, side)).filter((check) => check.bound !== null);
      const bounds = checks.map((check) => `${sideOf(check)}: ${check.bound}`).join(", ");
      lines.push(bounds ? `      ${feature}: {${bounds}}` : `      # ${feature}: remove this rule from the recipe`);
    }
  }
  return lines.join("\n");
}

document.getElementById("reset").onclick = () => {
  table.checks.forEach((check, place) => { check.bound = shipped[place].bound; });
  update();
};
for (const part of location.hash.slice(1).split("&")) {
  const [, language, feature, side, value] = part.match(/^(\w+)\.(\w+)\.(min|max)=(.*)$/) || [];
  move(language, feature, side, value);
}
buildRules();
update();
