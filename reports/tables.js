"use strict";
// Sorts a table by the column whose heading was pressed; copies and downloads tables.
const Tables = (() => {
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

  // The rows as they are sorted now; a row's heading without the word that marks controls.
  function rows(table) {
    const head = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    const body = [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell, i) => (i ? cell.textContent : cell.dataset.sort).trim()));
    return [head, ...body];
  }

  // What a spreadsheet would take for a formula becomes text, as in files/spreadsheet.py.
  const inert = (text) => (/^([=+@\t\r]|-(?![\d.,\s[\]()±×%e−–-]*$))/.test(text) ? `'${text}` : text);
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (table) => rows(table).map((row) => row.map((text) => quoted(inert(text.replaceAll("−", "-")))).join(",")).join("\n") + "\n";

  const TEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", "±": "$\\pm$", "×": "$\\times$", "·": "$\\cdot$",
    "↑": "$\\uparrow$", "↓": "$\\downarrow$", "–": "--", "≤": "$\\leq$", "≥": "$\\geq$",
  };
  function tex(table) {
    const [head, ...body] = rows(table).map((row) => row.map((text) => [...text].map((c) => TEX[c] || c).join("")).join(" & ") + " \\\\");
    const columns = "l" + "r".repeat(table.tHead.rows[0].cells.length - 1);
    return [`\\begin{tabular}{${columns}}`, "\\toprule", head, "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  }

  function save(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {  // no permission, or an old browser
      const box = document.body.appendChild(document.createElement("textarea"));
      box.value = text;
      box.select();
      const done = document.execCommand("copy");
      box.remove();
      return done;
    }
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const done = await copy({ csv, tex }[button.dataset.copy](document.getElementById(button.dataset.table)));
      button.parentNode.querySelector(".said").textContent = done ? "Copied." : "The browser did not allow copying.";
    });
  }
  for (const button of document.querySelectorAll("[data-csv]")) {
    button.addEventListener("click", () => save(`${button.dataset.csv}.csv`, csv(document.getElementById(button.dataset.csv)), "text/csv"));
  }
  return { csv, tex, save };
})();
