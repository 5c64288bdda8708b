"use strict";
// Sorts a table by the column whose heading was pressed: by number where the cells carry one, else by text.
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
  const heading = button.parentElement, body = heading.closest("table").tBodies[0], at = heading.cellIndex;
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  const key = (row) => row.cells[at].dataset.key ?? row.cells[at].textContent;
  const compare = (p, q) => (isNaN(p) || isNaN(q) ? p.localeCompare(q, undefined, {numeric: true}) : p - q);
  const rows = [...body.rows].sort((p, q) => (ascending ? 1 : -1) * compare(key(p), key(q)));
  heading.parentElement.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  body.append(...rows);
}));
// Shows as much of the first of two images as the slider above them says.
document.querySelectorAll(".compare input").forEach((slider) => {
  const show = () => slider.parentElement.style.setProperty("--at", `${slider.value}%`);
  slider.addEventListener("input", show);
  show();
});
