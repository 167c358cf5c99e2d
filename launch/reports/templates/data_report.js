"use strict";
// Judges the sample again whenever a threshold moves, as data_pipeline/stages/filter.py judges all documents.
const data = JSON.parse(document.getElementById("data").textContent);
const { features, columns, sources, languages } = data;
const count = columns.source.length;
const column = Object.fromEntries(features.map((name, place) => [name, columns.values[place]]));
const shipped = structuredClone(data.rules);
const rules = structuredClone(data.rules);
const number = new Intl.NumberFormat("en");
let shown = Object.keys(rules).find((language) => languages.includes(language)) || "ko";

function node(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function judgedRules(language) {
  const found = [];
  for (const feature of features) {
    const bound = (rules[language] || {})[feature];
    if (!bound) continue;
    const values = column[feature];
    if (bound.min !== undefined) found.push({ name: `${feature}<${short(bound.min)}`, fails: (row) => values[row] < bound.min });
    if (bound.max !== undefined) found.push({ name: `${feature}>${short(bound.max)}`, fails: (row) => values[row] > bound.max });
  }
  return found;
}

function short(value) {
  return String(Number(value.toPrecision(12)));
}

function judge() {
  const byLanguage = languages.map(judgedRules);
  const reasons = new Array(count);
  for (let row = 0; row < count; row++) {
    const bits = columns.fixed[row];
    const fixed = (from, to) => data.fixed.slice(from, to).filter((_, place) => bits & (1 << (from + place)));
    const failed = byLanguage[columns.language[row]].filter((rule) => rule.fails(row)).map((rule) => rule.name);
    reasons[row] = [...fixed(0, data.beforeRules), ...failed, ...fixed(data.beforeRules, data.fixed.length)];
  }
  settle(reasons);
  return reasons;
}

// Of each cluster the longest document that nothing speaks against is kept; of equal ones the first by id.
function settle(reasons) {
  const best = new Map();
  for (let row = 0; row < count; row++) {
    const cluster = columns.cluster[row];
    if (cluster < 0 || reasons[row].length) continue;
    const other = best.get(cluster);
    if (other === undefined || columns.bytes[row] > columns.bytes[other]) best.set(cluster, row);
  }
  for (let row = 0; row < count; row++) {
    const kept = best.get(columns.cluster[row]);
    if (kept === undefined || kept === row) continue;
    const shares = (kind) => columns[kind][row] >= 0 && columns[kind][row] === columns[kind][kept];
    const kind = shares("exact_cluster") ? "exact" : shares("url_cluster") ? "url" : "near";
    reasons[row].push(`${kind}_duplicate`);
  }
}

const before = judge().map((found) => !found.length);

function update() {
  const reasons = judge();
  const kept = reasons.map((found) => !found.length);
  const total = kept.filter(Boolean).length;
  const change = total - before.filter(Boolean).length;
  document.getElementById("kept").textContent = number.format(total);
  const newly = kept.filter((now, row) => now && !before[row]).length;
  const lost = kept.filter((now, row) => !now && before[row]).length;
  document.getElementById("change").textContent = newly || lost ? `${signed(change)}: ${number.format(newly)} newly kept, ${number.format(lost)} newly dropped` : "";
  document.getElementById("reset").hidden = !changes().length;
  drawFunnel(kept);
  drawReasons(reasons);
  drawOverlap(reasons);
  drawRules(kept);
  document.getElementById("fragment").value = fragment();
  const moved = changes().map(([language, feature, side, value]) => `${language}.${feature}.${side}=${value ?? ""}`);
  history.replaceState(null, "", moved.length ? `#${moved.join("&")}` : location.pathname + location.search);
}

function signed(value) {
  return value > 0 ? `+${number.format(value)}` : number.format(value);
}

function drawFunnel(kept) {
  const tally = new Map();
  const add = (key, row) => {
    const found = tally.get(key) || { read: 0, kept: 0, before: 0 };
    found.read += 1; found.kept += kept[row]; found.before += before[row];
    tally.set(key, found);
  };
  for (let row = 0; row < count; row++) {
    add(`source.${columns.source[row]}`, row);
    add(`language.${languages[columns.language[row]]}`, row);
  }
  const fill = (attribute, value) => document.querySelectorAll(`[${attribute}]`).forEach((cell) => {
    cell.textContent = value(tally.get(cell.getAttribute(attribute)) || { read: 0, kept: 0, before: 0 });
  });
  fill("data-read", (found) => number.format(found.read));
  fill("data-kept", (found) => number.format(found.kept));
  fill("data-change", (found) => (found.kept === found.before ? "" : signed(found.kept - found.before)));
}

function tallied(reasons) {
  const found = new Map();
  reasons.forEach((names) => names.forEach((name, place) => {
    const tally = found.get(name) || { broken: 0, alone: 0, first: 0 };
    tally.broken += 1; tally.first += place === 0; tally.alone += names.length === 1;
    found.set(name, tally);
  }));
  return [...found].sort((one, other) => other[1].broken - one[1].broken || (one[0] < other[0] ? -1 : 1));
}

function drawReasons(reasons) {
  const rows = tallied(reasons);
  const most = rows.length ? rows[0][1].broken : 1;
  document.getElementById("reasons").replaceChildren(...rows.map(([name, tally]) => {
    const bar = node("i");
    bar.style.width = `${(100 * tally.broken) / most}%`;
    const cells = [tally.broken, tally.alone, tally.first].map((value) => node("td", { className: "n", textContent: number.format(value) }));
    return node("tr", {}, node("td", {}, node("code", { textContent: name })), ...cells, node("td", {}, node("div", { className: "bar" }, bar)));
  }));
}

function drawOverlap(reasons) {
  const names = tallied(reasons).slice(0, 12).map(([name]) => name);
  const place = new Map(names.map((name, index) => [name, index]));
  const both = names.map(() => new Array(names.length).fill(0));
  for (const found of reasons) {
    const here = found.map((name) => place.get(name)).filter((index) => index !== undefined);
    for (const one of here) for (const other of here) both[one][other] += 1;
  }
  const head = node("tr", {}, node("th"), ...names.map((name) => node("th", { className: "v", textContent: name })));
  const rows = names.map((name, one) => node("tr", {}, node("td", {}, node("code", { textContent: name })), ...names.map((_, other) => {
    const share = both[one][other] / both[one][one];
    const cell = node("td", { textContent: both[one][other] ? number.format(both[one][other]) : "" });
    cell.style.background = one === other ? "var(--ground)" : `rgba(0, 114, 178, ${(0.75 * share).toFixed(3)})`;
    cell.style.color = one !== other && share > 0.6 ? "#fff" : "";
    return cell;
  })));
  document.getElementById("overlap").replaceChildren(head, ...rows);
}

// --- thresholds ---------------------------------------------------------------------------------

const BINS = 72;
const cards = new Map();

function buildRules() {
  const tabs = Object.keys(rules).filter((language) => languages.includes(language));
  document.getElementById("tabs").replaceChildren(...tabs.map((language) => node("button", {
    textContent: { ko: "Korean", en: "English", code: "code" }[language], role: "tab",
    ariaSelected: String(language === shown), onclick: () => { shown = language; buildRules(); update(); },
  })));
  cards.clear();
  const rows = [];
  for (let row = 0; row < count; row++) if (languages[columns.language[row]] === shown) rows.push(row);
  const names = features.filter((name) => shipped[shown]?.[name] || data.scores.includes(name));
  document.getElementById("rules").replaceChildren(...names.map((feature) => card(feature, rows)));
}

function card(feature, rows) {
  const values = rows.map((row) => column[feature][row]).sort((one, other) => one - other);
  const bounds = Object.values(shipped[shown][feature] || {}).filter((limit) => limit < 1e5);
  const at = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))] ?? 0;
  const low = Math.min(at(0.002), ...bounds), high = Math.max(at(0.998), ...bounds);
  const scale = { low, width: (high > low ? high - low : 1) / BINS };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 720 74");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const value = Number((scale.low + share * BINS * scale.width).toPrecision(3));
    const bound = rules[shown][feature] || {};
    const side = bound.min !== undefined && bound.max !== undefined ? (share < 0.5 ? "min" : "max") : bound.min !== undefined ? "min" : "max";
    move(shown, feature, side, value);
  });
  const language = shown;
  const inputs = Object.fromEntries(["min", "max"].map((side) => [side, node("input", {
    type: "number", step: "any", ariaLabel: `${language} ${feature} ${side}`,
    onchange: (event) => move(language, feature, side, event.target.value === "" ? undefined : Number(event.target.value)),
  })]));
  const fails = node("p");
  const near = ["min", "max"].flatMap((side) => data.near[`${shown}.${feature}.${side}`] || []);
  const samples = node("details", {}, node("summary", { textContent: `${near.length} documents around the shipped threshold` }),
    ...near.map((found) => node("div", { className: `near ${found.decision}` },
      node("code", { textContent: `${found.value} · ${found.decision} · ${found.id}` }), found.text)));
  const made = node("div", { className: "rule" },
    node("div", {}, node("h3", { textContent: feature }), node("p", { textContent: data.meanings[feature] }), svg),
    node("div", {}, ...["min", "max"].map((side) => node("label", { textContent: side }, inputs[side])), fails));
  if (near.length) made.append(samples);
  cards.set(feature, { made, svg, inputs, fails, rows, scale });
  return made;
}

