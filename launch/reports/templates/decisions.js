"use strict";
// Evaluates the decision table (data_pipeline/decisions/rules.py) over the columns of some documents, as the
// filter stage does. No rule is known here by name. `columns` has an array for each column that the table reads;
// null is no value, `language` holds codes of `languages`, and `id` holds numbers in the order of the ids.

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
function judge(table, columns, languages) {
  const set = table.checks.filter((check) => check.bound !== null);
  const checks = languages.map((name) => set.filter((check) => check.language === null || check.language === name));
  const reasons = columns.language.map((language, row) => checks[language]
    .filter((check) => fails(check, columns[check.column][row])).map(reasonOf));
  settle(table.duplicates, columns, reasons);
  return reasons;
}

function settle(duplicates, columns, reasons) {
  const clusters = columns[duplicates.cluster];
  const kept = new Map();
  clusters.forEach((cluster, row) => {
    if (cluster === null || reasons[row].length) return;
    if (!kept.has(cluster) || precedes(duplicates.keep, columns, row, kept.get(cluster))) kept.set(cluster, row);
  });
  clusters.forEach((cluster, row) => {
    const best = kept.get(cluster);
    if (best === undefined || best === row) return;
    const linked = duplicates.reasons.filter(({ column }) => columns[column][row] !== null);
    const link = linked.find(({ column }) => columns[column][row] === columns[column][best]) || linked[0];
    reasons[row].push(link.reason);
  });
}

function precedes(keep, columns, one, other) {
  for (const { column, order } of keep) {
    const difference = columns[column][one] - columns[column][other];
    if (difference) return order === "ascending" ? difference < 0 : difference > 0;
  }
  return false;
}
