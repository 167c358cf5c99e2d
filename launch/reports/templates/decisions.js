"use strict";
// Evaluates the decision table (data_pipeline/decisions/rules.py) over the columns of some documents, as the
// filter stage does. No rule is known here by name. `columns` has an array for each column that the table reads;
// null is no value, `pairs` lists rows of near duplicates, `language` holds codes of `languages`, and `id` holds numbers in the order of the ids.

function fails(check, value) {
  return check.operator === "<" ? value < check.bound : value > check.bound;
}

function reasonOf(check) {
  return check.reason.replace("{bound}", formatBound(check.bound));
}

function formatBound(bound) {
  return String(Number(bound.toPrecision(12)));
}

// The reasons of each document; a document without any is kept.
function judge(table, columns, languages, pairs) {
  const set = table.checks.filter((check) => check.bound !== null);
  const checks = languages.map((name) => set.filter((check) => check.language === null || check.language === name));
  const reasons = columns.language.map((language, row) => checks[language]
    .filter((check) => fails(check, columns[check.column][row])).map(reasonOf));
  settle(table.duplicates, columns, reasons, pairs);
  return reasons;
}

// In the order of preference, so that a document is dropped only for a kept one that it duplicates itself.
function settle(duplicates, columns, reasons, pairs) {
  const sets = columns[duplicates.similar.column];
  const setOf = (row) => (sets[row] === null ? `row ${row}` : sets[row]);
  const near = new Map();
  const add = (one, other) => near.set(one, (near.get(one) || []).concat([other]));
  pairs.forEach(([one, other]) => {
    add(setOf(one), setOf(other));
    add(setOf(other), setOf(one));
  });
  const passes = reasons.map((found) => found.length === 0);
  const order = reasons.map((_, row) => row).filter((row) => columns.cluster[row] !== null).sort((one, other) =>
    passes[other] - passes[one] || (precedes(duplicates.keep, columns, one, other) ? -1 : 1));
  const kept = new Set();
  const keptEqual = duplicates.equal.map(() => new Set());
  order.forEach((row) => {
    const values = duplicates.equal.map(({ column }) => columns[column][row]);
    const link = duplicates.equal.find((_, place) => values[place] !== null && keptEqual[place].has(values[place]))
      || ((near.get(setOf(row)) || []).some((other) => kept.has(other)) ? duplicates.similar : undefined);
    if (link) reasons[row].push(link.reason);
    else if (passes[row]) {
      kept.add(setOf(row));
      values.forEach((value, place) => keptEqual[place].add(value));
    }
  });
}

function precedes(keep, columns, one, other) {
  for (const { column, order } of keep) {
    const difference = columns[column][one] - columns[column][other];
    if (difference) return order === "ascending" ? difference < 0 : difference > 0;
  }
  return false;
}