function drawRules(kept) {
  for (const [feature, { made, svg, inputs, fails, rows, scale }] of cards) {
    const bound = rules[shown][feature] || {};
    const bins = Array.from({ length: BINS }, () => [0, 0]);
    let failing = 0;
    for (const row of rows) {
      const value = column[feature][row];
      failing += value < bound.min || value > bound.max;
      bins[Math.max(0, Math.min(BINS - 1, Math.floor((value - scale.low) / scale.width)))][kept[row] ? 0 : 1] += 1;
    }
    const most = Math.sqrt(Math.max(1, ...bins.map(([one, other]) => one + other)));
    const parts = bins.map(([one, other], place) => {
      const whole = (58 * Math.sqrt(one + other)) / most, blue = one + other ? (whole * one) / (one + other) : 0;
      const x = place * 10;
      return `<rect x="${x}" y="${60 - blue}" width="9" height="${blue}" fill="#0072b2"/><rect x="${x}" y="${60 - whole}" width="9" height="${whole - blue}" fill="#c3cad3"/>`;
    });
    const line = (value) => {
      const x = Math.max(1, Math.min(719, ((value - scale.low) / scale.width) * 10));
      return `<line x1="${x}" x2="${x}" y1="0" y2="62" stroke="#b2182b" stroke-width="2"/>`;
    };
    // Numbers only: no text of a document reaches this mark-up.
    svg.innerHTML = parts.join("") + ["min", "max"].filter((side) => bound[side] !== undefined).map((side) => line(bound[side])).join("")
      + `<text x="0" y="73" font-size="11" fill="#5b6673">${short(Number(scale.low.toPrecision(3)))}</text><text x="720" y="73" font-size="11" text-anchor="end" fill="#5b6673">${short(Number((scale.low + BINS * scale.width).toPrecision(3)))}</text>`;
    for (const side of ["min", "max"]) if (document.activeElement !== inputs[side]) inputs[side].value = bound[side] ?? "";
    fails.textContent = `breaks ${number.format(failing)} of ${number.format(rows.length)}`;
    made.classList.toggle("moved", changes().some(([language, name]) => language === shown && name === feature));
  }
}

