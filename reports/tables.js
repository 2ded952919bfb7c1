"use strict";
// Sorts a table by the column whose heading was pressed.
(() => {
  function sortBy(table, column, header) {
    const body = table.tBodies[0];
    const down = header.getAttribute("aria-sort") !== "descending" && column > 0
      || header.getAttribute("aria-sort") === "ascending";
    const value = (row) => row.cells[column].dataset.sort;
    const compare = (a, b) => {
      if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
      const order = column ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b));
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  for (const button of document.querySelectorAll("th button")) {
    const header = button.closest("th");
    button.addEventListener("click", () => sortBy(button.closest("table"), Number(button.dataset.column), header));
  }
})();
