// Sorts a table by the clicked column: numbers by value, text by letters, cells without a value last.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = column === 0 ? head.ariaSort !== "ascending" : head.ariaSort === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => (Number.isNaN(Number(a) - Number(b)) ? a.localeCompare(b) : a - b);
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return up ? compare(x, y) : compare(y, x);
    });
    table.tBodies[0].append(...rows);
  }));
}