function move(language, feature, side, value) {
  const bound = { ...rules[language][feature] };
  if (value === undefined || Number.isNaN(value)) delete bound[side]; else bound[side] = value;
  if (Object.keys(bound).length) rules[language][feature] = bound; else delete rules[language][feature];
  update();
}

function changes() {
  const found = [];
  for (const language of Object.keys(rules)) for (const feature of features) for (const side of ["min", "max"]) {
    const was = shipped[language][feature]?.[side], now = rules[language][feature]?.[side];
    if (was !== now) found.push([language, feature, side, now]);
  }
  return found;
}

function fragment() {
  const moved = changes();
  if (!moved.length) return "# no threshold was moved";
  const lines = ["data:", "  rules:"];
  for (const language of Object.keys(rules)) {
    const names = [...new Set(moved.filter(([where]) => where === language).map(([, feature]) => feature))];
    if (names.length) lines.push(`    ${language}:`);
    for (const feature of names) {
      const bound = rules[language][feature];
      const sides = bound ? Object.entries(bound).map(([side, value]) => `${side}: ${value}`).join(", ") : "";
      lines.push(bound ? `      ${feature}: {${sides}}` : `      # ${feature}: remove this rule from the recipe`);
    }
  }
  return lines.join("\n");
}

function fromAddress() {
  for (const part of location.hash.slice(1).split("&")) {
    const [, language, feature, side, value] = part.match(/^(\w+)\.(\w+)\.(min|max)=(.*)$/) || [];
    if (!rules[language] || !features.includes(feature)) continue;
    const bound = { ...rules[language][feature] };
    if (value === "" || Number.isNaN(Number(value))) delete bound[side]; else bound[side] = Number(value);
    if (Object.keys(bound).length) rules[language][feature] = bound; else delete rules[language][feature];
  }
}

document.getElementById("reset").onclick = () => {
  for (const language of Object.keys(rules)) rules[language] = structuredClone(shipped[language]);
  update();
};
fromAddress();
buildRules();
update();
