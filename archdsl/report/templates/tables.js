// Tables of the page: a click on a head sorts by that column, and a button saves the rows as CSV.
"use strict";
const UNITS = {k: 1e3, M: 1e6, G: 1e9, T: 1e12};

// The number that a cell begins with, in its unit; null where it begins with none.
function numberIn(text) {
  const found = /^[-+]?[\d,_]*\.?\d+(?:e[-+]?\d+)?\s?([kMGT](?![a-z]))?/i.exec(text.trim());
  if (!found) return null;
  return parseFloat(found[0].replace(/[,_]/g, "")) * (UNITS[found[1]] || 1);
}

function compare(one, other) {
  const numbers = [numberIn(one), numberIn(other)];
  if (numbers[0] !== null && numbers[1] !== null) return numbers[0] - numbers[1];
  if (numbers[0] !== null || numbers[1] !== null) return numbers[0] !== null ? -1 : 1;
  return one.localeCompare(other);
}

function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const descending = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].sort(
    (a, b) => (descending ? -1 : 1) * compare(a.cells[column].textContent, b.cells[column].textContent));
  body.append(...rows);
}

// Text that a spreadsheet would take for a formula begins with an apostrophe, as in front.csv.
function csvOf(table) {
  const quoted = (text) => {
    const plain = /^[=+@\t\r]|^-(?![\d.])/.test(text) ? `'${text}` : text;
    return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  return [...table.rows].map((row) => [...row.cells].map((cell) => quoted(cell.textContent)).join(",")).join("\n") + "\n";
}

function save(table, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csvOf(table)], {type: "text/csv"}));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.tabIndex = 0;
    head.title = "sort";
    head.addEventListener("click", () => sortBy(table, column));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(table, column); }
    });
  });
  const button = document.createElement("button");
  button.textContent = "CSV";
  button.title = "save this table";
  button.addEventListener("click", () => save(table, table.dataset.file));
  table.parentElement.before(button);
}
